"""Pings for as long as a block lasts: between the first and the last none may be missing."""

import re
import signal
import subprocess
from collections.abc import Callable
from tempfile import TemporaryFile
from types import TracebackType
from typing import IO, Self

#: Starts a command whose standard output goes to a file.
Start = Callable[[list[str], IO[str]], "subprocess.Popen[str]"]


class Pings:
    """A ping that ends with the block; its `answered` sequence numbers are there afterwards."""

    def __init__(self, start: Start, *words: str) -> None:
        """`words`: its options and target."""
        self._start, self._words = start, words

    def __enter__(self) -> Self:
        self._said = TemporaryFile("w+")  # a pipe that nobody reads would hold it up
        self._child = self._start(["ping", *self._words], self._said)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._child.send_signal(signal.SIGINT)
        self._child.wait(60)
        with self._said:
            self._said.seek(0)
            self.said = self._said.read()
        self.answered = [int(number) for number in re.findall(r"icmp_seq=(\d+)", self.said)]

    def whole(self, least: int) -> None:
        """At least so many were answered, in order, once; the latest may be on their way."""
        assert self.answered == list(range(1, len(self.answered) + 1)), self.answered
        assert len(self.answered) >= least, self.said
        assert "DUP" not in self.said
        assert "wrong data" not in self.said
