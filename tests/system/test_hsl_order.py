"""Captures lose, double and reorder nothing: UDP, judged by tcpdump at the far side."""

import itertools
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hsl_pcap import Tcpdump, Verdict, judge_probe, until
from hsl_rig import (
    SHIMS,
    Cycles,
    Flood,
    at_rest,
    attached,
    cycle,
    evenly,
    interface_counter,
    ladder,
    pin_function,
)
from softnet import drops, room

from flowferry import probe
from flowferry.hsl import Client
from flowferry.testbed import Chain
from soak import CAPTURES, ORDER_REPEATS

Build = Callable[..., Chain]

#: Of the rate that the path carries without captures: where trials begin, and the least at which a
#: long one has to come through whole (docs/hsl.md, Limits).
LOAD, LEAST = 0.8, 0.25
#: From one trial to the next that is slower.
SLOWER = 0.8
#: Frames of h1 that nobody asked for, at the most.
LATE = 10
#: Frames that a CPU's receive queue takes.
BURSTS = 100_000
FILTER = "udp and dst host 10.0.0.2"


@pytest.fixture(autouse=True)
def queues_with_room() -> Iterator[None]:
    """For the runs with captures and without alike, more than docs/hsl.md recommends.

    The sender is on this machine, too: where the agent takes its CPU it catches up in bursts, which
    a sender elsewhere has no reason to.
    """
    with room(BURSTS):
        yield


def build(netns_chain: Build, shim: str, steering: bool) -> Chain:
    chain = netns_chain(function=SHIMS[shim], steering=steering, static_neighbours=True)
    if shim == "veth" and not steering:
        pin_function(chain, 1)
    return chain


def sender_cpu(steering: bool) -> int | None:
    """Without steering a sender that moves to another CPU reorders its own packets."""
    return None if steering else 0


def carried(chain: Chain, flows: int, steering: bool, scratch: Path) -> float:
    """The highest rate of packets, of a few tried, that comes through whole, tcpdump included."""
    cpu = sender_cpu(steering)
    with Tcpdump(chain, "h2", "eth0", scratch, FILTER) as dump:
        with Flood(chain, flows=flows, rate=None, cpu=cpu, duration=0.5) as flood:
            pass
        rate = min(flood.sent["packets_per_second"], 1.5 * flood.sunk["packets_per_second"])
        while True:
            dropped = dump.look().dropped
            with Flood(chain, flows=flows, rate=rate, cpu=cpu, duration=1.0) as flood:
                pass
            slow = flood.sent["packets_per_second"] < 0.97 * rate
            if flood.sunk["clean"] and not slow and dump.look().dropped == dropped:
                print(f"the path carries {rate:.0f} packets/s, {flood.busy:.2f} CPUs at work")
                break
            rate *= 0.85
            assert rate > 5_000, "this machine carries no traffic worth the name"
    scratch.unlink()
    return rate


@dataclass(frozen=True)
class Trial:
    """One run with captures: what tcpdump, the probe, the kernel and the agent say of it."""

    rate: float
    cycles: Cycles
    verdict: Verdict
    sunk: probe.SinkReport
    #: Lost in the agent's hands, by its own account.
    lost_held: int
    #: Dropped by full receive queues of the kernel, wherever on this machine.
    dropped: int
    #: Went into the function and did not come out.
    lost_in_function: int
    #: h1 sent so many, and the function read so many, by its own count; None if it has no sockets.
    left: int
    read: int | None
    #: How many CPUs worked.
    busy: float

    def __str__(self) -> str:
        done = self.cycles
        return (
            f"{self.rate:.0f} packets/s, {done.holds} captures, {done.held:.1f} s held, "
            f"{done.captured} packets captured, {done.outpaced} outpaced: {self.verdict}; "
            f"agent lost {self.lost_held}, kernel queues dropped {self.dropped}, "
            f"the function {self.lost_in_function} and read {self.read} of {self.left}; "
            f"{self.busy:.2f} CPUs at work"
        )


def passed(chain: Chain) -> tuple[int, int, int]:
    """Packets that h1 sent, that h2 received, and that the forwarder took in but did not send."""
    inside = 0
    if "fn" in chain.namespaces:
        taken = interface_counter(chain, "fn", "fup", "rx_packets")
        inside = taken - interface_counter(chain, "fn", "fdown", "tx_packets")
    sent = interface_counter(chain, "h1", "eth0", "tx_packets")
    return sent, interface_counter(chain, "h2", "eth0", "rx_packets"), inside


def read_by_function(chain: Chain) -> int | None:
    """Packets from h1 that the forwarder has read from its socket, as it says itself."""
    if "fn" not in chain.namespaces:
        return None
    report = chain.owner.directory / "forwarder-nf.json"
    (pid,) = (pid for pid, argv, _ in chain.owner.daemons() if str(report) in argv)
    report.unlink()
    os.kill(pid, signal.SIGUSR1)  # it writes another
    until(report.exists, "the forwarder's report")
    return int(json.loads(report.read_text())["a_to_b"]["received"])


