"""The static OpenFlow entries that carry traffic while no controller does.

Everything goes through the first instance, both ways. Any instance may send towards a host, so that
a test can move a flow with one added entry, but broadcast and multicast come out of the first
instance only: parallel instances must never close a loop (docs/testbed.md). Frames of the control
protocol never come from a host and never reach one (docs/design.md §8).
"""

from collections.abc import Sequence
from dataclasses import dataclass

#: Marks our entries; a controller's own cookie differs.
COOKIE = 0xF10FE_0001
CONTROL_ETHERTYPE = 0x821C
#: Priorities leave room below 32768 for whoever adds entries by hand.
GUARD, ONE_PATH, TRAFFIC = 65000, 100, 10


@dataclass(frozen=True)
class Entry:
    """One entry of table 0: `match` and `actions` in ovs-ofctl syntax."""

    priority: int
    match: str
    actions: str

    def __str__(self) -> str:
        """The entry as `ovs-ofctl add-flows` reads it."""
        match = f"{self.match}," if self.match else ""
        return f"cookie={COOKIE:#x},priority={self.priority},{match}actions={self.actions}"


def static_entries(host_port: int, instance_ports: Sequence[int]) -> list[Entry]:
    """The entries of one switch; the first of `instance_ports` is the group's first instance."""
    first, *others = instance_ports
    entries = [
        Entry(GUARD, f"dl_type={CONTROL_ETHERTYPE:#x}", "drop"),
        Entry(TRAFFIC, f"in_port={host_port}", f"output:{first}"),
        Entry(TRAFFIC, f"in_port={first}", f"output:{host_port}"),
    ]
    for port in others:
        entries += [
            Entry(ONE_PATH, f"in_port={port},dl_dst=01:00:00:00:00:00/01:00:00:00:00:00", "drop"),
            Entry(TRAFFIC, f"in_port={port}", f"output:{host_port}"),
        ]
    return entries
