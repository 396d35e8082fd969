"""The judgement: from what was counted to one line. Pure, so that every failure can be tested."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

#: Counters of the programs that mean a packet went another way than it should.
AMISS = ("overflowed", "failed_open", "table_full", "discarded")


@dataclass(frozen=True)
class Outcome:
    """Everything that was counted. All fields are plain data as in the JSON report."""

    function: str
    shim: str
    duration: float
    #: Figures of each hold (docs/hsl.md), with `title` and `planned_ms`.
    holds: Sequence[Mapping[str, Any]]
    #: The probe sink's report (docs/probe.md).
    udp: Mapping[str, Any]
    tcp: Mapping[str, Any]
    ping: Mapping[str, Any]
    #: The agent's last status (docs/hsl.md).
    agent: Mapping[str, Any]
    #: Packets that full receive queues of this machine dropped meanwhile, anybody's (softnet).
    machine_dropped: int
    files: Mapping[str, str] = field(default_factory=dict)

    @property
    def captured(self) -> int:
        """Packets captured by all holds; a super-packet counts as one."""
        return sum(hold["captured_packets"] for hold in self.holds)

    def problems(self) -> list[str]:
        """What went wrong, most telling first; nothing if all went well."""
        found = []
        for name, what in (("udp", self.udp), ("ping", self.ping)):
            for amiss in ("lost", "reordered", "duplicated"):
                if what[amiss]:
                    found.append(f"{name}: {what[amiss]:,} packets {amiss}")
        if self.udp["unclassified"]:
            found.append(f"udp: {self.udp['unclassified']:,} packets could not be classified")
        if not self.udp["clean"] and not found:
            found.append(f"udp: {self.udp['verdict']}")
        if not self.tcp["connected"]:
            found.append(f"tcp: the connection broke ({self.tcp['error']})")
        elif self.tcp["bytes_sent"] != self.tcp["bytes_received"]:
            missing = self.tcp["bytes_sent"] - self.tcp["bytes_received"]
            found.append(f"tcp: {missing:,} bytes never arrived")
        elif not self.tcp["intact"]:
            found.append("tcp: the content arrived changed")
        if self.tcp["out_of_order_segments"]:
            found.append(f"tcp: {self.tcp['out_of_order_segments']:,} segments out of order")
        for hold in self.holds:
            if hold["state"] != "done":
                found.append(f"hold {hold['id']} was {hold['state']}: {hold['error']}")
        if self.agent["lost_packets"]:
            found.append(f"the agent counts {self.agent['lost_packets']:,} packets lost")
        for side, counters in self.agent["counters"].items():
            found += [
                f"{side}: {counters[name]:,} packets {name.replace('_', ' ')}"
                for name in AMISS
                if counters and counters[name]
            ]
        if not self.captured:
            found.append("nothing was captured, so nothing is shown")
        return found

    def line(self) -> str:
        """The verdict, one line."""
        problems = self.problems()
        if problems:
            hint = (
                f" (meanwhile this machine's receive queues overflowed, {self.machine_dropped:,} "
                "packets of whomever: end what else loads it and try again)"
                if self.machine_dropped
                else ""
            )
            return f"FAILED: {'; '.join(problems)}{hint}"
        udp, tcp, ping = self.udp, self.tcp, self.ping
        return (
            f"PASSED: {len(self.holds)} holds captured and released {self.captured:,} packets; "
            f"nothing lost, reordered or duplicated in {udp['received']:,} UDP packets "
            f"and {ping['received']:,} pings, "
            f"{tcp['bytes_received'] / 1e6:,.1f} MB over one unbroken TCP connection intact"
        )

    def as_json(self) -> dict[str, Any]:
        """The report."""
        problems = self.problems()
        return {
            "passed": not problems,
            "verdict": self.line(),
            "problems": problems,
            "function": self.function,
            "shim": self.shim,
            "duration_s": self.duration,
            "captured_packets": self.captured,
            "holds": list(self.holds),
            "udp": self.udp,
            "tcp": self.tcp,
            "ping": self.ping,
            "agent": self.agent,
            "machine_dropped": self.machine_dropped,
            "files": self.files,
        }
