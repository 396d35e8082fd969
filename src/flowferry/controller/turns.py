"""Whose turn it is of what agents have said: packets wait for some of it.

What is to be written down first waits for the disk. Flows that wait for a marker, and the answers
to markers, go before it, but not for ever.
"""

from collections import deque

from flowferry.controller.strategies.base import Received
from flowferry.wire import Command

QUICK = frozenset({Command.SEEN, Command.FENCED})
#: Quick ones that go before another one at most.
MOST_PASSED = 8


class Turns:
    """Two queues, each in order."""

    def __init__(self) -> None:
        """Nobody waits."""
        self._quick: deque[Received] = deque()
        self._others: deque[Received] = deque()
        self._passed = 0

    def __len__(self) -> int:
        """How many wait."""
        return len(self._quick) + len(self._others)

    def put(self, event: Received) -> None:
        """It waits."""
        quick = event.message.command in QUICK
        (self._quick if quick else self._others).append(event)

    def take(self) -> Received:
        """Whose turn it is. Raises `IndexError` if nobody waits."""
        if self._others and (not self._quick or self._passed == MOST_PASSED):
            self._passed = 0
            return self._others.popleft()
        self._passed += bool(self._others)
        return self._quick.popleft()
