"""Work that a signal may not cut short."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

WAITING = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def uncut() -> Iterator[None]:
    """Ctrl-C and SIGTERM wait until the block is through, then do what they do otherwise.

    Those that are ignored stay so. Python runs handlers in its main thread only: elsewhere there
    is nothing to wait for.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    before = {
        each: handler
        for each in WAITING
        if (handler := signal.getsignal(each)) not in (signal.SIG_IGN, None)
    }
    for each in before:
        signal.signal(each, lambda number, _: came.append(number))
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
        if came:
            signal.raise_signal(came[0])
