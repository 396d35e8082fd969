"""A move is proven from outside: tcpdump at both hosts and at every port of the instances.

Each packet is at exactly one instance; of each flow and direction the source's numbers are all
before the destination's, and both had some; nothing is lost, reordered or doubled at the hosts; and
the kernel's counters of all these devices agree with the captures, every frame counted.

A proof has to be able to fail, so the captures are then spoiled in every way there is to see.

A switch that does not get a CPU in time drops what comes to its ports; it does so without any move,
too. A run in which it did shows order and copies, but not that nothing is lost (what is missing may
only not be more than the switch dropped): the same is then done once more, with fewer packets.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from handover_rig import TIME_TO_DRAIN, Bed, Echo, Numbered
from hsl_pcap import Numbers, until
from outside import Way, amiss, dropped_by_switches, miscounted, watching

from flowferry.controller import Platform
from soak import ORDER_REPEATS

FLOWS = 20
#: Packets a second. The switches' ports keep some 270, and drop the rest of what comes while a
#: machine that is busy leaves a switch without a CPU.
RATE, FAST = 400, 6000
#: Packets of each flow before the move, and after it.
ENOUGH = 15


STEERING = pytest.mark.parametrize("steering", [True, False], ids=["steered", "unsteered"])
FUNCTION = pytest.mark.parametrize("function", ["bridge", "forwarder"])


@STEERING
@FUNCTION
def test_each_packet_is_at_one_instance_and_in_order(
    testbed: Bed, tmp_path: Path, function: str, steering: bool
) -> None:
    prove(testbed, tmp_path, function, steering, [RATE, RATE / 2])


@pytest.mark.soak
@pytest.mark.parametrize("repeat", range(ORDER_REPEATS))
@STEERING
@FUNCTION
def test_so_it_is_each_time(
    testbed: Bed, tmp_path: Path, function: str, steering: bool, repeat: int
) -> None:
    """With more packets."""
    prove(testbed, tmp_path, function, steering, [FAST, FAST / 2, FAST / 4, RATE])


def prove(
    testbed: Bed, folder: Path, function: str, steering: bool, rates: Sequence[float]
) -> None:
    """Move once at the first of the rates at which the switches drop nothing."""
    for rate in rates:
        scratch = folder / f"{rate:.0f}"
        scratch.mkdir()
        dropped = move(testbed, scratch, function, steering, rate)
        if not dropped:
            return
        print(f"{rate:.0f} packets/s: the switches dropped {dropped}")
    pytest.fail("the switches of this machine carry no traffic worth the name")


def move(testbed: Bed, folder: Path, function: str, steering: bool, rate: float) -> int:
    """Move all flows once, from i1 to i2, and look at everything that was captured.

    What the switches dropped at their ports.
    """
    bed = testbed(instances=2, function=function, steering=steering)
    # Without steering a sender that moves between CPUs reorders by itself.
    cpu = None if steering else 0
    with Platform(bed, settling_ms=500, agent=TIME_TO_DRAIN) as platform:
        for address in (bed.hosts["h2"].ip4, bed.hosts["h2"].ip6):
            bed.run("h1", ["ping", "-c1", "-W5", address])
        dropped = dropped_by_switches(bed)
        with (
            watching(bed, folder) as witnesses,
            Echo(bed, flows=FLOWS, rate=rate, cpu=cpu) as echo,
        ):
            until(lambda: echo.arrived.packets >= ENOUGH * FLOWS, "traffic through the source")
            done = platform.client.move("udp", "i2", wait=True, timeout=30)
            moved = echo.arrived.packets
            until(
                lambda: echo.arrived.packets >= moved + ENOUGH * FLOWS,
                "traffic through the destination",
            )
        dropped = dropped_by_switches(bed) - dropped
    assert (done["state"], done["error"], done["flows"]) == ("done", None, FLOWS), done
    assert done["lost_packets"] == done["controller_packets"] == 0
    ways = [Way.of(witnesses, bed, name, echo.sent["run"]) for name in ("there", "back")]
    if dropped:
        problems = [problem for way in ways for problem in amiss(way, FLOWS)]
        assert [each for each in problems if not each.endswith(" packets missing")] == []
        assert sum(way.missing for way in ways) <= dropped, (dropped, problems)
        return dropped
    for way in ways:
        assert amiss(way, FLOWS) == []
        for plant, said in PLANTS:
            found = amiss(plant(way), FLOWS)
            assert any(said in problem for problem in found), (plant.__name__, found)
    for account in (echo.there, echo.sent["replies"]):
        assert account is not None
        figures = {k: account[k] for k in ("lost", "reordered", "duplicated", "unclassified")}
        assert not any(figures.values()), figures

    captured = witnesses.captured()
    assert miscounted(captured, witnesses.inner, witnesses.outer) == []
    for place, count in captured.items():
        slack = witnesses.outer[place] - witnesses.inner[place]
        assert slack < count / 20, (place, slack)  # else the counters would prove little
        for wrong in (count - slack - 1, count + slack + 1):
            assert miscounted({place: wrong}, witnesses.inner, witnesses.outer)
    return 0


# -- captures of moves that went wrong -----------------------------------------------------------


def without(seen: Numbered, index: int) -> Numbered:
    return Numbered(np.delete(seen.flows, index), np.delete(seen.numbers, index))


def with_also(seen: Numbered, flow: int, number: int, at: int | None = None) -> Numbered:
    at = len(seen) if at is None else at
    return Numbered(np.insert(seen.flows, at, flow), np.insert(seen.numbers, at, number))


def a_packet_that_vanished_before_the_instances(way: Way) -> Way:
    return replace(way, came={**way.came, "i1": without(way.came["i1"], 5)})


def a_packet_that_was_not_released(way: Way) -> Way:
    return replace(way, left={**way.left, "i2": without(way.left["i2"], 0)})


def a_packet_that_vanished_behind_the_instances(way: Way) -> Way:
    return replace(way, got=without(way.got, 7))


def a_packet_that_was_released_twice(way: Way) -> Way:
    first = way.left["i2"]
    twice = with_also(first, int(first.flows[0]), int(first.numbers[0]), 1)
    return replace(way, left={**way.left, "i2": twice})


def a_stray_that_went_through_both(way: Way) -> Way:
    last = way.left["i1"]
    flow, number = int(last.flows[-1]), int(last.numbers[-1])
    return replace(way, left={**way.left, "i2": with_also(way.left["i2"], flow, number, 0)})


def a_packet_out_of_nowhere(way: Way) -> Way:
    return replace(way, got=with_also(way.got, 3, 1 << 30))


def a_release_before_the_fence(way: Way) -> Way:
    """The destination's first packet goes through it before the source's last one does."""
    source, destination = way.left["i1"], way.left["i2"]
    flow = int(destination.flows[0])
    last = int(np.flatnonzero(source.flows == flow)[-1])
    return replace(
        way,
        left={
            "i1": Numbered(source.flows, _set(source.numbers, last, destination.numbers[0])),
            "i2": Numbered(destination.flows, _set(destination.numbers, 0, source.numbers[last])),
        },
    )


def strays_behind_what_was_kept(way: Way) -> Way:
    one, two = np.flatnonzero(way.left["i2"].flows == 4)[:2]
    numbers = way.left["i2"].numbers.copy()
    numbers[[one, two]] = numbers[[two, one]]
    return replace(way, left={**way.left, "i2": Numbered(way.left["i2"].flows, numbers)})


def a_flow_that_stayed_behind(way: Way) -> Way:
    source, destination = way.left.values()
    stays = destination.flows == 11
    return replace(
        way,
        left={
            "i1": Numbered(
                np.concatenate([source.flows, destination.flows[stays]]),
                np.concatenate([source.numbers, destination.numbers[stays]]),
            ),
            "i2": Numbered(destination.flows[~stays], destination.numbers[~stays]),
        },
    )


def _set(values: Numbers, at: int, value: int) -> Numbers:
    changed = values.copy()
    changed[at] = value
    return changed


PLANTS: Sequence[tuple[Callable[[Way], Way], str]] = (
    (a_packet_that_vanished_before_the_instances, "into instances: 1 packets missing"),
    (a_packet_that_was_not_released, "out of instances: 1 packets missing"),
    (a_packet_that_vanished_behind_the_instances, "arrived: 1 packets missing"),
    (a_packet_that_was_released_twice, "out of instances: 1 packets more than once"),
    (a_stray_that_went_through_both, "out of instances: 1 packets more than once"),
    (a_packet_out_of_nowhere, "arrived: 1 packets never sent"),
    (a_release_before_the_fence, "at the source behind one at the destination"),
    (strays_behind_what_was_kept, "out of instances: i2 not in order"),
    (a_flow_that_stayed_behind, f"i2 has packets of {FLOWS - 1} flows, not of all {FLOWS}"),
)
