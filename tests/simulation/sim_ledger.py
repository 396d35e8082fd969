"""Flows, their packets, and the books: who has processed what, in which order, and how late."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address

from flowferry.wire import Side

SIDES = (Side.UPSTREAM, Side.DOWNSTREAM)
_NUMBER = struct.Struct("!I")
HIGHER_PORT = 9999
"""Downstream port of flows that a higher rule keeps where they are."""


def _frame_head(ends: list[tuple[IPv4Address, int]]) -> bytes:
    (source, source_port), (destination, destination_port) = ends
    ethernet = bytes.fromhex("020000000001020000000002") + b"\x08\x00"
    ip = struct.pack(
        "!BBHHHBBH4s4s", 0x45, 0, 32, 0, 0, 64, 17, 0, source.packed, destination.packed
    )
    return ethernet + ip + struct.pack("!HHHH", source_port, destination_port, 12, 0)


@dataclass(eq=False)
class Flow:
    """One flow; on the side where a packet of it arrives, its headers are those of that way."""

    index: int
    #: Of the handover, or 0: nothing moves it.
    part: int
    #: The instance that it is at when everything begins.
    home: int
    heads: dict[Side, bytes] = field(init=False)
    #: As agents name it to their functions.
    name: str = field(init=False)

    def __post_init__(self) -> None:
        """Make its headers: the part is the third octet of the client's address."""
        client = (IPv4Address(f"10.0.{self.home}.1"), 1000 + self.index)
        server = (IPv4Address("10.1.0.1"), 5000 if self.part else HIGHER_PORT)
        self.heads = {
            Side.UPSTREAM: _frame_head([client, server]),
            Side.DOWNSTREAM: _frame_head([server, client]),
        }
        ends = f"nw_src={client[0]},nw_dst={server[0]},tp_src={client[1]},tp_dst={server[1]}"
        self.name = f"udp,{ends}"


@dataclass(slots=True)
class Packet:
    """One packet on its way to an instance."""

    flow: Flow
    #: Where it arrives.
    side: Side
    number: int
    sent_at: int

    @property
    def frame(self) -> bytes:
        """Its bytes."""
        return self.flow.heads[self.side] + _NUMBER.pack(self.number)


@dataclass(slots=True)
class Line:
    """One flow in one direction."""

    sent: int = 0
    #: (instance, number) in the order of processing.
    processed: list[tuple[int, int]] = field(default_factory=list)


class Ledger:
    """Everything that was sent, and what became of it."""

    def __init__(self, flows: list[Flow]) -> None:
        """Nothing was sent yet."""
        self.flows = flows
        self.lines = {(flow, side): Line() for flow in flows for side in SIDES}
        self.sent_at: dict[tuple[Flow, Side, int], int] = {}
        self._by_head = {flow.heads[side]: (flow, side) for flow in flows for side in SIDES}
        #: The instance that had the first packet of a flow.
        self.began_at: dict[Flow, int] = {}
        #: Packets that somebody has said are lost.
        self.said_lost = 0
        #: The longest time from switch to function of each flow, and of which packet.
        self.longest: dict[Flow, tuple[int, str]] = {}
        #: What is wrong, in the order of finding.
        self.wrong: list[str] = []

    def send(self, flow: Flow, side: Side, now: int) -> Packet:
        """The next packet of a flow."""
        line = self.lines[flow, side]
        packet = Packet(flow, side, line.sent, now)
        self.sent_at[flow, side, line.sent] = now
        line.sent += 1
        return packet

    def read(self, frame: bytes) -> tuple[Flow, Side, int]:
        """What a frame is."""
        flow, side = self._by_head[frame[:-4]]
        return flow, side, _NUMBER.unpack(frame[-4:])[0]

    def process(self, instance: int, frame: bytes, now: int) -> Flow:
        """A function has got a packet."""
        flow, side, number = self.read(frame)
        self.lines[flow, side].processed.append((instance, number))
        self.began_at.setdefault(flow, instance)
        late = now - self.sent_at[flow, side, number]
        if late > self.longest.get(flow, (0, ""))[0]:
            which = f"packet {number} of flow {flow.index} {side.name.lower()}"
            self.longest[flow] = (late, which)
        return flow

    def processed(self, flow: Flow) -> int:
        """Packets of a flow that any function has got, both ways."""
        return sum(len(self.lines[flow, side].processed) for side in SIDES)

    # --- judgement ---

    def lost(self) -> int:
        """Packets that no function ever got."""
        return sum(
            line.sent - len({number for _, number in line.processed})
            for line in self.lines.values()
        )

    def doubled(self) -> Iterator[str]:
        """Packets that were processed twice."""
        for (flow, side), line in self.lines.items():
            numbers = [number for _, number in line.processed]
            if len(set(numbers)) < len(numbers):
                twice = sorted({n for n in numbers if numbers.count(n) > 1})
                yield f"flow {flow.index} {side.name.lower()}: {twice[:5]} processed twice"

    def disordered(self) -> Iterator[tuple[Flow, str]]:
        """Packets that overtook others of their flow and direction."""
        for (flow, side), line in self.lines.items():
            last = (0, -1)
            for place, number in line.processed:
                if number < last[1]:
                    yield (
                        flow,
                        f"flow {flow.index} {side.name.lower()}: {number} at instance {place} "
                        f"after {last[1]} at instance {last[0]}",
                    )
                    break
                last = (place, number)

    def places(self, flow: Flow, side: Side) -> list[int]:
        """The instances that had a flow, in order."""
        places: list[int] = []
        for place, _ in self.lines[flow, side].processed:
            if places[-1:] != [place]:
                places.append(place)
        return places
