"""Changes as they happen, for a loop or an asynchronous loop."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from flowferry._native import EstateWatch
from flowferry.estate.errors import Closed
from flowferry.estate.view import Event

__all__ = ["Watch"]

#: Seconds that a thread of an asynchronous loop waits at a time: so long may an interpreter that
#: ends in the middle of one be held up.
PATIENCE = 0.5


class Watch:
    """Changes of matching items, each item once however often it changed since one last looked.

    A loop over it ends when the estate is closed, or the watch is. An asynchronous loop has a
    thread of its own, so that watches however many do not keep other calls waiting.
    """

    def __init__(self, native: EstateWatch, check: Callable[[], None]) -> None:
        """Use `Estate.watch`."""
        self._native = native
        self._check = check
        self._thread: ThreadPoolExecutor | None = None
        self._waiting: asyncio.Future[Any] | None = None

    def next(self, timeout: float | None = None) -> Event | None:
        """The next event; None when `timeout` seconds are up, or the watch has ended."""
        found = self._native.next(timeout)
        return None if found is None else Event(*found)

    @property
    def ended(self) -> bool:
        """Whether nothing more will come."""
        return self._native.ended

    def close(self) -> None:
        """Stop watching."""
        self._native.close()
        self._let_go()

    def __iter__(self) -> Self:
        """Loop over events."""
        return self

    def __next__(self) -> Event:
        """Wait for the next event."""
        # In pieces, so that an interrupt is seen.
        while not self.ended:
            found = self.next(PATIENCE)
            if found is not None:
                return found
        raise StopIteration

    def __aiter__(self) -> Self:
        """Loop over events."""
        return self

    async def __anext__(self) -> Event:
        """Wait for the next event. Nothing is lost if the wait is cancelled."""
        while True:
            if self._waiting is None:
                if self.ended:
                    self._let_go()
                    raise StopAsyncIteration
                self._waiting = self._next_in_thread()
            # Cancelled here, the answer stays where the next wait finds it.
            found = await asyncio.shield(self._waiting)
            self._waiting = None
            if found is not None:
                return Event(*found)

    def _next_in_thread(self) -> "asyncio.Future[Any]":
        # A forked child has no thread, and nothing to wait for.
        with suppress(Closed):
            self._check()
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "estate-watch")
        loop = asyncio.get_running_loop()
        return loop.run_in_executor(self._thread, self._native.next, PATIENCE)

    def _let_go(self) -> None:
        if self._thread is not None:
            self._thread.shutdown(wait=False)
            self._thread = None

    def __enter__(self) -> Self:
        """Watch for the length of a block."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop watching."""
        self.close()
