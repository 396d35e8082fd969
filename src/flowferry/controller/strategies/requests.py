"""Requests that are repeated until they are answered or dropped: frames may be lost.

Pure. Each request has a number that its repeats keep, so that its answer is known whichever of
them it quotes. The pause between repeats doubles up to a limit; there is no end to them here, since
every state that asks has a deadline of its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import count

from flowferry.controller.strategies.base import Send, Settings
from flowferry.wire import Flags


@dataclass(slots=True)
class _Open:
    send: Send
    next_at: float
    pause: float


class Requests:
    """The open requests of one part, each under a name."""

    def __init__(self, settings: Settings, numbers: count[int]) -> None:
        """None yet; `numbers` gives numbers that are unique in the handover."""
        self._first = settings.retry_ms / 1e3
        self._limit = settings.retry_limit_ms / 1e3
        self._numbers = numbers
        self._open: dict[str, _Open] = {}

    def ask(self, name: str, send: Send, now: float, *, at: float | None = None) -> list[Send]:
        """Send a request, now or at a later time; one of the same name is dropped.

        `send.request` is set here.
        """
        send = replace(send, request=next(self._numbers))
        if at is not None and at > now:
            self._open[name] = _Open(send, at, 0.0)
            return []
        self._open[name] = _Open(send, now + self._first, self._first)
        return [send]

    def postpone(self, name: str, until: float) -> None:
        """Do not send this one, or not again, before then."""
        request = self._open.get(name)
        if request is not None:
            request.next_at = max(request.next_at, until)

    def take(self, number: int | None) -> str | None:
        """An answer has come: the name of the open request with this number, which it ends."""
        for name, request in self._open.items():
            if request.send.request == number:
                del self._open[name]
                return name
        return None

    def drop(self, *names: str) -> None:
        """These are answered, or not wanted any more."""
        for name in names:
            self._open.pop(name, None)

    def clear(self) -> None:
        """None is wanted any more."""
        self._open.clear()

    def open(self, names: Iterable[str]) -> bool:
        """Whether any of these waits for an answer."""
        return any(name in self._open for name in names)

    @property
    def next_due(self) -> float | None:
        """When the next repeat is due."""
        return min((request.next_at for request in self._open.values()), default=None)

    def due(self, now: float) -> list[Send]:
        """What is to be sent again, or for the first time, now."""
        sends = []
        for request in self._open.values():
            if request.next_at > now:
                continue
            first = request.pause == 0.0
            request.pause = self._first if first else min(2 * request.pause, self._limit)
            request.next_at = now + request.pause
            send = request.send
            if not first:
                send = replace(
                    send, message=replace(send.message, flags=send.message.flags | Flags.RETRY)
                )
            sends.append(send)
        return sends
