"""The play itself: stage, traffic, holds, and what was seen of it."""

import secrets
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self

from flowferry.demo.cues import MARGIN, Cue
from flowferry.demo.traffic import Ping, Tcp, Udp
from flowferry.demo.verdict import Outcome
from flowferry.hsl import Agent, Client, HslError
from flowferry.hsl.wiring import config_for
from flowferry.testbed import Chain, Testbed
from flowferry.testbed.process import TOKEN

Function = Literal["bridge", "forwarder"]
#: Seconds between two looks at the agent.
LOOK = 0.004


class Look(NamedTuple):
    """The agent at one instant."""

    at_ns: int
    buffer_bytes: int
    captured: int
    released: int
    held_flows: int


@dataclass
class Demo:
    """A demo that runs or is over: what a live view shows and a picture is drawn from."""

    function: Function
    cues: Sequence[Cue]
    duration: float
    #: Of the testbed; others can look into it while the demo runs.
    name: str = field(default_factory=lambda: f"demo-{secrets.token_hex(3)}")
    phase: str = "building the testbed"
    #: The hold in force.
    cue: Cue | None = None
    #: Figures of the holds that are over, with `title` and `planned_ms`.
    holds: list[dict[str, Any]] = field(default_factory=list)
    looks: list[Look] = field(default_factory=list)
    udp: Udp | None = None
    tcp: Tcp | None = None
    ping: Ping | None = None
    #: CLOCK_MONOTONIC, ns, when the traffic had begun.
    began_ns: int = 0
    #: CLOCK_REALTIME minus CLOCK_MONOTONIC, seconds.
    clock_offset: float = 0.0


def play(demo: Demo, timeline: Path, told: Callable[[Demo], None] = lambda _: None) -> Outcome:
    """Play a demo from end to end; it fills `demo` as it goes, `told` hears of every step.

    Takes everything down again, also when interrupted. Raises `TestbedError`, `HslError` or
    `ProbeError` when something cannot be had; a loss is no error but the outcome's.
    """

    def enter(phase: str) -> None:
        demo.phase = phase
        told(demo)

    enter("building the testbed")
    with ExitStack() as stack:
        bed = _stage(demo)
        stack.enter_context(bed)
        config = config_for(bed)
        # With the run's mark, 'testbed down' finds the agent should this process be killed.
        agent = stack.enter_context(Agent(config, env={TOKEN: bed.owner.token}))
        client = stack.enter_context(agent.client())
        for address in (bed.hosts["h2"].ip4, bed.hosts["h2"].ip6):
            bed.run("h1", ["ping", "-c1", "-W5", address])  # neighbours get to know each other
        enter("starting the traffic")
        dropped = receive_queue_drops()
        demo.clock_offset = time.time() - time.monotonic()
        watch = stack.enter_context(_Watch(demo, agent.client()))
        demo.tcp = stack.enter_context(Tcp(bed))
        demo.ping = stack.enter_context(Ping(bed, demo.duration))
        demo.udp = stack.enter_context(Udp(bed, demo.duration, timeline))
        demo.began_ns = time.monotonic_ns()
        enter("traffic flows")
        for cue in demo.cues:
            _hold(demo, client, cue, told)
        _until(demo.began_ns, demo.duration - MARGIN / 2)
        enter("waiting for the last packets")
        ping, udp = demo.ping.finish(), demo.udp.finish()
        tcp = demo.tcp.finish()
        watch.stop()
        dropped = receive_queue_drops() - dropped
        enter("taking everything down")
        client.close()
        return Outcome(
            function=demo.function,
            shim=config.shim,
            duration=demo.duration,
            holds=demo.holds,
            udp=dict(udp),
            tcp=tcp,
            ping=ping,
            agent=agent.stop(),
            machine_dropped=dropped,
        )


def receive_queue_drops() -> int:
    """Packets that found a CPU's receive queue full since boot, in all namespaces together.

    All namespaces share these queues; a loss in them is neither the switches' nor the HSL's.
    """
    rows = Path("/proc/net/softnet_stat").read_text().splitlines()
    return sum(int(row.split()[1], 16) for row in rows)


def _stage(demo: Demo) -> Testbed | Chain:
    """A path that neither loses nor reorders by itself, on a machine that has more to do.

    Steering: without it, two CPUs reorder what one sender hands them in turn. AF_XDP ports: the
    switches' plain ones keep some 270 packets while they do not run, and drop the rest of a burst.
    Behind the veth shim they cannot be used (the kernel keeps what tc has redirected away from
    generic XDP), so that the forwarder stands between the hosts without switches.
    """
    if demo.function == "bridge":
        return Testbed(demo.name, instances=1, steering=True, ports="afxdp-nonpmd")
    return Chain(name=demo.name, function=demo.function, steering=True)


def _hold(demo: Demo, client: Client, cue: Cue, told: Callable[[Demo], None]) -> None:
    _until(demo.began_ns, cue.at)
    demo.cue, demo.phase = cue, "holding"
    number = client.hold(cue.match, sides=cue.sides)
    begun = time.monotonic_ns()
    _until(begun, cue.length / 1e3)
    demo.phase = "releasing"
    client.release(number)
    figures = client.wait(number)
    demo.cue, demo.phase = None, "traffic flows"
    demo.holds.append({**figures, "title": cue.title, "planned_ms": round(cue.length, 3)})
    told(demo)


def _until(since_ns: int, seconds: float) -> None:
    """Wait for an instant of the plan."""
    while (left := seconds - (time.monotonic_ns() - since_ns) / 1e9) > 0:
        time.sleep(left)


class _Watch:
    """Looks at the agent all the time, in a thread with a connection of its own."""

    def __init__(self, demo: Demo, client: Client) -> None:
        self._demo, self._client = demo, client
        self._halt = threading.Event()
        self._thread = threading.Thread(target=self._look, name="watch")

    def _look(self) -> None:
        with self._client as client:
            while not self._halt.wait(LOOK):
                try:
                    found = client.status()
                except HslError:
                    return  # whoever holds and releases hears the same, and says it
                sides = [side for side in found["counters"].values() if side]
                self._demo.looks.append(
                    Look(
                        time.monotonic_ns(),
                        found["buffer"]["used"],
                        sum(side["captured"] for side in sides),
                        sum(side["released"] for side in sides),
                        found["flows"]["held"],
                    )
                )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def stop(self) -> None:
        self._halt.set()
        self._thread.join()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
