"""What is on this machine that a testbed could leave behind or damage.

Tests and benches take a snapshot before and one after; what differs is a leak or a loss.
"""

import os
from dataclasses import dataclass, fields
from pathlib import Path

from flowferry.testbed import process, run


@dataclass(frozen=True)
class Machine:
    """A snapshot. Two of them differ by what happened in between."""

    namespaces: frozenset[str]
    #: Device names in the namespace of the tests, the root namespace as a rule.
    links: frozenset[str]
    mounts: frozenset[str]
    cgroups: frozenset[str]
    runs: frozenset[str]
    #: "pid program" of every process that a run started.
    processes: frozenset[str]

    @classmethod
    def now(cls) -> "Machine":
        """Look."""
        netns = Path("/run/netns")
        return cls(
            namespaces=frozenset(os.listdir(netns) if netns.is_dir() else ()),
            links=frozenset(os.listdir("/sys/class/net")),
            mounts=frozenset(
                target
                for target in (m.split()[1] for m in Path("/proc/mounts").read_text().splitlines())
                # The directory itself is made, once per boot, by whoever makes a namespace first.
                if target != "/run/netns"
            ),
            cgroups=frozenset(
                str(path)
                for parent in Path("/sys/fs/cgroup").glob("**/flowferry")
                for path in [parent, *parent.glob("**/")]
            ),
            runs=frozenset(run.names()),
            processes=frozenset(_started_by_runs()),
        )

    def beyond(self, before: "Machine", mark: str = "") -> dict[str, list[str]]:
        """What is here and was not in `before`, by kind; only what contains `mark`, if given."""
        found = {
            field.name: sorted(
                one
                for one in getattr(self, field.name) - getattr(before, field.name)
                if mark in one
            )
            for field in fields(self)
        }
        return {kind: names for kind, names in found.items() if names}


def _started_by_runs() -> list[str]:
    marked = f"{process.TOKEN}=".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or process.ProcessIdentity.of(int(entry.name)) is None:
            continue
        try:
            if marked in (entry / "environ").read_bytes():
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                found.append(f"{entry.name} {line}")
        except OSError:
            continue
    return found
