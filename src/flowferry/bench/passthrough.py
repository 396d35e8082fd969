"""What an idle handover layer costs: the same path with it and without it, in turn.

Kernel shim: a Linux bridge joins the instance's two interfaces; the shim's programs are on their
ingress, or taken off. Veth shim: the packet-socket forwarder sits behind inner veth pairs; the
shim's programs join outer and inner interfaces, or a plain bridge in the kernel does. The same
forwarder directly on the outer interfaces, with no inner pair at all, is shown beside it: that
difference is the price of the pair, not of the layer.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

from flowferry.bench import traffic
from flowferry.bench.arms import Arm, attached, bridged, say, take_turns
from flowferry.bench.report import Case, Goal, Report
from flowferry.bench.settings import Settings
from flowferry.hsl import Client
from flowferry.testbed import Chain

TITLE = "An idle handover layer against the same path without it"
KERNEL_GOAL = Goal(0.97)
VETH_GOAL = Goal(0.93)

ATTACHED, DETACHED, BRIDGED, DIRECT = "attached", "detached", "plain bridge", "no inner pair"


@dataclass(frozen=True)
class Load:
    """One kind of traffic: its name, its unit, and how it is measured."""

    name: str
    title: str
    unit: str
    offloads: bool
    measure: Callable[[Chain, float], float]
    #: Whether the goal is judged on it, or it only checks another tool's figure.
    judged: bool = True


LOADS = (
    Load("tcp", "TCP, offloads on", "Gbit/s", True, lambda c, s: traffic.tcp(c, s).gbits),
    Load("tcp-plain", "TCP, offloads off", "Gbit/s", False, lambda c, s: traffic.tcp(c, s).gbits),
    Load("udp", "64-byte UDP frames", "packets/s", True, lambda c, s: traffic.udp(c, s).rate),
    Load("udp-iperf", "64-byte UDP by iperf3", "packets/s", True, traffic.iperf_udp, judged=False),
)


def run(settings: Settings) -> Report:
    """Both shims under every load; the settings choose."""
    report = Report("passthrough", TITLE, settings.to_dict())
    for shim in ("kernel", "veth"):
        for load in LOADS:
            if settings.wants(f"{shim}-{load.name}"):
                report.cases += _cases(shim, load, settings)
    return report


def _cases(shim: str, load: Load, settings: Settings) -> Iterator[Case]:
    name = f"{shim}-{load.name}"
    say(f"passthrough: {name}")
    with ExitStack() as stack:
        chain = partial(Chain, offloads=load.offloads, static_neighbours=True)
        if shim == "kernel":
            main = stack.enter_context(chain(function="bridge"))
            arms = [Arm(DETACHED, main), Arm(ATTACHED, main, partial(attached, main))]
        else:
            main = stack.enter_context(chain(function="forwarder"))
            bare = stack.enter_context(chain(function="forwarder-direct"))
            arms = [
                Arm(BRIDGED, main, partial(bridged, main)),
                Arm(ATTACHED, main, partial(attached, main)),
                Arm(DIRECT, bare),
            ]
        for each in {id(arm.chain): arm.chain for arm in arms}.values():
            stack.enter_context(traffic.iperf_server(each))

        def measure(arm: Arm, client: Client | None) -> float:
            return load.measure(arm.chain, settings.seconds)

        samples = take_turns(arms, settings.passes, measure)
    goal = (KERNEL_GOAL if shim == "kernel" else VETH_GOAL) if load.judged else None
    title = f"{shim} shim: {load.title}"
    baseline = arms[0].name
    both = {arm: samples[arm] for arm in (baseline, ATTACHED)}
    yield Case(name, title, load.unit, baseline, ATTACHED, both, goal)
    if DIRECT in samples:
        beside = {arm: samples[arm] for arm in (DIRECT, ATTACHED)}
        yield Case(f"{name}-direct", f"{title}, no pair", load.unit, DIRECT, ATTACHED, beside)
