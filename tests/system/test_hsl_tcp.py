"""TCP at full speed does not notice captures: no more reordering or spurious retransmission than
without them, and (nearly) the same throughput.

Runs with and without captures alternate. The counters are the sender's own: `TcpExtTCPSACKReorder`
(the receiver's acknowledgements show reordering) and `TcpExtTCPDSACKRecv` (the receiver got
something twice). Captures take 3 % of a run.

Tail loss probes are off: a sender that has heard nothing for some milliseconds sends its last
segment once more, and the receiver then has it twice, whatever kept the sender waiting (RFC 8985).
docs/benchmarks.md says how often.

Behind the veth shim without steering the function is kept on one CPU: a forwarder that moves
reorders by itself.
"""

import json
import random
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hsl_rig import SHIMS, attached, pin_function
from numbered import until

from flowferry.hsl import Client
from flowferry.testbed.bare import Chain
from soak import TCP_PAIRS

Build = Callable[..., Chain]

SECONDS = 2.0
COUNTERS = ("TcpExtTCPSACKReorder", "TcpExtTCPDSACKRecv")
#: Milliseconds: 3 % of the run.
HOLDS = (1, 2, 4, 8, 15, 30)


@dataclass
class Run:
    """What one transfer did."""

    gigabits: float
    reordered: int
    doubled: int
    captured: int = 0

    @property
    def disorder(self) -> int:
        """Both counters of the sender, added up."""
        return self.reordered + self.doubled


def counters(chain: Chain) -> tuple[int, int]:
    """The sender's `COUNTERS`: reordered, doubled."""
    listed = chain.run("h1", ["nstat", "-asz", *COUNTERS]).stdout.splitlines()
    values = dict(line.split()[:2] for line in listed if line.startswith(COUNTERS))
    reordered, doubled = (int(values[name]) for name in COUNTERS)
    return reordered, doubled


def transfer(chain: Chain, client: Client, *, captures: bool) -> Run:
    """One bulk transfer, with or without captures."""
    before = counters(chain)
    server = chain.popen("h2", ["iperf3", "-s", "-1"], stdout=subprocess.DEVNULL)
    listening = ["ss", "-Hltn", "sport = :5201"]
    until(lambda: bool(chain.run("h2", listening).stdout), "iperf3 listens")
    command = ["iperf3", "-c", chain.hosts["h2"].ip4, "-t", str(SECONDS), "-J"]
    source = chain.popen("h1", command, stdout=subprocess.PIPE, text=True)
    captured = hold_now_and_then(client) if captures else 0
    output, _ = source.communicate(timeout=30)
    server.wait(timeout=30)
    result = json.loads(output)
    assert source.returncode == 0, result.get("error")
    bits = result["end"]["sum_received"]["bits_per_second"]
    reordered, doubled = (b - a for a, b in zip(before, counters(chain), strict=True))
    return Run(bits / 1e9, reordered, doubled, captured)


def hold_now_and_then(client: Client) -> int:
    """The captures of one run, spread over it; how many packets they took."""
    captured = 0
    began = time.monotonic()
    for number, milliseconds in enumerate(HOLDS, start=1):
        due = began + number * SECONDS / (len(HOLDS) + 1)
        time.sleep(max(0.0, due - time.monotonic()))  # the schedule of the experiment
        hold = client.hold("tcp")
        time.sleep(milliseconds / 1e3)  # the length of the capture
        client.release(hold)
        ended = client.wait(hold)
        assert ended["state"] == "done"
        assert ended["lost_packets"] == 0
        captured += ended["captured_packets"]
    return captured


def pairs(chain: Chain, number: int) -> tuple[list[Run], list[Run]]:
    """Alternating runs: without captures, with captures."""
    plain: list[Run] = []
    held: list[Run] = []
    with attached(chain) as client:
        for pair in range(number):
            for captures in (False, True) if pair % 2 else (True, False):
                (held if captures else plain).append(transfer(chain, client, captures=captures))
        assert client.status()["lost_packets"] == 0
    ratio = statistics.median(h.gigabits / p.gigabits for h, p in zip(held, plain, strict=True))
    print(
        f"{number} pairs: {statistics.median(p.gigabits for p in plain):.1f} Gbit/s without"
        f" captures, ratio {ratio:.3f}; {sum(p.reordered for p in plain)} reordered and"
        f" {sum(p.doubled for p in plain)} doubled without, {sum(h.reordered for h in held)} and"
        f" {sum(h.doubled for h in held)} with; {sum(h.captured for h in held)} captured; chance of"
        f" as much more {chance_of_more(plain, held):.2f}"
    )
    return plain, held


def chance_of_more(plain: list[Run], held: list[Run], trials: int = 20_000) -> float:
    """How often chance alone gives captures at least this surplus of disorder (permutation test).

    Within each pair the two runs are exchanged at random; seeded, so that it is repeatable.
    """
    surplus = [h.disorder - p.disorder for h, p in zip(held, plain, strict=True)]
    chance = random.Random(1)
    seen = sum(surplus)
    as_much = sum(
        sum(each if chance.random() < 0.5 else -each for each in surplus) >= seen
        for _ in range(trials)
    )
    return as_much / trials


def build(netns_chain: Build, shim: str, steering: bool) -> Chain:
    chain = netns_chain(function=SHIMS[shim], steering=steering, static_neighbours=True)
    chain.run("h1", ["sysctl", "-qw", "net.ipv4.tcp_early_retrans=0"])
    if shim == "veth" and not steering:
        pin_function(chain, 1)
    return chain


STEERING = pytest.mark.parametrize("steering", [True, False], ids=["steered", "unsteered"])


@STEERING
def test_a_transfer_survives_captures(netns_chain: Build, steering: bool) -> None:
    _, held = pairs(build(netns_chain, "kernel", steering), 2)
    assert sum(run.captured for run in held) > 0


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("shim", SHIMS)
@STEERING
def test_captures_add_no_disorder_and_cost_no_throughput(
    netns_chain: Build, shim: str, steering: bool
) -> None:
    plain, held = pairs(build(netns_chain, shim, steering), TCP_PAIRS)
    assert sum(run.captured for run in held) > 0
    assert chance_of_more(plain, held) > 0.05
    ratios = [h.gigabits / p.gigabits for h, p in zip(held, plain, strict=True)]
    assert statistics.median(ratios) >= 0.9


def test_the_permutation_test_sees_added_disorder() -> None:
    noise = random.Random(2)
    plain = [Run(1, noise.randrange(10), 0) for _ in range(30)]
    same = [Run(1, noise.randrange(10), 0) for _ in range(30)]
    worse = [Run(1, noise.randrange(10) + 3, 0) for _ in range(30)]
    assert chance_of_more(plain, same) > 0.05
    assert chance_of_more(plain, worse) < 0.05
