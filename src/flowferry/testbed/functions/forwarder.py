"""The packet-socket forwarder, a stand-in for any program that taps its devices.

As `forwarder` it runs behind inner veth pairs, where only the `veth` shim hands it packets; as
`forwarder-direct` it sits on the instance's own devices and works without a handover support layer.
Its report, renewed on SIGUSR1, is `<log>.json` in the run's directory.
"""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from flowferry.testbed.errors import TestbedError
from flowferry.testbed.functions.site import Site
from flowferry.testbed.run import Run

#: Seconds. Starting Python and opening two sockets takes a twentieth of it on a loaded machine.
START_DEADLINE = 10.0


@dataclass(frozen=True)
class Forwarder:
    """Copies every frame from either device to the other, in a process of its own."""

    name: str
    behind_veth: bool

    def start(self, site: Site) -> None:
        """Start the process; return when both of its sockets are open."""
        start(
            site.run,
            site.namespace,
            site.up,
            site.down,
            log=f"{self.name}-{site.instance}",
            cgroups=site.cgroups,
        )


def start(
    run: Run,
    ns: str,
    one: str,
    other: str,
    *options: str,
    log: str,
    cgroups: Sequence[Path] = (),
) -> None:
    """Start a forwarder between two devices and wait until it forwards.

    Raises `TestbedError` with the last line of its log if it ends before, or takes too long.
    """
    # It writes its report for the first time when its sockets are open.
    report = run.directory / f"{log}.json"
    argv = [sys.executable, "-m", "flowferry.functions.forwarder", one, other, *options]
    child = run.daemon(ns, [*argv, "--stats", str(report)], log=log, cgroups=cgroups)
    deadline = time.monotonic() + START_DEADLINE
    while not report.exists():
        if child.poll() is not None:
            said = (run.directory / f"{log}.log").read_text().strip().splitlines()
            raise TestbedError(
                f"the forwarder ended at once: {said[-1] if said else 'it said nothing'}",
                "rebuild with 'make setup'",
            )
        if time.monotonic() > deadline:
            raise TestbedError(
                f"the forwarder opened no sockets within {START_DEADLINE:g} s",
                "look whether the machine is overloaded, and try again",
            )
        time.sleep(0.005)
