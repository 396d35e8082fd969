"""Who is let in, and how much they may send; before anything of a request is looked at."""

import hmac
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from flowferry.controller.api import problems

#: Bytes of a request's body.
LONGEST_BODY = 64 << 10

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Guard:
    """Wants the bearer token, if there is one, and refuses bodies that are too long."""

    def __init__(self, app: Any, token: str | None) -> None:
        """In front of an ASGI application."""
        self._app = app
        self._token = None if token is None else token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, or answer it here."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        if self._token is not None:
            given = headers.get(b"authorization", b"")
            if not hmac.compare_digest(given, b"Bearer " + self._token):
                refusal = problems.answer(
                    401,
                    "a token is needed; give the one of the controller's token_file",
                    {"WWW-Authenticate": "Bearer"},
                )
                await refusal(scope, receive, send)
                return
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length) > LONGEST_BODY:
            refusal = problems.answer(413, f"send at most {LONGEST_BODY} bytes")
            await refusal(scope, receive, send)
            return
        await self._app(scope, _counted(receive), send)


def _counted(receive: Receive) -> Receive:
    """A body without a length, sent in chunks, is cut off where it gets too long."""
    total = 0

    async def counted() -> MutableMapping[str, Any]:
        nonlocal total
        message = await receive()
        total += len(message.get("body", b""))
        if total > LONGEST_BODY:
            return {"type": "http.disconnect"}
        return message

    return counted
