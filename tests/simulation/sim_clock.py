"""Simulated time: events in order, drawn from nothing but the seed."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count
from random import Random
from typing import Any

US, MS, S = 1_000, 1_000_000, 1_000_000_000
"""Nanoseconds."""


class Clock:
    """Calls what is due, in the order of time and, at the same time, of asking."""

    def __init__(self, random: Random) -> None:
        """Time begins at one second, so that 0 never looks like a time."""
        self.now = S
        self.random = random
        self._events: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []
        self._numbers = count()
        #: For people: what happened when, if somebody wants to read it.
        self.trace: list[tuple[int, str]] | None = None

    def at(self, time: int, call: Callable[..., None], *args: Any) -> None:
        """Call at a time, or at once if it has passed."""
        heapq.heappush(self._events, (max(time, self.now), next(self._numbers), call, args))

    def after(self, pause: float, call: Callable[..., None], *args: Any) -> None:
        """Call after nanoseconds."""
        self.at(self.now + int(pause), call, *args)

    def between(self, low: float, high: float) -> int:
        """Nanoseconds, evenly drawn."""
        return int(low + (high - low) * self.random.random())

    def run(self, until: int) -> None:
        """Let everything happen that is due until then."""
        while self._events and self._events[0][0] <= until:
            self.now, _, call, args = heapq.heappop(self._events)
            call(*args)
        self.now = max(self.now, until)

    def note(self, text: str) -> None:
        """A line for the trace."""
        if self.trace is not None:
            self.trace.append((self.now, text))
