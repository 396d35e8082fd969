"""What all relays of control frames do: each frame goes on as its fate says.

To the controller and the agents a relay is the data plane between them that loses, doubles or
delays.
"""

import asyncio
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from hsl_pcap import until

#: When a control frame goes on, in seconds from now; as often as it does.
Fate = Callable[[bytes], Sequence[float]]


def as_it_comes(_frame: bytes) -> Sequence[float]:
    """The fate of a frame on a good day."""
    return (0.0,)


class Relay(ABC):
    """Works in a thread of its own for as long as the block lasts.

    `fate` may be changed at any time. `seen` and `passed` count control frames.
    """

    def __init__(self) -> None:
        """Do nothing yet."""
        self.fate: Fate = as_it_comes
        self.seen = self.passed = 0
        self._waiting = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="relay")

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._begin(), self._loop).result(10)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    @abstractmethod
    async def _begin(self) -> None:
        """Begin to relay; in the loop."""

    @abstractmethod
    async def _end(self) -> None:
        """Close what `_begin` has opened; in the loop."""

    def _pass(self, frame: bytes, onward: Callable[[], object]) -> None:
        """Call `onward` when, and as often as, the frame's fate says."""
        self.seen += 1
        for pause in self.fate(frame):
            self.passed += 1
            if pause:
                self._waiting += 1
                self._loop.call_later(pause, self._pass_late, onward)
            else:
                onward()

    def _pass_late(self, onward: Callable[[], object]) -> None:
        self._waiting -= 1
        onward()

    def await_quiet(self) -> None:
        """Wait until no frame waits any more for its time."""
        until(lambda: self._waiting == 0, "the last delayed control frame")
