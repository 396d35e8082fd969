"""CPU shares by control groups, version 1 or 2, whichever has the cpu controller here.

Our groups lie below one parent, `flowferry`, so that they can be told apart and removed together.
A share is a hard limit (CFS quota), not a weight: the papers' set-ups need an instance that is slow
also when the machine is idle.
"""

import errno
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from flowferry.testbed.errors import TestbedError

PARENT = "flowferry"
#: Microseconds. Short, so that a small share gives many small pauses rather than few long ones.
PERIOD = 20_000
MINIMUM_QUOTA = 1_000


def mount_point(mounts: str | None = None) -> tuple[int, Path] | None:
    """The version and mount point of the hierarchy with the cpu controller, or None.

    `mounts` is the text of /proc/mounts; read from there when not given.
    """
    for line in (mounts or Path("/proc/mounts").read_text()).splitlines():
        _, target, kind, options, *_ = line.split()
        if kind == "cgroup" and "cpu" in options.split(","):
            return 1, Path(target)
        if kind == "cgroup2":
            with suppress(OSError):
                if "cpu" in (Path(target) / "cgroup.controllers").read_text().split():
                    return 2, Path(target)
    return None


def paths(run: str, role: str, where: tuple[int, Path] | None = None) -> list[Path]:
    """The directories, parent first, that `create` makes for one role of a run."""
    found = where or mount_point()
    if found is None:
        raise TestbedError(
            "no control group hierarchy offers the cpu controller",
            "mount one (cgroup2 at /sys/fs/cgroup), or leave the CPU share out",
        )
    base = found[1] / PARENT / run
    return [base, base / role]


def create(groups: Sequence[Path], share: float, version: int | None = None) -> None:
    """Make the groups and hold the last one to `share` CPUs. Raises `TestbedError`."""
    quota = int(share * PERIOD)
    if quota < MINIMUM_QUOTA:
        raise TestbedError(
            f"a CPU share of {share} is too small",
            f"give at least {MINIMUM_QUOTA / PERIOD:g}",
        )
    if version is None:
        found = mount_point()
        version = found[0] if found else 2
    chain = [groups[0].parent, *groups]
    for group in chain:
        if version == 2:
            _delegate(group.parent)
        # Somebody else may be removing the common parent just now.
        group.mkdir(parents=True, exist_ok=True)
    target = groups[-1]
    if version == 1:
        (target / "cpu.cfs_period_us").write_text(str(PERIOD))
        (target / "cpu.cfs_quota_us").write_text(str(quota))
    else:
        (target / "cpu.max").write_text(f"{quota} {PERIOD}")


def remove(groups: Iterable[Path]) -> None:
    """Remove groups, innermost first, and the common parent when it is empty.

    A group that still holds a process cannot be removed; that is an error worth seeing.
    """
    ours = sorted(set(groups), key=lambda group: len(group.parts), reverse=True)
    for group in ours:
        with suppress(FileNotFoundError):
            group.rmdir()
    for parent in {group.parent for group in ours if group.parent.name == PARENT}:
        try:
            parent.rmdir()
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EBUSY, errno.ENOENT):
                raise


def _delegate(group: Path) -> None:
    """Let children of a version 2 group use the cpu controller."""
    control = group / "cgroup.subtree_control"
    if "cpu" not in control.read_text().split():
        control.write_text("+cpu")
