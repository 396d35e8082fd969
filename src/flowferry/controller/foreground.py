"""Run a controller in this very process: what `flowferry controller` and service managers need."""

import asyncio
import gc
import logging
import signal
import socket
import ssl
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from flowferry.controller import api, privileges
from flowferry.controller.backend import Controller
from flowferry.controller.config import Config, Tls
from flowferry.controller.config import Group as GroupConfig
from flowferry.controller.model import Attachment, Group, Instance, Model
from flowferry.controller.service import Service
from flowferry.controller.store import Store, StoreError, read_peer
from flowferry.controller.strategies.base import Settings
from flowferry.testbed import namespace
from flowferry.wire import KeyRing

LOG = logging.getLogger(__name__)


class StartError(Exception):
    """The controller cannot start; one line with the remedy."""


def run(config: Config) -> int:
    """Run until SIGTERM or SIGINT; says `ready` on stderr once it can be asked. Exit status."""
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s"
    )
    try:
        asyncio.run(_run(config))
    except (StartError, StoreError) as error:
        print(f"flowferry controller: {error}", file=sys.stderr)
        return 1
    return 0


async def _run(config: Config) -> None:
    store = Store(config.journal)
    service = Service(
        model_of(config),
        store,
        _keys(config),
        first_table=config.openflow.first_table,
        heartbeat=config.heartbeat_ms / 1e3,
        dead_after=config.dead_after,
        echo_interval=config.openflow.echo_ms / 1e3,
        timeout=config.deadline_ms / 1e3,
        failpoint=config.failpoint,
    )
    settings = Settings(
        deadline_ms=config.deadline_ms,
        transfer_ms=config.state_deadline_ms,
        settling_ms=config.settling_ms,
    )
    controller = Controller(service, config.name, config.strategy, settings)
    end = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, end.set)
    listening = _listen(config)
    ready = asyncio.Event()
    serving: asyncio.Task[None] | None = None
    try:
        service.start()
        await service.listener.start(listening, _tls(config.openflow.tls))
        if config.rest.listen is None:
            ready.set()
        else:
            app = api.create(controller, service.metrics, version("flowferry"))
            serving = asyncio.create_task(api.serve(app, _door(config), ready))
        await _first(ready, serving)
        privileges.drop()
        # It stays. To look for garbage in it would hold up handovers for milliseconds.
        gc.collect()
        gc.freeze()
        print("ready", file=sys.stderr, flush=True)
        await _first(end, serving)
    finally:
        if serving is not None:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)
        await service.stop()


async def _first(event: asyncio.Event, serving: "asyncio.Task[None] | None") -> None:
    """Wait for an event; should the interface fail meanwhile, so do we."""
    waiting = asyncio.create_task(event.wait())
    tasks: set[asyncio.Task[Any]] = {waiting} if serving is None else {waiting, serving}
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if serving is not None and serving.done():
        raise StartError(
            f"the REST interface has failed ({serving.exception()}); "
            "free its address, or change rest.listen"
        )


def model_of(config: Config) -> Model:
    """The groups and instances of a configuration."""
    groups = {
        one.name: Group(one.name, number, _end(one, "upstream"), _end(one, "downstream"))
        for number, one in enumerate(config.groups)
    }
    instances = {
        each.id: Instance(
            each.name,
            each.id,
            one.name,
            each.upstream_port,
            each.downstream_port,
            None if each.peer is None else read_peer(each.id, each.peer),
            tuple(each.macs),
        )
        for one in config.groups
        for each in one.instances
    }
    return Model(groups, instances)


def _end(group: GroupConfig, side: str) -> Attachment:
    end = getattr(group, side)
    return Attachment(end.dpid, tuple(end.ports), end.group)


def _keys(config: Config) -> KeyRing:
    first, *others = [
        (key.id, bytes.fromhex(Path(key.file).read_text("ascii").strip())) for key in config.keys
    ]
    keys = KeyRing(*first)
    for number, secret in others:
        keys.add(number, secret)
    return keys


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def _listen(config: Config) -> socket.socket:
    host, port = _split(config.openflow.listen)

    def work() -> socket.socket:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family)

    try:
        netns = config.openflow.netns
        return work() if netns is None else namespace.call(netns, work)
    except OSError as error:
        raise StartError(
            f"switches cannot connect to {config.openflow.listen} ({error.strerror}); "
            "free it, or change openflow.listen"
        ) from None


def _tls(tls: Tls | None) -> ssl.SSLContext | None:
    if tls is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(tls.cert, tls.key)
        if tls.ca is not None:
            context.load_verify_locations(tls.ca)
            context.verify_mode = ssl.CERT_REQUIRED
    except (OSError, ssl.SSLError) as error:
        raise StartError(f"certificate {tls.cert}: {error}; give PEM files that fit") from None
    return context


def _door(config: Config) -> api.Door:
    rest = config.rest
    assert rest.listen is not None
    host, port = _split(rest.listen)
    token = None
    if rest.token_file is not None:
        token = Path(rest.token_file).read_text("utf-8").strip()
    tls = rest.tls
    return api.Door(
        host,
        port,
        token,
        None if tls is None else tls.cert,
        None if tls is None else tls.key,
        None if tls is None else tls.ca,
    )
