"""A daemon that runs as our child process: look at it, stop and resume it, end it."""

import os
import signal
import subprocess
from types import TracebackType
from typing import Any, Self

#: Seconds to end in order before it is killed.
PATIENCE = 10.0


class Child:
    """A child process; a context manager that ends it. Who derives from it starts `process`."""

    process: "subprocess.Popen[Any]"

    @property
    def pid(self) -> int:
        """Process id."""
        return self.process.pid

    def kill(self) -> None:
        """kill -9; what it keeps outside of itself (pins, a journal) stays."""
        self.process.kill()
        self.process.wait(timeout=PATIENCE)

    def suspend(self) -> None:
        """Stop the process (SIGSTOP) and return when it has stopped."""
        os.kill(self.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WNOWAIT)

    def resume(self) -> None:
        """Let a stopped process go on (SIGCONT)."""
        os.kill(self.pid, signal.SIGCONT)

    def __enter__(self) -> Self:
        """The child itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End it, whatever state it is in."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
            try:
                self.process.communicate(timeout=PATIENCE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.communicate()
