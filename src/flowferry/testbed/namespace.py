"""Network namespaces: make them, work inside them, remove them.

A namespace is a property of a *thread*, so every piece of work here runs in a thread of its own
that enters the namespace, does the work and ends. The caller's threads, and an asyncio loop if it
has one, never change their namespace. pyroute2's own `NetNS` forks a child for each socket, which
is slower and unsafe in a program with threads; `IPRoute` opened inside such a thread needs none.

Namespaces are bound to /run/netns like those of `ip netns`, so that iproute2 sees them by name.
"""

import ctypes
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pyroute2 import IPRoute

from flowferry.testbed.errors import TestbedError

DIRECTORY = Path("/run/netns")
#: Mounts below /sys that stay in sight of processes in a namespace.
KEPT = ("/sys/fs/cgroup", "/sys/fs/bpf")
CLONE_NEWNS = 0x00020000
CLONE_NEWNET = 0x40000000
MS_RDONLY = 1
MS_NOSUID, MS_NODEV, MS_NOEXEC = 2, 4, 8
MS_BIND = 1 << 12
MS_REC = 1 << 14
MS_SLAVE = 1 << 19
MS_SHARED = 1 << 20
MNT_DETACH = 2

T = TypeVar("T")

_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result: int, doing: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{doing}: {os.strerror(number)}")


def mount(source: str, target: Path, kind: str, flags: int = 0) -> None:
    """mount(2). Raises `OSError` naming the target."""
    _checked(
        _libc.mount(source.encode(), str(target).encode(), kind.encode(), flags, None),
        f"mount {kind or source} at {target}",
    )


def unmount(target: Path) -> None:
    """Detach a mount, also when it is in use. Raises `OSError` naming the target."""
    _checked(_libc.umount2(str(target).encode(), MNT_DETACH), f"unmount {target}")


@dataclass(frozen=True)
class Identity:
    """What tells one namespace from another of the same name."""

    device: int
    inode: int

    @classmethod
    def of(cls, name: str) -> "Identity | None":
        """The identity of a named namespace, or None if there is no such name."""
        try:
            found = (DIRECTORY / name).stat()
        except FileNotFoundError:
            return None
        return cls(found.st_dev, found.st_ino)


def exists(name: str) -> bool:
    """Whether a namespace (or the remains of one) has this name."""
    return (DIRECTORY / name).exists()


def create(name: str) -> Identity:
    """Make a namespace whose devices stay silent by themselves, and give it a name.

    Loopback is up; IPv6 is off on every device until `hosts` asks for it, since one router
    solicitation or multicast report of a forwarding device would be a foreign frame in a
    measurement. Raises `FileExistsError` if the name is taken, and then changes nothing.
    """
    _share_directory()
    target = DIRECTORY / name
    os.close(os.open(target, os.O_RDONLY | os.O_CREAT | os.O_EXCL, 0))

    def work() -> None:
        _checked(_libc.unshare(CLONE_NEWNET), f"make network namespace {name}")
        mount("/proc/thread-self/ns/net", target, "", MS_BIND)
        for scope in ("all", "default"):
            write_sysctl(f"net/ipv6/conf/{scope}/disable_ipv6", "1")
        with IPRoute() as ipr:
            ipr.link("set", index=1, state="up")

    try:
        _in_thread(work)
    except BaseException:
        remove(name)
        raise
    identity = Identity.of(name)
    if identity is None:
        raise TestbedError(f"network namespace {name} vanished while it was made", "try again")
    return identity


def remove(name: str) -> None:
    """Remove a namespace by name; what is inside goes when its last process has gone."""
    target = DIRECTORY / name
    # Not a mount point if the maker was killed between making the file and binding to it.
    with suppress(OSError):
        unmount(target)
    target.unlink(missing_ok=True)


def call(name: str, work: Callable[[], T], *, own_sys: bool = False) -> T:
    """Run `work` inside a namespace and return what it returns (or raise what it raises).

    With `own_sys`, /sys shows the devices of that namespace, as under `ip netns exec`; processes
    started by `work` inherit that.
    """

    def inside() -> T:
        enter(name)
        if own_sys:
            _own_sys()
        return work()

    return _in_thread(inside)


def throwaway(work: Callable[[], T]) -> T:
    """Run `work` in a new namespace without a name, which goes with it."""

    def inside() -> T:
        _checked(_libc.unshare(CLONE_NEWNET), "make a network namespace")
        return work()

    return _in_thread(inside)


def configure(name: str, work: Callable[[IPRoute], T]) -> T:
    """Run `work` inside a namespace with a netlink socket there."""

    def inside() -> T:
        with IPRoute() as ipr:
            return work(ipr)

    return call(name, inside)


def enter(name: str) -> None:
    """Move the calling thread into a namespace, for good. Raises `TestbedError` if it is gone."""
    try:
        fd = os.open(DIRECTORY / name, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise TestbedError(
            f"network namespace {name} does not exist", "start the testbed again"
        ) from None
    try:
        _checked(_libc.setns(fd, CLONE_NEWNET), f"enter network namespace {name}")
    finally:
        os.close(fd)


def write_sysctl(path: str, value: str) -> None:
    """Write /proc/sys/`path` as the calling thread's namespace sees it; absent ones are skipped.

    A kernel without IPv6 or bridge filtering has no such file, and then nothing to switch off.
    """
    file = Path("/proc/sys") / path
    if file.exists():
        file.write_text(value)


def _in_thread(work: Callable[[], T]) -> T:
    outcome: list[T] = []
    failure: list[BaseException] = []

    def body() -> None:
        try:
            outcome.append(work())
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=body, name="netns", daemon=True)
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return outcome[0]


def _share_directory() -> None:
    """Make /run/netns a shared mount, exactly as `ip netns add` does.

    Without it a namespace removed here would live on in mount namespaces copied earlier.
    """
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    try:
        mount("", DIRECTORY, "none", MS_SHARED | MS_REC)
    except OSError:
        mount(str(DIRECTORY), DIRECTORY, "none", MS_BIND | MS_REC)
        mount("", DIRECTORY, "none", MS_SHARED | MS_REC)


def _own_sys() -> None:
    """Give the calling thread, and what it starts, a /sys of its namespace.

    It is laid over the old one, of which the mounts that processes need are bound into the new.
    """
    _checked(_libc.unshare(CLONE_NEWNS), "make a mount namespace")
    mount("", Path("/"), "none", MS_SLAVE | MS_REC)
    flags = os.statvfs("/sys").f_flag & (MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC)
    kept = {path: os.open(path, os.O_PATH | os.O_CLOEXEC) for path in KEPT if os.path.ismount(path)}
    mount("sysfs", Path("/sys"), "sysfs", flags)
    for path, fd in kept.items():
        mount(f"/proc/thread-self/fd/{fd}", Path(path), "none", MS_BIND | MS_REC)
        os.close(fd)
