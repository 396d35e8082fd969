"""The testbed's own Open vSwitch: one ovsdb-server, one ovs-vswitchd, two bridges.

Both daemons run in the switch namespace with private sockets, database and logs, so that any number
of them run beside each other and beside a system-wide Open vSwitch. They stay in the foreground,
as children: a pid that is known at the fork needs no pid file that a crash could leave unread.

Switches that are apart have a pair of daemons each, in a namespace each.
"""

import re
import socket
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowferry.testbed.certificates import Certificate
from flowferry.testbed.entries import Entry
from flowferry.testbed.errors import TestbedError
from flowferry.testbed.run import Run
from flowferry.testbed.topology import PortType, Switch

SCHEMA = Path("/usr/share/openvswitch/vswitch.ovsschema")
#: Seconds for a daemon to answer, and for a change to be applied.
DEADLINE = 15.0
OPENFLOW = ("-O", "OpenFlow13")


@dataclass(frozen=True)
class PortCounters:
    """What a switch counted on one port, packets and bytes; None where the port cannot tell."""

    rx_packets: int | None
    rx_bytes: int | None
    rx_drop: int | None
    tx_packets: int | None
    tx_bytes: int | None
    tx_drop: int | None


class OpenVSwitch:
    """The daemons of one run, and commands to them."""

    def __init__(self, run: Run, ns: str | None, name: str = "ovs") -> None:
        """For the run whose switches are in namespace `ns`; it need not have been started.

        `name`: of the directory for sockets, database and logs, and before the logs' names.
        """
        self._run = run
        self._ns = ns
        self._name = name
        self.directory = run.directory / name
        self.database = f"unix:{self.directory}/db.sock"
        where = str(self.directory)
        self._env = {"OVS_RUNDIR": where, "OVS_LOGDIR": where, "OVS_DBDIR": where}

    def start(self) -> None:
        """Start both daemons. Raises `TestbedError` with the daemon's last words if one fails."""
        if not SCHEMA.exists():
            raise TestbedError("Open vSwitch is not installed", "run 'make setup'")
        self.directory.mkdir()
        database = self.directory / "conf.db"
        self._tool("ovsdb-tool", "create", str(database), str(SCHEMA))
        server = self._run.daemon(
            self._ns,
            [
                "ovsdb-server",
                str(database),
                f"--remote=p{self.database}",
                f"--unixctl={self.directory}/ovsdb-server.ctl",
                "--no-chdir",
            ],
            log=self._log("ovsdb-server"),
            env=self._env,
        )
        self._await_socket(self.directory / "db.sock", server, "ovsdb-server")
        self._run.step("ovsdb-server")
        # vlan-limit 0: no limit to the tags the classifier may look behind.
        self._vsctl(
            "--no-wait", "init", "--", "set", "Open_vSwitch", ".", "other_config:vlan-limit=0"
        )
        self.start_vswitchd()

    def start_vswitchd(self) -> "subprocess.Popen[Any]":
        """Start the daemon that forwards (again): bridges come from the database, entries do not.

        Raises `TestbedError` with its last words if it fails.
        """
        switchd = self._run.daemon(
            self._ns,
            [
                "ovs-vswitchd",
                self.database,
                f"--unixctl={self.directory}/ovs-vswitchd.ctl",
                "--no-chdir",
            ],
            log=self._log("ovs-vswitchd"),
            env=self._env,
        )
        self._await_socket(self.directory / "ovs-vswitchd.ctl", switchd, "ovs-vswitchd")
        self._run.step("ovs-vswitchd")
        return switchd

    def vswitchd(self) -> int:
        """Process id of the daemon that forwards. Raises `LookupError` if it does not run."""
        control = f"--unixctl={self.directory}/ovs-vswitchd.ctl"
        for pid, argv, alive in self._run.daemons():
            if alive and control in argv:
                return pid
        raise LookupError(f"no ovs-vswitchd runs in {self.directory}")

    def _log(self, daemon: str) -> str:
        return daemon if self._name == "ovs" else f"{self._name}-{daemon}"

    def add(self, switches: Iterable[Switch], ports: PortType) -> None:
        """Make bridges with their ports, in one transaction; return when all carry frames."""
        words: list[str] = []
        for switch in switches:
            words += ["--", "add-br", switch.name]
            words += ["--", "set", "Bridge", switch.name]
            words += ["datapath_type=netdev", "fail_mode=secure"]
            words += ["protocols=OpenFlow13,OpenFlow14,OpenFlow15"]
            words += [f"other_config:datapath-id={switch.dpid:016x}"]
            words += ["other_config:disable-in-band=true"]
            for port, number in switch.ports.items():
                words += ["--", "add-port", switch.name, port]
                words += ["--", "set", "Interface", port, f"ofport_request={number}"]
                if ports != "system":
                    words += [f"type={ports}", "options:xdp-mode=generic"]
        self._vsctl(*words[1:])
        self._run.step("bridges")

    def replace_entries(self, switch: str, entries: Sequence[Entry]) -> None:
        """Make these the only entries of a switch."""
        self._tool(
            "ovs-ofctl",
            *OPENFLOW,
            "replace-flows",
            self._bridge(switch),
            "-",
            input="".join(f"{entry}\n" for entry in entries),
        )
        self._run.step(f"entries {switch}")

    def remove_entries(self, switch: str, cookie: int) -> None:
        """Remove the entries with exactly this cookie."""
        words = (
            "ovs-ofctl",
            *OPENFLOW,
            "del-flows",
            self._bridge(switch),
            f"cookie={cookie:#x}/-1",
        )
        self._tool(*words)

    def set_certificate(self, own: Certificate) -> None:
        """What all of its switches show to controllers, and whom they believe."""
        self._vsctl("set-ssl", own.key, own.cert, own.ca)

    def set_controller(self, switches: Iterable[Switch], target: str) -> None:
        """Have switches connect to a controller (`tcp:ADDRESS:PORT`), and soon again if it goes."""
        words: list[str] = []
        for switch in switches:
            words += ["--", "set-controller", switch.name, target]
            words += ["--", "set", "Controller", switch.name]
            words += ["connection_mode=out-of-band", "max_backoff=1000", "inactivity_probe=5000"]
        self._vsctl(*words[1:])

    def dump_entries(self, switch: str) -> list[str]:
        """The entries of a switch with their counters, one line each, as ovs-ofctl prints them."""
        text = self._tool("ovs-ofctl", *OPENFLOW, "dump-flows", self._bridge(switch))
        return [line.strip() for line in text.splitlines() if "actions=" in line]

    def port_counters(self, switch: Switch) -> dict[str, PortCounters]:
        """Counters by port name."""
        text = self._tool("ovs-ofctl", *OPENFLOW, "dump-ports", self._bridge(switch.name))
        return parse_port_counters(text, {number: name for name, number in switch.ports.items()})

    def _bridge(self, switch: str) -> str:
        return f"unix:{self.directory}/{switch}.mgmt"

    def _vsctl(self, *words: str) -> str:
        return self._tool("ovs-vsctl", f"--db={self.database}", f"--timeout={DEADLINE:g}", *words)

    def _tool(self, *argv: str, input: str | None = None) -> str:
        try:
            done = self._run.run(None, argv, check=False, timeout=DEADLINE + 5, input=input)
        except FileNotFoundError:
            raise TestbedError(f"{argv[0]} is not installed", "run 'make setup'") from None
        except subprocess.TimeoutExpired:
            raise TestbedError(
                f"{argv[0]} got no answer from the switch", f"see the logs in {self._run.directory}"
            ) from None
        if done.returncode != 0:
            said = (done.stderr.strip().splitlines() or ["no reason given"])[0]
            raise TestbedError(f"{argv[0]} failed: {said}", "look at that, and start again")
        return done.stdout

    def _await_socket(self, path: Path, daemon: "subprocess.Popen[Any]", name: str) -> None:
        """Wait until somebody accepts on a UNIX socket."""
        deadline = time.monotonic() + DEADLINE
        while time.monotonic() < deadline:
            if daemon.poll() is not None:
                log = (
                    (self._run.directory / f"{self._log(name)}.log")
                    .read_text()
                    .strip()
                    .splitlines()
                )
                raise TestbedError(
                    f"{name} ended at once: {log[-1] if log else 'it said nothing'}",
                    "look at that, and start again",
                )
            with socket.socket(socket.AF_UNIX) as probe, suppress(OSError):
                probe.connect(str(path))
                return
            time.sleep(0.002)
        raise TestbedError(f"{name} did not answer within {DEADLINE:g} s", "try again")


def parse_port_counters(text: str, names: Mapping[int, str]) -> dict[str, PortCounters]:
    """Read `ovs-ofctl dump-ports`; ports whose number is not in `names` are left out.

    >>> line = "port 7: rx pkts=1, bytes=2, drop=0, errs=0\\n  tx pkts=3, bytes=4, drop=?, errs=0"
    >>> parse_port_counters(line, {7: "h1"})["h1"].tx_drop is None
    True
    """
    found = {}
    for block in re.split(r"^\s*port\s+", text, flags=re.MULTILINE)[1:]:
        label, _, rest = block.partition(":")
        label = label.strip().strip('"')
        if label.isdigit():
            name = names.get(int(label))
        else:
            name = label if label in names.values() else None
        numbers = [
            None if number == "?" else int(number)
            for number in re.findall(r"(?:pkts|bytes|drop)=(\d+|\?)", rest)
        ]
        if name is not None and len(numbers) == 6:
            found[name] = PortCounters(*numbers)
    return found
