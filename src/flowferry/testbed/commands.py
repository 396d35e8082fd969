"""Commands in the namespaces of a run: the part of `Bare` and `Testbed` that users call most."""

import subprocess
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flowferry.testbed.process import Stream
from flowferry.testbed.run import Run


class Commands(ABC):
    """Runs commands in namespaces that are given by role ("h1") or by full name."""

    #: Role to full name.
    namespaces: dict[str, str]

    @property
    @abstractmethod
    def owner(self) -> Run:
        """The run that owns the processes."""

    def _cgroups(self, ns: str) -> Sequence[Path]:
        """The control groups for processes in a namespace."""
        return ()

    def run(
        self,
        ns: str,
        argv: Sequence[str],
        *,
        check: bool = True,
        timeout: float = 30.0,
        input: str | None = None,
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command to its end (`timeout` in seconds), its output captured as text.

        With `check`, an exit status other than 0 raises `subprocess.CalledProcessError`.
        """
        name = self.namespaces.get(ns, ns)
        return self.owner.run(
            name, argv, check=check, timeout=timeout, input=input, cgroups=self._cgroups(name)
        )

    def popen(
        self,
        ns: str,
        argv: Sequence[str],
        *,
        stdin: Stream = subprocess.DEVNULL,
        stdout: Stream = None,
        stderr: Stream = None,
        text: bool = False,
        env: Mapping[str, str] | None = None,
    ) -> "subprocess.Popen[Any]":
        """Start a process; whatever still runs when everything is taken down is ended then."""
        name = self.namespaces.get(ns, ns)
        return self.owner.popen(
            name,
            argv,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            text=text,
            env=env,
            cgroups=self._cgroups(name),
        )
