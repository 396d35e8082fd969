"""The ordered stream between two agents, one way."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from sim_clock import MS, US, Clock

if TYPE_CHECKING:
    from sim_agent import Agent


class Stream:
    """From one agent to another: in order, and gone all at once."""

    def __init__(self, clock: Clock, sender: Agent, taker: Agent) -> None:
        """Not connected yet."""
        self._clock, self._sender, self._taker = clock, sender, taker
        self._connected = False
        #: The management network carries.
        self.up = True
        self._life = 0
        self._free = 0
        #: Planted fault: records overtake the strays before them.
        self.hasty = False
        #: Planted fault: what becomes of a record; None: it is not sent.
        self.spoil: Callable[[bytes], bytes | None] = lambda record: record

    def connect(self) -> None:
        """Make it, if it can be made; the sender hears of it."""
        self._clock.after(self._clock.between(50 * US, 1 * MS), self._connect)

    def _connect(self) -> None:
        if self.up and self._taker.runs:
            self._connected = True
            self._sender.on_connected(self._taker)
        else:
            self._clock.after(50 * MS, self._refuse)

    def _refuse(self) -> None:
        self._sender.on_unreachable(self._taker, "connection refused")

    def send(self, item: tuple[int, bytes] | bytes) -> None:
        """A stray (side, frame) or a record. What cannot go is lost."""
        if not self._connected:
            self._sender.lose_on_stream(item)
            return
        if not isinstance(item, tuple):
            spoilt = self.spoil(item)
            if spoilt is None:
                return
            item = spoilt
        clock = self._clock
        self._free = max(self._free, clock.now + clock.between(20 * US, 300 * US))
        when = self._free
        if self.hasty and isinstance(item, tuple):
            when += 2 * MS
        clock.at(when, self._arrive, item, self._life)

    def _arrive(self, item: tuple[int, bytes] | bytes, life: int) -> None:
        if life != self._life:
            self._sender.lose_on_stream(item)
        elif isinstance(item, tuple):
            self._taker.on_stray(*item)
        else:
            self._taker.on_record(self._sender.number, item)

    def cut(self, up: bool) -> None:
        """It breaks, and what is under way is lost; `up`: it can be made again."""
        self.up = up
        self._life += 1
        if self._connected:
            self._connected = False
            self._clock.after(self._clock.between(0, 5 * MS), self._tell_of_cut)

    def hang_up(self) -> None:
        """The taker ends it; what is under way stays unread."""
        self._life += 1
        if self._connected:
            self._connected = False
            self._clock.after(self._clock.between(0, 1 * MS), self._refuse)

    def _tell_of_cut(self) -> None:
        self._sender.on_unreachable(self._taker, "cut")
        self._taker.on_gone(self._sender.number)

    def heal(self) -> None:
        """It can be made again."""
        self.up = True
        self.connect()
