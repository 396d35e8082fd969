"""The order tests' judge finds what it is there to find: made-up disorder, and real disorder."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hsl_pcap import Tcpdump, Verdict, judge, judge_copies, judge_probe
from hsl_rig import Flood, at_rest, cycle
from numbered import until
from softnet import room
from test_hsl_order import FILTER

from flowferry.hsl import Agent, Config, Instance, Interfaces
from flowferry.testbed import Chain

Build = Callable[..., Chain]
ENOUGH_PINGS = 20


def verdict_on(arrivals: list[tuple[int, int]], sent: list[int]) -> Verdict:
    flows, numbers = np.array(arrivals, np.uint64).reshape(-1, 2).T
    return judge(flows, numbers, sent)


WHOLE = [(0, 0), (1, 0), (0, 1), (0, 2), (1, 1)]


@pytest.mark.parametrize(
    ("arrivals", "expected"),
    [
        (WHOLE, Verdict(5, 0, 0, 0, 0)),
        (WHOLE[:-1], Verdict(4, 1, 0, 0, 0)),
        ([], Verdict(0, 5, 0, 0, 0)),
        ([*WHOLE, (0, 0)], Verdict(6, 0, 1, 0, 0)),
        ([(0, 1), (1, 0), (0, 0), (0, 2), (1, 1)], Verdict(5, 0, 0, 1, 0)),
        ([(0, 2), (0, 0), (0, 1), (1, 0), (1, 1)], Verdict(5, 0, 0, 2, 0)),
        ([*WHOLE, (1, 2), (7, 0)], Verdict(7, 0, 0, 0, 2)),
    ],
    ids=["whole", "last lost", "all lost", "doubled", "swapped", "two late", "never sent"],
)
def test_the_judge_counts(arrivals: list[tuple[int, int]], expected: Verdict) -> None:
    assert verdict_on(arrivals, [3, 2]) == expected


def test_the_judge_of_copies_counts() -> None:
    left = np.array([50, 20, 30, 40], np.uint64)

    def came(*identities: int) -> Verdict:
        return judge_copies(left, np.array(identities, np.uint64))

    assert came(50, 20, 30, 40).clean
    assert came(50, 30, 20, 40) == Verdict(4, 0, 0, 1, 0)
    assert came(50, 20, 20, 40, 99) == Verdict(5, 1, 1, 0, 1)


def test_drops_doubles_and_swaps_on_the_way_are_counted_exactly(
    netns_chain: Build, tmp_path: Path
) -> None:
    chain = netns_chain(function=None, static_neighbours=True)
    ready, path = tmp_path / "ready", tmp_path / "far.pcap"
    plan = "drop=10,11,500 dup=40,1000 swap=70,200,300 on=a"
    forwarder = [sys.executable, "-m", "flowferry.functions.forwarder", "up", "down"]
    chain.popen("nf", [*forwarder, "--fault", plan, "--stats", str(ready)])
    until(ready.exists, "the forwarder runs")
    with (
        Tcpdump(chain, "h2", "eth0", path, FILTER) as dump,
        Flood(chain, flows=1, rate=20_000, count=4000) as flood,
    ):
        pass
    found = judge_probe(dump.records(), flood.sent["run"], flood.sent["sent_per_flow"])
    assert (found.lost, found.doubled, found.reordered, found.unknown) == (3, 2, 3, 0)
    sunk = flood.sunk
    assert (sunk["lost"], sunk["duplicated"], sunk["reordered"]) == (3, 2, 3)


def test_a_capture_ends_though_frames_come_for_ever(netns_chain: Build, tmp_path: Path) -> None:
    """As a controller's questions do: before one is in the file there is the next."""
    chain = netns_chain(function="bridge", static_neighbours=True)
    ping = ["ping", "-q", "-i", "0.002", chain.hosts["h2"].ip4]
    with Tcpdump(chain, "h2", "eth0", tmp_path / "far.pcap", "icmp") as dump:
        pings = chain.popen("h1", ping, stdout=subprocess.DEVNULL)
        until(lambda: dump.look().received >= ENOUGH_PINGS, "pings")
    assert pings.poll() is None
    assert len(dump.records()) >= ENOUGH_PINGS


def test_a_packet_socket_in_front_of_the_kernel_shim_is_found_out(
    netns_chain: Build, tmp_path: Path
) -> None:
    """It taps before the shim and sees a captured packet twice (docs/hsl.md)."""
    chain = netns_chain(function="forwarder-direct", steering=True, static_neighbours=True)
    config = Config(
        instance=Instance("nf", 1),
        shim="kernel",
        interfaces=Interfaces("up", "down"),
        pins=str(chain.owner.directory / "bpf" / "hsl-nf"),
        socket=str(chain.owner.directory / "hsl.sock"),
        netns=chain.namespaces["nf"],
    )
    path = tmp_path / "far.pcap"
    with (
        room(),
        Agent(config) as agent,
        agent.client() as client,
        Tcpdump(chain, "h2", "eth0", path, FILTER) as dump,
    ):
        with Flood(chain, flows=10, rate=2_000) as flood:
            done = cycle(client, [0.01] * 10, "udp")
        at_rest(client)
    found = judge_probe(dump.records(), flood.sent["run"], flood.sent["sent_per_flow"])
    assert found.doubled == done.captured > 0
    assert found.lost == 0
    assert flood.sunk["duplicated"] == found.doubled
