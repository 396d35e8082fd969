"""Serve the interface inside the controller's own event loop."""

import asyncio
import contextlib
import socket
from dataclasses import dataclass

import uvicorn
from fastapi import FastAPI

from flowferry.controller.api.guard import Guard


@dataclass(frozen=True)
class Door:
    """Where and for whom it is open."""

    host: str
    port: int
    token: str | None = None
    cert: str | None = None
    key: str | None = None
    ca: str | None = None


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self):  # type: ignore[no-untyped-def]
        """Signals are the controller's."""
        yield


async def serve(app: FastAPI, door: Door, ready: asyncio.Event) -> None:
    """Serve until cancelled. `ready` is set once requests are taken.

    Raises `OSError` if the address cannot be had.
    """
    family = socket.AF_INET6 if ":" in door.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((door.host, door.port))
        config = uvicorn.Config(
            Guard(app, door.token),
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=2,
            ssl_certfile=door.cert,
            ssl_keyfile=door.key,
            ssl_ca_certs=door.ca,
            ssl_cert_reqs=2 if door.ca else 0,
        )
        server = _Server(config)
        work = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            while not server.started and not work.done():
                await asyncio.sleep(0.005)  # uvicorn says it in no other way
            ready.set()
            await asyncio.shield(work)
        finally:
            server.should_exit = True
            with contextlib.suppress(asyncio.CancelledError):
                await work
