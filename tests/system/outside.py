"""A move seen from outside: tcpdump and the kernel's counters at hosts' and instances' ports.

A witness takes every frame of one direction of one device, so that the kernel's counter for it has
to agree. Instances' ports are watched on the switches' side. `Way` holds what all witnesses of one
way saw of a probe run, `amiss` says what in it speaks against a clean move.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Self

import numpy as np
from handover_rig import Numbered, in_order
from hsl_pcap import Tcpdump
from softnet import dropped_at_ports

from flowferry.testbed import Testbed

#: As seen by the machine that the device belongs to.
Direction = Literal["in", "out"]
CONTROL = "ether proto 0x821c"
COUNTERS = {"in": "rx_packets", "out": "tx_packets"}
#: Hosts' and instances' devices where packets of each way begin.
NEAR = {"there": ("h1", "up"), "back": ("h2", "down")}
FAR = {"there": ("h2", "down"), "back": ("h1", "up")}


@dataclass(frozen=True)
class Place:
    """One direction of a device."""

    role: str
    dev: str
    direction: Direction


@dataclass
class Witnesses:
    """tcpdump at each place, and what the kernel counted there.

    Counters are read within the time of the captures and around it: `inner` ≤ captured ≤ `outer`.
    """

    dumps: dict[Place, Tcpdump] = field(default_factory=dict)
    inner: dict[Place, int] = field(default_factory=dict)
    outer: dict[Place, int] = field(default_factory=dict)

    def captured(self) -> dict[Place, int]:
        """Frames captured at each place. Fails if a tcpdump is not sure that it has all."""
        return {place: len(dump.records()) for place, dump in self.dumps.items()}


@contextmanager
def watching(bed: Testbed, folder: Path) -> Iterator[Witnesses]:
    """Watch for as long as the block lasts; traffic has to end within it."""
    sides = {"up": bed.switches["ingress"].role, "down": bed.switches["egress"].role}
    devices = [("h1", "eth0"), ("h2", "eth0")]
    devices += [(switch, f"{i.name}-{dev}") for i in bed.instances for dev, switch in sides.items()]
    directions: tuple[Direction, ...] = ("in", "out")
    places = [Place(*device, direction) for device in devices for direction in directions]

    def counted() -> dict[Place, int]:
        return {place: _counter(bed, place) for place in places}

    found = Witnesses()
    around = counted()
    with ExitStack() as stack:
        for number, place in enumerate(places):
            found.dumps[place] = stack.enter_context(
                Tcpdump(
                    bed,
                    place.role,
                    place.dev,
                    folder / f"{number}.pcap",
                    _expression(bed, place),
                    buffer_kib=16 << 10,
                )
            )
        within = counted()
        yield found
        found.inner = {place: count - within[place] for place, count in counted().items()}
    found.outer = {place: count - around[place] for place, count in counted().items()}


def _expression(bed: Testbed, place: Place) -> str:
    """Frames of one direction, by who sent them; tcpdump's own `inbound` misses the first ones."""
    host = place.role if place.dev == "eth0" else "h1" if place.dev.endswith("-up") else "h2"
    outward = f"ether src {bed.hosts[host].mac}"
    for instance in bed.instances:
        if place.dev.startswith(f"{instance.name}-"):
            # To an instance go control frames of the controller's and of other instances.
            own = f"02:ff:00:01:00:{instance.id:02x}"
            outward += f" or ({CONTROL} and not ether src {own})"
    return f"({outward})" if place.direction == "out" else f"not ({outward})"


def _counter(bed: Testbed, place: Place) -> int:
    path = f"/sys/class/net/{place.dev}/statistics/{COUNTERS[place.direction]}"
    return int(bed.run(place.role, ["cat", path]).stdout)


def dropped_by_switches(bed: Testbed) -> int:
    """Frames that came to a port of a switch and found its socket full, since the switch began."""
    counts = dropped_at_ports(bed)
    assert counts, "no switch listens at any port"
    return sum(counts.values())


def miscounted(
    captured: Mapping[Place, int], inner: Mapping[Place, int], outer: Mapping[Place, int]
) -> list[str]:
    """Places where captures and the kernel's counters do not agree."""
    return [
        f"{place}: {captured[place]} captured, {inner[place]} to {outer[place]} counted"
        for place in captured
        if not inner[place] <= captured[place] <= outer[place]
    ]


@dataclass(frozen=True)
class Way:
    """Probe packets on one way, as seen at the first host, at each instance, at the other host."""

    sent: Numbered
    #: On the way into each instance, and out of it; the source of the move comes first.
    came: Mapping[str, Numbered]
    left: Mapping[str, Numbered]
    got: Numbered

    @classmethod
    def of(cls, witnesses: Witnesses, bed: Testbed, way: str, run: int) -> Self:
        """The way `there` or `back` of a run."""

        def seen(dev: str, direction: Direction, role: str | None = None) -> Numbered:
            (place,) = (
                place
                for place in witnesses.dumps
                if (place.dev, place.direction) == (dev, direction) and role in (None, place.role)
            )
            return Numbered.of(witnesses.dumps[place].records(), run, way)

        (first, near), (last, far) = NEAR[way], FAR[way]
        names = [one.name for one in bed.instances]
        return cls(
            sent=seen("eth0", "out", first),
            came={name: seen(f"{name}-{near}", "out") for name in names},
            left={name: seen(f"{name}-{far}", "in") for name in names},
            got=seen("eth0", "in", last),
        )

    @property
    def missing(self) -> int:
        """Packets that were sent and did not arrive."""
        return len(np.setdiff1d(self.sent.places, self.got.places))


def amiss(way: Way, flows: int) -> list[str]:
    """What speaks against a move of all flows that nobody noticed; empty if nothing does.

    Each packet sent is at exactly one instance, before and behind it, and arrives once; every flow
    is in order everywhere; the source has, of every flow, some packets, the destination has some,
    and the source's are all before the destination's.
    """
    found = []
    sent = way.sent.places
    stages: list[tuple[str, Mapping[str, Numbered]]] = [
        ("sent", {"the sender": way.sent}),
        ("into instances", way.came),
        ("out of instances", way.left),
        ("arrived", {"the receiver": way.got}),
    ]
    for stage, parts in stages:
        everywhere = np.concatenate([part.places for part in parts.values()])
        for count, what in (
            (len(np.setdiff1d(sent, everywhere)), "missing"),
            (len(np.setdiff1d(everywhere, sent)), "never sent"),
            (len(everywhere) - len(np.unique(everywhere)), "more than once"),
        ):
            if count:
                found.append(f"{stage}: {count} packets {what}")
        found += [f"{stage}: {n} not in order" for n, part in parts.items() if not in_order(part)]
        if len(parts) > 1:
            found += [f"{stage}: {problem}" for problem in _split(parts, flows)]
    return found


def _split(parts: Mapping[str, Numbered], flows: int) -> Iterator[str]:
    source, destination = parts.values()
    for name, part in parts.items():
        some = np.unique(part.flows)
        if some.tolist() != list(range(flows)):
            yield f"{name} has packets of {len(some)} flows, not of all {flows}"
    last, first = source.extremes(most=True), destination.extremes(most=False)
    early = sum(last[flow] >= first[flow] for flow in last.keys() & first.keys())
    if early:
        yield f"{early} flows had a packet at the source behind one at the destination"
