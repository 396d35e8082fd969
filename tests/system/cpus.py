"""The machine's CPUs: how busy they are, whoever uses them, and how to keep to one."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

#: In /proc/stat's line of all CPUs, the columns in which none of them worked: idle and iowait.
IDLE = slice(3, 5)
#: The columns of proc_stat(5) that make up all time; those after them are in these already.
ALL = slice(0, 8)
HERTZ = os.sysconf("SC_CLK_TCK")


class Busy:
    """How many CPUs, on average, worked between its making and a `look`."""

    def __init__(self) -> None:
        self._worked, self._at = _worked(), time.monotonic()

    def look(self) -> float:
        return (_worked() - self._worked) / (time.monotonic() - self._at)


@contextmanager
def on_one_cpu() -> Iterator[None]:
    """Keep the calling thread, and so what it sends, to one CPU."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _worked() -> float:
    """Seconds that all CPUs together have worked, since the machine started."""
    line = Path("/proc/stat").read_text().partition("\n")[0]
    ticks = [int(word) for word in line.split()[1:]]
    return (sum(ticks[ALL]) - sum(ticks[IDLE])) / HERTZ
