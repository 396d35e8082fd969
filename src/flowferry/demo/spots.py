"""Where and when UDP packets went amiss: from the record of arrivals to a few words. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from flowferry.demo.cues import FIRST_PORT
from flowferry.probe import TimelinePacket

What = Literal["lost", "reordered", "duplicated"]
_ARRIVALS: dict[str, What] = {"reordered": "reordered", "duplicate": "duplicated"}
#: Packets that went amiss closer to each other than this are one spot, ns.
TOGETHER = 100_000_000
#: Sent this shortly before a move's request, a packet can still be on its way then, ns.
BEFORE = 50_000_000


@dataclass(frozen=True)
class Spot:
    """Packets of one flow that went amiss at about the same time."""

    what: What
    flow: int
    packets: int
    #: When the packets around them were sent, seconds since the traffic began.
    from_s: float
    to_s: float
    #: Title and number of the move under way then.
    move: str | None

    def __str__(self) -> str:
        """A few words, for the verdict."""
        when = f"from {self.from_s:.3f} to {self.to_s:.3f} s"
        during = f"during {self.move}" if self.move else "while nothing moved"
        return f"to port {FIRST_PORT + self.flow}, sent {when}, {during}"

    def as_json(self) -> dict[str, Any]:
        """For the report."""
        return asdict(self)


def spots(
    arrivals: Iterable[TimelinePacket],
    sent: Mapping[int, int],
    moves: Sequence[Mapping[str, Any]],
    began_ns: int,
    over_ns: int,
) -> list[Spot]:
    """All spots, the worst first.

    `sent`: packets by flow; `moves`: with `id`, `title`, `asked_ns` and `over_ns`; times are
    CLOCK_MONOTONIC, ns.
    """
    times: dict[int, dict[int, int]] = {flow: {} for flow in sent}
    runs: dict[tuple[What, int], list[tuple[int, int, int]]] = {}
    for packet in arrivals:
        times.setdefault(packet.flow, {})[packet.seq] = packet.sent_ns
        what = _ARRIVALS.get(packet.arrival)
        if what is not None:
            one = (packet.sent_ns, packet.sent_ns, 1)
            runs.setdefault((what, packet.flow), []).append(one)
    for flow, came in times.items():
        before, last = -1, began_ns
        for seq in (*sorted(came), sent.get(flow, len(came))):
            now = came.get(seq, over_ns)
            if seq > before + 1:
                runs.setdefault(("lost", flow), []).append((last, now, seq - before - 1))
            before, last = seq, now
    found = []
    for (what, flow), each in runs.items():
        for begin, end, packets in _joined(sorted(each)):
            during = (
                f"move {move['id']} ({move['title']})"
                for move in moves
                if move["asked_ns"] - BEFORE <= end and begin <= move["over_ns"]
            )
            first, last_s = (round((at - began_ns) / 1e9, 3) for at in (begin, end))
            found.append(Spot(what, flow, packets, first, last_s, next(during, None)))
    return sorted(found, key=lambda spot: -spot.packets)


def _joined(runs: Iterable[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    """Runs of packets (from, to, how many), those that are close to each other in one."""
    found: list[tuple[int, int, int]] = []
    for begin, end, packets in runs:
        if found and begin - found[-1][1] < TOGETHER:
            first, last, before = found[-1]
            found[-1] = (first, max(last, end), before + packets)
        else:
            found.append((begin, end, packets))
    return found
