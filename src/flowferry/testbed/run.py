"""A run: one named set of things made on this machine, and the way to unmake all of it.

Everything is written to the run's journal *before* it is made, so that whatever a crash leaves is
known to be ours. The journal lies in the run's directory, whose making is the exclusive claim to
the name; undoing is idempotent, needs nothing but the journal, and touches nothing that is not in
it.

Order of undoing: processes (they hold the rest), mounts, namespaces (links and BPF attachments go
with them), control groups, files. A run killed at any instant leaves at most what `undo` removes.
"""

import fcntl
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from flowferry.testbed import cgroup, namespace, process
from flowferry.testbed.errors import TestbedError
from flowferry.testbed.process import ProcessIdentity, Stream
from flowferry.testbed.uncut import uncut

ROOT = Path("/run/flowferry")
NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?")
Failpoint = Callable[[str], None]


def names() -> list[str]:
    """The names of all runs on this machine, complete or not."""
    return sorted(path.name for path in ROOT.iterdir()) if ROOT.is_dir() else []


def check_name(name: str) -> str:
    """Return `name` if a run can have it. Raises `TestbedError` otherwise."""
    if NAME.fullmatch(name) is None:
        raise TestbedError(
            f"{name!r} cannot name a run",
            "use up to 32 of a-z, 0-9 and '-', with no '-' at either end",
        )
    return name