def attempt(
    chain: Chain,
    client: Client,
    path: Path,
    *,
    flows: int,
    rate: float,
    cpu: int | None,
    times: list[float],
) -> Trial:
    """Capture and release under traffic. What must hold whatever the load is asserted."""
    before = at_rest(client)
    dropped = drops()
    left, came, inside = passed(chain)
    read = read_by_function(chain)
    with Tcpdump(chain, "h2", "eth0", path, FILTER) as dump:
        with Flood(chain, flows=flows, rate=rate, cpu=cpu) as flood:
            cycles = cycle(client, times, "udp")
        after = at_rest(client)
    left, came, inside = (b - a for a, b in zip((left, came, inside), passed(chain), strict=True))
    if read is not None:
        read = (read_by_function(chain) or 0) - read
    verdict = judge_probe(dump.records(), flood.sent["run"], flood.sent["sent_per_flow"])
    path.unlink()
    trial = Trial(
        rate,
        cycles,
        verdict,
        flood.sunk,
        after["lost_packets"] - before["lost_packets"],
        drops() - dropped,
        inside,
        left,
        read,
        flood.busy,
    )
    assert verdict.reordered == verdict.doubled == verdict.unknown == 0, trial
    assert flood.sunk["reordered"] == flood.sunk["duplicated"] == 0, trial
    # What opens and closes a run is repeated until it is answered, and may be lost like the rest.
    talk = left - flood.sent["sent"]
    # h1 itself answers an acknowledgement that comes after the sender has gone, and its device may
    # drop what it cannot take.
    said = flood.sent["talk_sent"]
    assert max(1, said - trial.dropped) <= talk <= said + LATE, (left, trial)
    unread = verdict.lost + flood.sunk["sink_dropped"]
    assert unread - talk <= flood.sunk["lost"] <= unread, trial
    assert left == came or verdict.lost, (left, came, trial)
    assert verdict.packets == flood.sent["sent"] - verdict.lost
    # A function with packet sockets is shown each packet once, captured or not.
    assert read is None or came <= read <= left, trial
    # Every packet that is missing is counted by whoever dropped it.
    elsewhere = trial.dropped + trial.lost_in_function
    assert trial.lost_held - talk <= verdict.lost <= trial.lost_held + elsewhere, trial
    assert cycles.captured > 0
    return trial


def carries(
    chain: Chain, scratch: Path, *, flows: int, rate: float, cpu: int | None, seconds: float
) -> bool:
    """The control: whether this rate comes through whole for so long without captures."""
    with (
        Tcpdump(chain, "h2", "eth0", scratch, FILTER) as dump,
        Flood(chain, flows=flows, rate=rate, cpu=cpu, duration=seconds) as flood,
    ):
        pass
    scratch.unlink()
    sunk = flood.sunk
    print(
        f"control, {rate:.0f} packets/s for {seconds:.0f} s: {sunk['lost']} lost, "
        f"{flood.busy:.2f} CPUs at work"
    )
    return sunk["clean"] and dump.counts.dropped == 0


def prove(
    chain: Chain,
    folder: Path,
    *,
    flows: int,
    steering: bool,
    times: list[float],
    least: float = 0.0,
) -> None:
    """A run with captures in which nothing at all is lost, as near to `LOAD` as can be.

    Order, copies and counts are exact at any rate. How fast an agent is depends on the machine, and
    on what else it does: a run that lost something is repeated more slowly. What the path carries
    is found in short runs; so a control, as long, as fast and with the same tools but without
    captures, says whether the path or the captures fell short. At `least` times what the path
    carries captures must not.
    """
    cpu = sender_cpu(steering)
    with attached(chain) as client:
        most = carried(chain, flows, steering, folder / "scratch.pcap")
        share = LOAD
        while True:
            rate = share * most
            assert rate > 5_000, "this machine carries no traffic worth the name"
            began = time.monotonic()
            trial = attempt(
                chain, client, folder / "far.pcap", flows=flows, rate=rate, cpu=cpu, times=times
            )
            seconds = time.monotonic() - began
            print(f"{share:.2f} of {most:.0f} packets/s on {flows} flows: {trial}")
            if not trial.verdict.lost and not trial.cycles.outpaced:
                return
            scratch = folder / "scratch.pcap"
            if least and not carries(
                chain, scratch, flows=flows, rate=rate, cpu=cpu, seconds=seconds
            ):
                most *= SLOWER
                continue
            assert share > least, f"whole without captures; with them {trial}"
            share = max(share * SLOWER, least)


FAST = [
    ("kernel", True, 100),
    ("kernel", True, 5000),
    ("kernel", False, 1),
    ("veth", True, 1),
    ("veth", False, 100),
]


@pytest.mark.parametrize(("shim", "steering", "flows"), FAST)
def test_captures_keep_every_packet_in_order(
    netns_chain: Build, tmp_path: Path, shim: str, steering: bool, flows: int
) -> None:
    chain = build(netns_chain, shim, steering)
    prove(chain, tmp_path, flows=flows, steering=steering, times=ladder(30))


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("shim", "steering", "flows"),
    [
        pytest.param(*case, id=f"{case[0]}-{'steered' if case[1] else 'unsteered'}-{case[2]}")
        for case in itertools.product(SHIMS, (True, False), (1, 100, 5000))
    ],
)
def test_many_captures_keep_every_packet_in_order(
    netns_chain: Build, tmp_path: Path, shim: str, steering: bool, flows: int
) -> None:
    chain = build(netns_chain, shim, steering)
    times = evenly(CAPTURES)
    prove(chain, tmp_path, flows=flows, steering=steering, times=times, least=LEAST)


@pytest.mark.soak
@pytest.mark.parametrize("repeat", range(ORDER_REPEATS))
def test_captures_keep_every_packet_in_order_each_time(
    netns_chain: Build, tmp_path: Path, repeat: int
) -> None:
    shim, steering, flows = FAST[repeat % len(FAST)]
    chain = build(netns_chain, shim, steering)
    prove(chain, tmp_path, flows=flows, steering=steering, times=ladder(20), least=LEAST)
