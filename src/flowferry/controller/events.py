"""What happens, told to whoever listens: a name and a plain JSON object each.

Listeners are not waited for: one that is too slow loses the oldest.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

Json = dict[str, Any]
#: Events that wait for a slow listener.
BACKLOG = 1000


class Events:
    """Everything that the controller tells of, at the moment when it happens."""

    def __init__(self) -> None:
        """Nobody listens yet."""
        self._queues: set[asyncio.Queue[tuple[str, Json]]] = set()

    @property
    def heard(self) -> bool:
        """Whether anybody listens."""
        return bool(self._queues)

    def publish(self, event: str, data: Json) -> None:
        """Tell everybody who listens."""
        for queue in self._queues:
            if queue.full():
                queue.get_nowait()
            queue.put_nowait((event, data))

    async def subscribe(self) -> AsyncGenerator[tuple[str, Json], None]:
        """Events from now on, for ever."""
        queue: asyncio.Queue[tuple[str, Json]] = asyncio.Queue(BACKLOG)
        self._queues.add(queue)
        try:
            while True:
                yield await queue.get()
        finally:
            self._queues.discard(queue)
