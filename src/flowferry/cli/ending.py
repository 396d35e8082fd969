"""The end of a command that has a testbed up: told to end, it takes that down first."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


class _Ended(SystemExit):
    """The command was told to end; everything is taken down on the way out."""


@contextmanager
def in_order() -> Iterator[None]:
    """Ctrl-C and SIGTERM unwind the block once; repeating them cannot cut the cleaning short.

    The exit status is 128 and the signal's number.
    """
    numbers = (signal.SIGINT, signal.SIGTERM)

    def end(number: int, _: FrameType | None) -> None:
        for each in numbers:
            signal.signal(each, signal.SIG_IGN)
        raise _Ended(128 + number)

    before: dict[signal.Signals, Any] = {each: signal.signal(each, end) for each in numbers}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
