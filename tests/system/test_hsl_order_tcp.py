"""Captures lose, double and reorder nothing: TCP at full speed, judged by tcpdump at both hosts.

What left h1 (or h2) is compared, packet by packet, with what came to the other: super-packets
whole, retransmissions as packets of their own. So a retransmission that TCP sends because it was
kept waiting (a hold of 200 ms outlasts its time-out) is no fault of the path, and a packet that the
path doubles, drops or swaps cannot hide behind TCP's repairs.
"""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import hsl_stream
import numpy as np
import pytest
from hsl_pcap import TCP_SNAP, Records, Tcpdump, Verdict, judge_copies, tcp_packets
from hsl_rig import SHIMS, Cycles, at_rest, attached, cycle, evenly, ladder, pin_function

from flowferry.testbed import Chain
from soak import CAPTURES

Build = Callable[..., Chain]

PORT = 5301
FILTER = f"tcp port {PORT}"
STREAM = [sys.executable, hsl_stream.__file__]
#: An Ethernet frame with one tag at an MTU of 1,500; what is longer is a super-packet.
LONGEST = 1518


def start(chain: Chain, role: str, *arguments: str, cpu: int | None) -> "subprocess.Popen[str]":
    """One end of the stream, on one CPU if asked to."""
    pinned = [] if cpu is None else ["taskset", "-c", str(cpu)]
    return chain.popen(
        role,
        [*pinned, *STREAM, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def stream_through(
    chain: Chain, folder: Path, times: list[float], *, cpu: int | None
) -> tuple[Cycles, Records, Records, float]:
    """Send for as long as captures come and go; what tcpdump saw at h1 and h2, and Gbit/s."""
    with attached(chain, cpu=cpu) as client:
        receiver = start(chain, "h2", "receive", str(PORT), cpu=cpu)
        assert receiver.stdout is not None
        assert receiver.stdout.readline() == "listening\n"
        with (
            Tcpdump(chain, "h1", "eth0", folder / "h1.pcap", FILTER, snap=TCP_SNAP) as near,
            Tcpdump(chain, "h2", "eth0", folder / "h2.pcap", FILTER, snap=TCP_SNAP) as far,
        ):
            address = chain.hosts["h2"].ip4
            sender = start(chain, "h1", "send", address, str(PORT), cpu=cpu)
            done = cycle(client, times, "tcp")
            report = json.loads(sender.communicate(timeout=60)[0])
            receiver.communicate(timeout=60)
            status = at_rest(client)
    assert done.outpaced == 0
    assert status["lost_packets"] == 0
    assert report["received"] == report["sent"] > 0
    assert report["wrong_reads"] == 0
    rate = 8 * report["sent"] / report["seconds"] / 1e9
    return done, near.records(), far.records(), rate


def judge_both(near: Records, far: Records) -> tuple[Verdict, Verdict]:
    """The verdicts on the data and on what came back."""
    data = judge_copies(tcp_packets(near, PORT, to=True), tcp_packets(far, PORT, to=True))
    back = judge_copies(tcp_packets(far, PORT, to=False), tcp_packets(near, PORT, to=False))
    return data, back


def prove(chain: Chain, folder: Path, times: list[float], *, cpu: int | None) -> None:
    """Nothing lost or doubled in any case; in order wherever the bare path keeps order."""
    done, near, far, rate = stream_through(chain, folder, times, cpu=cpu)
    data, back = judge_both(near, far)
    supers = int(np.count_nonzero(far.lengths > LONGEST))
    print(
        f"{rate:.1f} Gbit/s, {done.holds} captures, {done.held:.1f} s held, "
        f"{done.captured} packets captured; {supers} super-packets; data {data}; back {back}"
    )
    assert supers > 0
    assert done.captured > 0
    for verdict in (data, back):
        assert verdict.packets > 0
        assert verdict.lost == verdict.doubled == verdict.unknown == 0
        if chain.steering or cpu is not None:
            assert verdict.clean


def build(netns_chain: Build, shim: str, steering: bool, cpu: int | None) -> Chain:
    chain = netns_chain(function=SHIMS[shim], steering=steering, static_neighbours=True)
    if shim == "veth" and cpu is not None:
        pin_function(chain, cpu)
    return chain


#: Without steering the path reorders by itself once two CPUs take part (test_hsl_tcp.py compares
#: how much); on one CPU it does not, and then captures must not either.
CASES = [
    ("kernel", True, None),
    ("kernel", False, 0),
    ("kernel", False, None),
    ("veth", True, None),
    ("veth", False, 0),
]


@pytest.mark.parametrize(("shim", "steering", "cpu"), CASES)
def test_captures_keep_every_segment_in_order(
    netns_chain: Build, tmp_path: Path, shim: str, steering: bool, cpu: int | None
) -> None:
    prove(build(netns_chain, shim, steering, cpu), tmp_path, ladder(30), cpu=cpu)


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("shim", "steering", "cpu"), [*CASES, ("veth", False, None)])
def test_many_captures_keep_every_segment_in_order(
    netns_chain: Build, tmp_path: Path, shim: str, steering: bool, cpu: int | None
) -> None:
    prove(build(netns_chain, shim, steering, cpu), tmp_path, evenly(CAPTURES), cpu=cpu)
