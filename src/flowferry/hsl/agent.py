"""Run an agent in a process of its own and end it: what the CLI, the demo and the tests share."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from flowferry.child import Child
from flowferry.hsl.client import Client, HslError

Shim = Literal["kernel", "veth"]


@dataclass(frozen=True)
class Instance:
    """Name, and number in control frames (from 1)."""

    name: str
    id: int


@dataclass(frozen=True)
class Interfaces:
    """The instance's interfaces; the inner ones are the HSL's ends of the inner veth pairs."""

    upstream: str
    downstream: str
    inner_upstream: str | None = None
    inner_downstream: str | None = None


@dataclass(frozen=True)
class KeyFile:
    """A key of the deployment: its number, and a file with hexadecimal digits."""

    id: int
    file: str


@dataclass(frozen=True)
class Tls:
    """PEM files: the instance's certificate and key, and who signs the other instances'."""

    cert: str
    key: str
    ca: str


@dataclass(frozen=True)
class Config:
    """What an agent is told; docs/hsl.md describes each field."""

    instance: Instance
    shim: Shim
    interfaces: Interfaces
    pins: str
    socket: str
    netns: str | None = None
    buffer_bytes: int = 256 << 20
    table_size: int = 65_536
    heartbeat_timeout_ms: int = 1000
    settle_us: int = 200
    keys: list[KeyFile] = field(default_factory=list)
    strays_listen: str | None = None
    tls: Tls | None = None
    attach: Literal["auto", "filter"] = "auto"
    function_socket: str | None = None
    drain_quiet_us: int = 1000
    release_rate: int = 0
    failpoint: str | None = None
    trust_markers: bool = False
    stall_ms: int = 0

    def to_json(self) -> str:
        """As the native agent reads it."""
        return json.dumps(asdict(self))


class Agent(Child):
    """An agent as a child process; a context manager that ends it."""

    def __init__(
        self, config: Config, *, cpu: int | None = None, env: Mapping[str, str] | None = None
    ) -> None:
        """Start it and wait until it answers.

        `cpu`: pin it there; `env`: more environment. It is in a session of its own: Ctrl-C at the
        terminal is for its parent to deal with. Raises `HslError` with the agent's own line when
        it does not start.
        """
        self.config = config
        command = [sys.executable, "-m", "flowferry.hsl", config.to_json()]
        if cpu is not None:
            command = ["taskset", "-c", str(cpu), *command]
        # A file, not a pipe: nobody reads it before the end, and a full pipe would stop the agent.
        self._said = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._said,
            text=True,
            start_new_session=True,
            env={**os.environ, **(env or {})},
        )
        self._wait_until_ready(timeout=30.0)

    def _wait_until_ready(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if line.strip() != "ready" or time.monotonic() > deadline:
            self.process.communicate(timeout=timeout)
            raise HslError(self._last_words())

    def said(self) -> str:
        """What it has written to stderr so far."""
        self._said.seek(0)
        return self._said.read()

    def _last_words(self) -> str:
        lines = self.said().strip().splitlines()
        return lines[-1] if lines else f"the agent ended with {self.process.returncode}, silently"

    def client(self, timeout: float = 30.0) -> Client:
        """A new connection to it."""
        return Client(self.config.socket, timeout)

    def stop(self, timeout: float = 30.0) -> dict[str, Any]:
        """End it in order; its last status.

        Raises `HslError` with its line when it failed.
        """
        if self.process.poll() is None:
            self.process.terminate()
        return self.result(timeout)

    def result(self, timeout: float = 30.0) -> dict[str, Any]:
        """Wait for its end; its last status."""
        output, _ = self.process.communicate(timeout=timeout)
        if self.process.returncode != 0:
            raise HslError(self._last_words())
        status = json.loads(output)
        assert isinstance(status, dict)
        return status


def default_socket(directory: Path, instance: str) -> Path:
    """Where an agent of that name listens below a run directory."""
    return directory / f"hsl-{instance}.sock"
