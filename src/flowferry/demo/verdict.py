"""The judgement: from what was counted to one line. Pure, so that every failure can be tested."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from flowferry.demo.spots import Spot

#: Counters of the programs that mean a packet went another way than it should.
AMISS = ("overflowed", "failed_open", "table_full", "discarded")


@dataclass(frozen=True)
class Outcome:
    """Everything that was counted. All fields are plain data as in the JSON report."""

    function: str
    #: How long the traffic lasted, in seconds.
    duration: float
    #: Each handover (docs/controller.md), with `title`, `state_bytes`, and `state_arrived`: a list
    #: that says of each part whose state has come whether it was what was sent.
    moves: Sequence[Mapping[str, Any]]
    #: Moves that were planned.
    planned: int
    #: The probe sink's report (docs/probe.md).
    udp: Mapping[str, Any]
    tcp: Mapping[str, Any]
    session: Mapping[str, Any]
    ping: Mapping[str, Any]
    #: The agents' last status (docs/hsl.md), by instance.
    agents: Mapping[str, Mapping[str, Any]]
    #: Packets that full receive queues of this machine dropped meanwhile, anybody's (softnet).
    machine_dropped: int
    #: Where UDP packets went amiss, the worst first.
    spots: Sequence[Spot] = ()
    #: How long the whole demo took, until everything was taken down again.
    seconds: float = 0.0
    files: Mapping[str, str] = field(default_factory=dict)

    @property
    def captured(self) -> int:
        """Packets captured by all moves; a super-packet counts as one."""
        return sum(move["captured_packets"] for move in self.moves)

    def problems(self) -> list[str]:
        """What went wrong, most telling first; nothing if all went well."""
        found = [*self._udp_and_ping(), *self._connections(), *self._moves()]
        for name, agent in self.agents.items():
            if agent["lost_packets"]:
                found.append(f"the agent of {name} counts {agent['lost_packets']:,} packets lost")
            for side, counters in agent["counters"].items():
                found += [
                    f"{name} {side}: {counters[kind]:,} packets {kind.replace('_', ' ')}"
                    for kind in AMISS
                    if counters and counters[kind]
                ]
        if not self.captured:
            found.append("nothing was captured, so nothing is shown")
        return found

    def _udp_and_ping(self) -> list[str]:
        found = []
        for name, what in (("udp", self.udp), ("ping", self.ping)):
            for amiss in ("lost", "reordered", "duplicated"):
                if what[amiss]:
                    where = self._where(amiss) if name == "udp" else ""
                    found.append(f"{name}: {what[amiss]:,} packets {amiss}{where}")
        if self.udp["unclassified"]:
            found.append(f"udp: {self.udp['unclassified']:,} packets could not be classified")
        if not self.udp["clean"] and not found:
            found.append(f"udp: {self.udp['verdict']}")
        if not self.ping["received"]:
            found.append("ping: nothing was answered")
        return found

    def _where(self, amiss: str) -> str:
        spots = [spot for spot in self.spots if spot.what == amiss]
        if not spots:
            return ""
        if len(spots) == 1:
            return f" ({spots[0]})"
        return f" ({spots[0].packets:,} of them {spots[0]}; the report has all {len(spots)} spots)"

    def _connections(self) -> list[str]:
        found = []
        tcp, session = self.tcp, self.session
        if not tcp["connected"]:
            found.append(f"tcp: the connection broke ({tcp['error']})")
        elif tcp["bytes_sent"] != tcp["bytes_received"]:
            missing = tcp["bytes_sent"] - tcp["bytes_received"]
            found.append(f"tcp: {missing:,} bytes never arrived")
        elif not tcp["intact"]:
            found.append("tcp: the content arrived changed")
        if tcp["out_of_order_segments"]:
            found.append(f"tcp: {tcp['out_of_order_segments']:,} segments out of order")
        if not session["connected"]:
            found.append(f"session: the connection broke ({session['error']})")
        elif session["asked"] != session["answered"] or not session["asked"]:
            found.append(
                f"session: {session['answered']:,} of {session['asked']:,} requests answered"
            )
        if session["wrong"]:
            found.append(f"session: {session['wrong']:,} answers were wrong")
        return found

    def _moves(self) -> list[str]:
        found = []
        for move in self.moves:
            name = f"move {move['id']} ({move['title']})"
            if move["state"] != "done":
                found.append(f"{name} {move['state']}: {move['error']}")
                continue
            if move["lost_packets"]:
                found.append(f"{name} lost {move['lost_packets']:,} packets")
            if move["controller_packets"]:
                found.append(f"{name}: {move['controller_packets']:,} packets at the controller")
            if not move["state_arrived"]:
                found.append(f"{name}: no state came")
            elif not all(move["state_arrived"]):
                found.append(f"{name}: its state came changed")
        if len(self.moves) < self.planned:
            found.append(f"{self.planned - len(self.moves)} moves were not begun")
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
            return f"FAILED: {'; '.join(problems)}{hint}; after {self.seconds:.0f} s"
        udp, tcp, ping = self.udp, self.tcp, self.ping
        return (
            f"PASSED: {len(self.moves)} moves of live flows; nothing lost, reordered or duplicated "
            f"in {udp['received']:,} UDP packets and {ping['received']:,} pings, "
            f"{tcp['bytes_received'] / 1e6:,.1f} MB and {self.session['answered']:,} requests "
            f"over two unbroken TCP connections intact; in {self.seconds:.0f} s"
        )

    def as_json(self) -> dict[str, Any]:
        """The report."""
        problems = self.problems()
        return {
            "passed": not problems,
            "verdict": self.line(),
            "problems": problems,
            "function": self.function,
            "seconds": round(self.seconds, 3),
            "duration_s": round(self.duration, 3),
            "captured_packets": self.captured,
            "moves": list(self.moves),
            "udp": self.udp,
            "tcp": self.tcp,
            "session": self.session,
            "ping": self.ping,
            "agents": self.agents,
            "machine_dropped": self.machine_dropped,
            "spots": [spot.as_json() for spot in self.spots],
            "files": self.files,
        }
