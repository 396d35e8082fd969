"""The packet-socket forwarder, a stand-in for any program that taps its devices.

As `forwarder` it runs behind inner veth pairs, where only the `veth` shim hands it packets; as
`forwarder-direct` it sits on the instance's own devices and works without a handover support layer.
"""

import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowferry.testbed.errors import TestbedError
from flowferry.testbed.functions.site import Site

#: Seconds. Starting Python and opening two sockets takes a tenth of it on a loaded machine.
START_DEADLINE = 10.0


@dataclass(frozen=True)
class Forwarder:
    """Copies every frame from either device to the other, in a process of its own."""

    name: str
    behind_veth: bool

    def start(self, site: Site) -> None:
        """Start the process; return when both of its sockets are open."""
        log = f"{self.name}-{site.instance}"
        child = site.run.daemon(
            site.namespace,
            command(site.up, site.down),
            log=log,
            cgroups=site.cgroups,
        )
        await_sockets(child, 2, site.run.directory / f"{log}.log")


def command(one: str, other: str, *options: str) -> list[str]:
    """The command line of a forwarder between two devices."""
    return [sys.executable, "-m", "flowferry.functions.forwarder", one, other, *options]


def await_sockets(child: "subprocess.Popen[Any]", count: int, log: Path) -> None:
    """Wait until `child` holds `count` packet sockets bound to devices.

    Raises `TestbedError` with the last line of its log if it ends before, or takes too long.
    """
    deadline = time.monotonic() + START_DEADLINE
    while True:
        if child.poll() is not None:
            lines = log.read_text().strip().splitlines() or ["it said nothing"]
            raise TestbedError(
                f"the forwarder ended at once: {lines[-1]}", "rebuild with 'make setup'"
            )
        if _bound_sockets(child.pid) >= count:
            return
        if time.monotonic() > deadline:
            raise TestbedError(
                f"the forwarder opened no sockets within {START_DEADLINE:g} s",
                "look whether the machine is overloaded, and try again",
            )
        time.sleep(0.005)


def _bound_sockets(pid: int) -> int:
    """How many packet sockets of a process are bound to a device and running."""
    try:
        table = Path(f"/proc/{pid}/net/packet").read_text().splitlines()[1:]
        inodes = {
            target.removeprefix("socket:[").rstrip("]")
            for target in (str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir())
            if target.startswith("socket:[")
        }
    except (FileNotFoundError, ProcessLookupError):
        return 0
    # Columns: sk RefCnt Type Proto Iface R Rmem User Inode
    rows = [line.split() for line in table]
    return sum(1 for row in rows if row[8] in inodes and row[4] != "0" and row[5] == "1")
