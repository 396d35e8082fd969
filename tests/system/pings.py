"""Pings for as long as a block lasts: between the first and the last none may be missing."""

import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from tempfile import TemporaryFile
from typing import IO

#: Starts a command whose standard output goes to a file.
Start = Callable[[list[str], IO[str]], "subprocess.Popen[str]"]


@contextmanager
def pinging(start: Start, *words: str) -> Iterator[list[int]]:
    """Run ping with these options and target; behind the block, the sequence numbers answered."""
    answered: list[int] = []
    with TemporaryFile("w+") as said:  # a pipe that nobody reads would hold it up
        child = start(["ping", *words], said)
        try:
            yield answered
        finally:
            child.send_signal(signal.SIGINT)
            child.wait(60)
        said.seek(0)
        lines = said.read()
    assert "wrong data" not in lines, lines
    # Errors have sequence numbers, too, but no bytes.
    answered += map(int, re.findall(r"bytes from .* icmp_seq=(\d+)", lines))


def whole(answered: list[int], least: int) -> None:
    """At least so many were answered, in order, once; the latest may be on their way."""
    assert answered == list(range(1, len(answered) + 1)), answered
    assert len(answered) >= least, answered
