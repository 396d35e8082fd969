"""Signals wait for what they may not cut short."""

import signal
import threading
from collections.abc import Iterator
from types import FrameType

import pytest

from flowferry.testbed.uncut import uncut


class _ToldToEnd(Exception):
    pass


def _end(number: int, frame: FrameType | None) -> None:
    raise _ToldToEnd


@pytest.fixture(autouse=True)
def told() -> Iterator[None]:
    """SIGTERM unwinds, as in our commands; whoever runs the tests may have it ignored."""
    before = signal.signal(signal.SIGTERM, _end)
    yield
    signal.signal(signal.SIGTERM, before)


def cut(done: list[str]) -> None:
    with uncut():
        signal.raise_signal(signal.SIGTERM)
        done.append("one")
        with uncut():
            signal.raise_signal(signal.SIGTERM)
            done.append("two")
        done.append("three")


def test_a_signal_waits_until_the_outermost_block_is_through() -> None:
    done: list[str] = []
    with pytest.raises(_ToldToEnd):
        cut(done)
    assert done == ["one", "two", "three"]
    assert signal.getsignal(signal.SIGTERM) is _end


def test_what_is_ignored_stays_so() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with uncut():
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
        signal.raise_signal(signal.SIGTERM)


def test_other_threads_leave_the_handlers_alone() -> None:
    seen = []

    def work() -> None:
        with uncut():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [_end]
