"""Capture and release without a pause: what comes through, and is every packet accounted for?

h1 and h2 with a Linux bridge between them, no switch; bridge netfilter is off there. With capture,
a hold of everything begins, is released (UDP: after 1 ms), and the next one begins, for as long as
traffic runs. Packets that arrive while a release is under way are captured as well, since earlier
ones are outstanding, so that practically every packet takes the way through the agent; the share
that did is measured. The agent is made to sleep 20 ms twice a second while packets are captured.

Three kinds of traffic: small UDP packets as fast as the sender can, where the queue to the agent
overflows in the end and the loss is counted; small UDP packets at a little more than half the rate
that the path carried without capture just before, where nothing may be lost and which the goal is
judged on; and TCP with offloads.

Every packet sent must be received, or be in one counter of loss: the queue to the agent was full,
the agent gave it up, a device or the receiver's socket had no room.
"""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from flowferry.bench import traffic
from flowferry.bench.arms import Arm, attached, say, take_turns
from flowferry.bench.report import Case, Goal, Report
from flowferry.bench.settings import Settings
from flowferry.hsl import Client
from flowferry.testbed import Chain, namespace

TITLE = "Capture and release without a pause against the same path without capture"
UDP_GOAL = Goal(0.5)
TCP_GOAL = Goal(5.0, "value")

#: Seconds that a hold lasts, and until the next one begins. While small packets keep coming, all
#: are captured in the gap, too. A queue of super-packets is written at once, and the flow would be
#: on the fast path for the rest of the gap; and a held connection soon has nothing more to send.
UDP_HOLD, UDP_GAP = 0.001, 0.009
TCP_HOLD, TCP_GAP = 0.0, 0.0
STALL_MS = 20
#: Share of the rate without capture that is offered where nothing may be lost; above the goal, so
#: that the pacing's own inaccuracy does not decide.
PACED_AT = 0.52

PLAIN, CAPTURED, PACED = "without capture", "captured", "captured, paced"
DEVICES = {"h1": ("eth0",), "nf": ("up", "down"), "h2": ("eth0",)}


def run(settings: Settings) -> Report:
    """Both kinds of traffic; the settings choose."""
    told = {**settings.to_dict(), "stall_ms": STALL_MS, "paced_at": PACED_AT}
    report = Report("capture", TITLE, told)
    for name, cases in (("udp", _udp), ("tcp", _tcp)):
        if settings.wants(name):
            say(f"capture: {name}")
            report.cases += cases(settings)
    return report


@contextmanager
def _chain() -> Iterator[tuple[Chain, Callable[[], Any]]]:
    with Chain(function="bridge", static_neighbours=True) as chain, traffic.iperf_server(chain):
        yield chain, partial(attached, chain, cpu=traffic.RECEIVE_CPU, stall_ms=STALL_MS)


@dataclass
class Ledger:
    """Counts of one arm, summed over its measurements."""

    counts: Counter[str] = field(default_factory=Counter)

    @contextmanager
    def of(self, chain: Chain, client: Client, hold: float, gap: float) -> Iterator[None]:
        """Hold and release for the length of the block, and count what happens in it."""
        before = _snapshot(chain, client)
        with _holding(client, hold, gap):
            yield
        self.counts.update(_snapshot(chain, client))
        self.counts.subtract(before)

    def add(self, seen: traffic.Packets) -> None:
        """What the probe saw of it."""
        self.counts.update(
            sent=seen.sent,
            received=seen.received,
            reordered=seen.reordered,
            duplicated=seen.duplicated,
            lost_at_socket=seen.sink_dropped,
        )

    def summary(self) -> dict[str, float]:
        """All counts, with what is missing from the account, and the share that was captured."""
        counts = dict(self.counts)
        lost = sum(value for name, value in counts.items() if name.startswith("lost_"))
        passed = counts.pop("passed")
        result: dict[str, float] = dict(counts)
        if "sent" in counts:
            result["lost"] = lost
            result["unaccounted"] = counts["sent"] - counts["received"] - lost
        result["share_captured"] = counts["released"] / passed if passed else 0.0
        return result


