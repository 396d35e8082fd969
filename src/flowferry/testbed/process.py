"""Processes of a run: start them in a namespace, know them again later, end them.

A pid says nothing by itself: it is reused. A process is therefore known by pid *and* start time,
and a signal goes through a pidfd opened before the start time is compared, so that a recycled pid
can never be hit. Every process also carries the run's token in its environment, which its children
inherit; that finds the ones that were forked in the instant before a crash could record them.
"""

import errno
import os
import select
import signal
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from flowferry.testbed import namespace

TOKEN = "FLOWFERRY_RUN_TOKEN"
#: What pidfd_open(2) says of a pid that nobody has, or that is now a *thread* of another process
#: (EINVAL until Linux 6.14, ENOENT since).
NOT_A_PROCESS = (errno.ESRCH, errno.EINVAL, errno.ENOENT)
Stream = int | IO[Any] | None


@dataclass(frozen=True)
class ProcessIdentity:
    """A process, for as long as the machine is up. `started` is in clock ticks since boot."""

    pid: int
    started: int

    @classmethod
    def of(cls, pid: int) -> "ProcessIdentity | None":
        """The process that has this pid now; None if there is none or it is a zombie."""
        try:
            line = Path(f"/proc/{pid}/stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return None
        # The second field is the program's name in brackets and may hold anything, brackets too.
        fields = line[line.rindex(")") + 2 :].split()
        return None if fields[0] in "ZX" else cls(pid, int(fields[19]))

    def alive(self) -> bool:
        """Whether this very process still runs."""
        return ProcessIdentity.of(self.pid) == self


def start(
    ns: str | None,
    argv: Sequence[str],
    *,
    token: str,
    stdin: Stream = subprocess.DEVNULL,
    stdout: Stream = None,
    stderr: Stream = None,
    text: bool = False,
    env: Mapping[str, str] | None = None,
    cgroups: Sequence[Path] = (),
) -> "subprocess.Popen[Any]":
    """Start `argv` in namespace `ns` (None: where the caller is), in a session of its own.

    `cgroups` are directories whose `cgroup.procs` the process joins before it runs anything.
    Raises `FileNotFoundError` if the program does not exist.
    """
    command = list(argv)
    if cgroups:
        # A shell that joins and then becomes the program: no instant outside the group.
        joins = "".join(f'echo $$ >"{group}/cgroup.procs" && ' for group in cgroups)
        command = ["/bin/sh", "-c", joins + 'exec "$@"', "sh", *command]

    def work() -> "subprocess.Popen[Any]":
        return subprocess.Popen(
            command,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            text=text,
            start_new_session=True,
            env={**os.environ, **(env or {}), TOKEN: token},
        )

    return work() if ns is None else namespace.call(ns, work, own_sys=True)


def carrying(token: str) -> Iterator[ProcessIdentity]:
    """Every running process that was started with this token, or descends from one that was."""
    wanted = f"{TOKEN}={token}".encode()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        identity = ProcessIdentity.of(int(entry.name))
        try:
            environment = (entry / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if identity is not None and wanted in environment:
            yield identity


def end(processes: Iterable[ProcessIdentity], *, grace: float = 2.0) -> None:
    """End processes: ask (SIGTERM), wait up to `grace` seconds for all of them, then kill.

    Those that have gone, or whose pid now belongs to somebody else, are left alone.
    """
    handles = [handle for handle in map(_handle, set(processes)) if handle is not None]
    try:
        _signal(handles, signal.SIGTERM)
        _signal(handles, signal.SIGCONT)
        left = _await_exit(handles, grace)
        _signal(left, signal.SIGKILL)
        _await_exit(left, 5.0)
    finally:
        for handle in handles:
            os.close(handle)


def _handle(identity: ProcessIdentity) -> int | None:
    """A pidfd of exactly this process, or None."""
    try:
        handle = os.pidfd_open(identity.pid)
    except OSError as error:
        if error.errno in NOT_A_PROCESS:
            return None
        raise
    if identity.alive():
        return handle
    os.close(handle)
    return None


def _signal(handles: Iterable[int], number: signal.Signals) -> None:
    for handle in handles:
        try:
            signal.pidfd_send_signal(handle, number)
        except ProcessLookupError:
            continue


def _await_exit(handles: Iterable[int], seconds: float) -> list[int]:
    """Wait until all have exited; those that have not after `seconds` are returned."""
    poller = select.poll()
    left = set(handles)
    for handle in left:
        poller.register(handle, select.POLLIN)
    deadline = time.monotonic() + seconds
    while left and (remaining := deadline - time.monotonic()) > 0:
        for handle, _ in poller.poll(remaining * 1000):
            poller.unregister(handle)
            left.discard(handle)
    return list(left)