class Run:
    """A claimed name, its directory and its journal. Make one with `claim` or `reopen`."""

    def __init__(self, name: str, token: str, failpoint: Failpoint | None = None) -> None:
        """For `claim` and `reopen` only."""
        self.name = name
        self.directory = ROOT / name
        #: Marks every process of the run; see `process`.
        self.token = token
        self._failpoint = failpoint
        self._children: list[subprocess.Popen[Any]] = []
        self._lock: int | None = None

    @classmethod
    def claim(cls, name: str, *, failpoint: Failpoint | None = None) -> "Run":
        """Take a free name. Raises `TestbedError` if a run, whole or in remains, has it.

        `failpoint` is called with the name of each step when it is done; tests raise from it.
        """
        if os.geteuid() != 0:
            raise TestbedError(
                "making namespaces and links needs root", "run the command as root (sudo)"
            )
        directory = ROOT / check_name(name)
        while True:
            try:
                ROOT.mkdir(parents=True, exist_ok=True)
                directory.mkdir()
            except FileNotFoundError:
                continue  # another run was the last to go and took the root with it
            except FileExistsError:
                raise TestbedError(
                    f"a testbed named {name} exists already",
                    f"take it down with 'flowferry testbed down --name {name}' or use another name",
                ) from None
            except OSError as error:
                raise TestbedError(
                    f"{directory} cannot be made ({error.strerror})",
                    f"make {ROOT.parent} writable, for instance by mounting a tmpfs there",
                ) from None
            break
        run = cls(name, secrets.token_hex(16), failpoint)
        owner = ProcessIdentity.of(os.getpid())
        assert owner is not None
        run.record("run", token=run.token, pid=owner.pid, started=owner.started)
        run.lock()
        try:
            run.step("claim")
        except BaseException:
            run.undo()
            raise
        return run

    @classmethod
    def reopen(cls, name: str) -> "Run":
        """The run of this name, to look at or undo. Raises `TestbedError` if there is none."""
        directory = ROOT / check_name(name)
        if not directory.is_dir():
            raise TestbedError(
                f"there is no testbed named {name}", "list them with 'flowferry testbed status'"
            )
        run = cls(name, "")
        run.token = next((e["token"] for e in run.journal() if e["kind"] == "run"), "")
        return run

    # -- journal -------------------------------------------------------------------------------

    def record(self, kind: str, **fields: Any) -> None:
        """Append one entry to the journal. It survives the death of this process at once."""
        line = json.dumps({"kind": kind, **fields}) + "\n"
        with (self.directory / "journal").open("a") as file:
            file.write(line)

    def journal(self) -> Iterator[dict[str, Any]]:
        """All complete entries; a last line cut short by a crash announced nothing yet."""
        with suppress(FileNotFoundError):
            for line in (self.directory / "journal").read_text().splitlines(keepends=True):
                if line.endswith("\n"):
                    yield json.loads(line)

    def complete(self, *, detach: bool = False) -> None:
        """Say that everything is made; with `detach` it is to outlive the process that made it."""
        self.record("complete", detached=detach)
        self.step("complete")
        self.unlock()

    def is_complete(self) -> bool:
        """Whether everything was made."""
        return any(entry["kind"] == "complete" for entry in self.journal())

    def crashed(self) -> bool:
        """Whether the process that made the run died before it had detached or undone it."""
        entries = list(self.journal())
        if any(entry["kind"] == "complete" and entry["detached"] for entry in entries):
            return False
        owners = [e for e in entries if e["kind"] == "run"]
        return not any(ProcessIdentity(e["pid"], e["started"]).alive() for e in owners)

    def step(self, name: str) -> None:
        """Say that a step is done. This is where tests make a set-up fail."""
        if self._failpoint is not None:
            self._failpoint(name)

    def lock(self, *, seconds: float = 30.0) -> None:
        """Keep others from undoing the run while it is made, or undoing it twice at once.

        The kernel lets go of the lock when this process dies. Raises `TestbedError` in the end.
        """
        fd = os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
        deadline = time.monotonic() + seconds
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    os.close(fd)
                    raise TestbedError(
                        f"another process is at work on testbed {self.name}",
                        "wait until it is done, or end it",
                    ) from None
                time.sleep(0.02)
            else:
                self._lock = fd
                return

    def unlock(self) -> None:
        """Let others work on the run."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    # -- making --------------------------------------------------------------------------------

    def namespace(self, role: str) -> str:
        """Make the namespace `<run>-<role>` and return its name."""
        name = f"{self.name}-{role}"
        if namespace.exists(name):
            raise TestbedError(
                f"network namespace {name} exists and is not ours", "use another --name"
            )
        self.record("netns", name=name)
        try:
            identity = namespace.create(name)
        except FileExistsError:
            self.record("not-ours", name=name)
            raise TestbedError(
                f"network namespace {name} appeared while it was made", "use another --name"
            ) from None
        self.record("netns-made", name=name, device=identity.device, inode=identity.inode)
        self.step(f"namespace {role}")
        return name

    def bpffs(self) -> Path:
        """Mount a BPF file system of the run's own, for pinned maps and programs."""
        target = self.directory / "bpf"
        target.mkdir()
        self.record("mount", path=str(target))
        namespace.mount("bpffs", target, "bpf")
        self.step("bpffs")
        return target

    def cgroup(self, role: str, *, share: float) -> list[Path]:
        """Make a control group that holds its processes to `share` CPUs (0.25: a quarter)."""
        groups = cgroup.paths(self.name, role)
        for group in groups:
            self.record("cgroup", path=str(group))
        cgroup.create(groups, share)
        self.step(f"cgroup {role}")
        return groups

    def popen(
        self,
        ns: str | None,
        argv: Sequence[str],
        *,
        stdin: Stream = subprocess.DEVNULL,
        stdout: Stream = None,
        stderr: Stream = None,
        text: bool = False,
        env: Mapping[str, str] | None = None,
        cgroups: Sequence[Path] = (),
        log: str | None = None,
    ) -> "subprocess.Popen[Any]":
        """Start a process in a namespace; it ends with the run at the latest.

        `log` only goes into the journal; `daemon` gives it.
        """
        child = process.start(
            ns,
            argv,
            token=self.token,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            text=text,
            env=env,
            cgroups=cgroups,
        )
        self._children.append(child)
        identity = ProcessIdentity.of(child.pid)
        if identity is not None:
            self.record(
                "process", pid=identity.pid, started=identity.started, argv=list(argv), log=log
            )
        return child

    def daemon(
        self,
        ns: str | None,
        argv: Sequence[str],
        *,
        log: str,
        env: Mapping[str, str] | None = None,
        cgroups: Sequence[Path] = (),
    ) -> "subprocess.Popen[Any]":
        """Start a process that outlives this one; its output goes to the run's log `log`."""
        with (self.directory / f"{log}.log").open("ab") as file:
            return self.popen(ns, argv, stdout=file, stderr=file, env=env, cgroups=cgroups, log=log)

    def daemons(self) -> Iterator[tuple[int, list[str], bool]]:
        """Pid, command line and whether it still runs, of all that `daemon` started."""
        for e in self.journal():
            if e["kind"] == "process" and e["log"] is not None:
                yield e["pid"], e["argv"], ProcessIdentity(e["pid"], e["started"]).alive()

    def run(
        self,
        ns: str | None,
        argv: Sequence[str],
        *,
        check: bool = True,
        timeout: float = 30.0,
        input: str | None = None,
        cgroups: Sequence[Path] = (),
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command to its end (at most `timeout` seconds), its output captured as text.

        With `check`, an exit status other than 0 raises `subprocess.CalledProcessError`.
        """
        child = self.popen(
            ns,
            argv,
            stdin=subprocess.DEVNULL if input is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cgroups=cgroups,
        )
        try:
            output, errors = child.communicate(input, timeout)
        except BaseException:
            child.send_signal(signal.SIGKILL)
            child.communicate()
            raise
        finally:
            self._children.remove(child)
        done = subprocess.CompletedProcess(list(argv), child.returncode, output, errors)
        if check:
            done.check_returncode()
        return done

    # -- unmaking ------------------------------------------------------------------------------

    @uncut()
    def undo(self) -> None:
        """Remove everything the run made. Idempotent; safe after a crash at any point."""
        if not self._lock_to_undo():
            return
        entries = list(self.journal())
        self._end_processes(entries)
        for entry in reversed(entries):
            if entry["kind"] == "mount":
                _unpin(Path(entry["path"]))
                # Not mounted any more, or never was: that is what is wanted.
                with suppress(OSError):
                    namespace.unmount(Path(entry["path"]))
        self._remove_namespaces(entries)
        cgroup.remove(Path(e["path"]) for e in entries if e["kind"] == "cgroup")
        shutil.rmtree(self.directory)
        self.unlock()
        with suppress(OSError):
            ROOT.rmdir()  # unless another run is there

    def _lock_to_undo(self) -> bool:
        """Take the lock if there is still something to undo."""
        if self._lock is None:
            try:
                self.lock()
            except FileNotFoundError:
                return False
        # Whoever held the lock before may have undone the run, and the lock file with it.
        with suppress(FileNotFoundError):
            if os.path.samefile(f"/proc/self/fd/{self._lock}", self.directory / "lock"):
                return True
        self.unlock()
        return False

    def _end_processes(self, entries: list[dict[str, Any]]) -> None:
        known = {
            ProcessIdentity(e["pid"], e["started"])
            for e in entries
            if e["kind"] == "process" and e["pid"] != os.getpid()
        }
        if self.token:
            process.end(known | set(process.carrying(self.token)))
            # What those may have started while they were ending.
            process.end(process.carrying(self.token), grace=0.0)
        else:
            process.end(known)
        for child in self._children:
            child.wait()
            for stream in (child.stdin, child.stdout, child.stderr):
                if stream is not None:
                    stream.close()
        self._children.clear()

    def _remove_namespaces(self, entries: list[dict[str, Any]]) -> None:
        made = {
            e["name"]: namespace.Identity(e["device"], e["inode"])
            for e in entries
            if e["kind"] == "netns-made"
        }
        foreign = {e["name"] for e in entries if e["kind"] == "not-ours"}
        for entry in reversed(entries):
            name = entry.get("name")
            if entry["kind"] != "netns" or name in foreign:
                continue
            found = namespace.Identity.of(name)
            if found is not None and (name not in made or made[name] == found):
                namespace.remove(name)


def _unpin(directory: Path) -> None:
    """Remove pins one by one: who looks at their file system keeps it, unmounted or not."""
    for pin in sorted(directory.rglob("*"), reverse=True):
        with suppress(OSError):
            if pin.is_dir():
                pin.rmdir()
            else:
                pin.unlink()