def _udp(settings: Settings) -> Iterator[Case]:
    with _chain() as (chain, agent):
        arms = [Arm(PLAIN, chain), Arm(CAPTURED, chain, agent), Arm(PACED, chain, agent)]
        ledgers = {CAPTURED: Ledger(), PACED: Ledger()}
        plain = 0.0

        def measure(arm: Arm, client: Client | None) -> float:
            nonlocal plain
            if client is None:
                plain = traffic.udp(chain, settings.seconds).rate
                return plain
            rate = plain * PACED_AT if arm.name == PACED else None
            with ledgers[arm.name].of(chain, client, UDP_HOLD, UDP_GAP):
                seen = traffic.udp(chain, settings.seconds, rate=rate)
            ledgers[arm.name].add(seen)
            return seen.rate

        samples = take_turns(arms, settings.passes, measure)
    right = ("unaccounted", "reordered", "duplicated")
    for name, title, arm, zero in (
        ("udp", "64-byte UDP frames, unpaced", CAPTURED, right),
        ("udp-paced", "64-byte UDP frames, paced", PACED, ("lost", *right)),
    ):
        both = {PLAIN: samples[PLAIN], arm: samples[arm]}
        counts = ledgers[arm].summary()
        goal = UDP_GOAL if arm == PACED else None
        yield Case(name, title, "packets/s", PLAIN, arm, both, goal, counts, zero)


def _tcp(settings: Settings) -> Iterator[Case]:
    with _chain() as (chain, agent):
        arms = [Arm(PLAIN, chain), Arm(CAPTURED, chain, agent)]
        ledger = Ledger()

        def measure(arm: Arm, client: Client | None) -> float:
            with ExitStack() as stack:
                if client is not None:
                    stack.enter_context(ledger.of(chain, client, TCP_HOLD, TCP_GAP))
                seen = traffic.tcp(chain, settings.seconds)
            where = "retransmits" if client is not None else "retransmits_without"
            ledger.counts[where] += seen.retransmits
            return seen.gbits

        samples = take_turns(arms, settings.passes, measure)
    counts = ledger.summary()
    zero = ("lost_hsl", "lost_device", "missing")
    counts["missing"] = counts["captured"] - counts["released"]
    yield Case(
        "tcp", "TCP with offloads", "Gbit/s", PLAIN, CAPTURED, samples, TCP_GOAL, counts, zero
    )


@contextmanager
def _holding(client: Client, seconds: float, gap: float) -> Iterator[None]:
    """Hold everything and let it go, over and over; at the end everything is let go."""
    stop = threading.Event()
    failure: list[BaseException] = []

    def work() -> None:
        try:
            while not stop.is_set():
                client.forget_ended()
                hold = client.hold("*")
                stop.wait(seconds)
                client.release(hold)
                stop.wait(gap)
            client.wait(hold)
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=work, name="holds")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    if failure:
        raise failure[0]


def _snapshot(chain: Chain, client: Client) -> dict[str, int]:
    status = client.status()
    sides = [side for side in status["counters"].values() if side]
    upstream = status["counters"]["upstream"]
    flows = client.flows(limit=1_000_000)
    return {
        "captured": upstream["captured"],
        "released": upstream["released"],
        "passed": sum(flow["packets"] for flow in flows if flow["side"] == "upstream"),
        "failed_open": sum(side["failed_open"] for side in sides),
        "overflowed": sum(side["overflowed"] for side in sides),
        "lost_hsl": status["lost_packets"],
        "lost_device": _dropped(chain),
    }


def _dropped(chain: Chain) -> int:
    """Packets that devices on the way had no room for (the TAPs count theirs themselves)."""
    return sum(
        int(stats[direction])
        for role, devices in DEVICES.items()
        for stats in namespace.configure(chain.namespaces[role], partial(_stats, devices=devices))
        for direction in ("rx_dropped", "tx_dropped")
    )


def _stats(ipr: Any, devices: tuple[str, ...]) -> list[Any]:
    return [
        link.get_attr("IFLA_STATS64")
        for link in ipr.get_links()
        if link.get_attr("IFLA_IFNAME") in devices
    ]
