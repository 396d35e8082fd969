"""Run a controller in a process of its own and end it."""

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from flowferry.child import Child
from flowferry.controller.client import Client, ControllerError

#: Seconds to become ready.
PATIENCE = 30.0


class Daemon(Child):
    """A controller as a child process; a context manager that ends it."""

    def __init__(self, config: Path, url: str, *, env: Mapping[str, str] | None = None) -> None:
        """Start it with a configuration file, and wait until it answers on `url`.

        Its log is beside the file. It is in a session of its own: Ctrl-C at the terminal is for
        its parent to deal with. Raises `ControllerError` with its own line when it does not start.
        """
        self.config = config
        self.url = url
        self.log = config.with_suffix(".log")
        self._env = {**os.environ, **(env or {})}
        self.process = self._start()

    def _start(self) -> "subprocess.Popen[bytes]":
        with self.log.open("ab") as log:
            begin = log.tell()
            process = subprocess.Popen(
                [sys.executable, "-m", "flowferry.controller", str(self.config)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,
                env=self._env,
            )
        deadline = time.monotonic() + PATIENCE
        while True:
            said = self.log.read_bytes()[begin:].decode(errors="replace").splitlines()
            if "ready" in said:
                return process
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                process.wait()
                raise ControllerError(said[-1] if said else "the controller ended silently")
            time.sleep(0.005)

    def client(self) -> Client:
        """A client of it."""
        return Client(self.url)

    def restart(self) -> None:
        """Start it again, with the same configuration and journal, after it has ended."""
        assert self.process.poll() is not None, "it still runs"
        self.process = self._start()

    def stop(self, timeout: float = 30.0) -> int:
        """End it in order; its exit status."""
        if self.process.poll() is None:
            self.process.terminate()
        return self.process.wait(timeout)
