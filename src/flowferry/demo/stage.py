"""The play itself: stage, traffic, moves, and what was seen of it."""

import secrets
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from flowferry.controller import Client as Controller
from flowferry.controller import Platform
from flowferry.demo.cues import Cue
from flowferry.demo.session import Session
from flowferry.demo.spots import spots
from flowferry.demo.state import State
from flowferry.demo.traffic import Ping, Tcp, Udp
from flowferry.demo.verdict import Outcome
from flowferry.hsl import Client, HslError
from flowferry.probe import read_timeline
from flowferry.testbed import Testbed

#: Seconds between two looks at the agents.
LOOK = 0.005
#: Seconds before the first move and after the last one: what the path does by itself.
MARGIN = 1.0
#: Seconds between two moves.
PAUSE = 0.2
#: Seconds that a move may take before the demo gives it up.
PATIENCE = 30.0
#: Milliseconds that a move waits for what nobody has heard of.
SETTLING = 500
#: Packets a second of a release: about twice what the flows bring, and fewer in ten milliseconds
#: than a switch that waits for a CPU keeps at a port.
RELEASE_RATE = 15_000
#: Milliseconds for a step, such a release included.
DEADLINE = 10_000


class Look(NamedTuple):
    """The agents at one instant."""

    at_ns: int
    #: Bytes kept, by instance.
    buffers: Mapping[str, int]
    #: The longest that a UDP packet took from host to host, of those since the last look, ms.
    udp_ms: float


@dataclass
class Demo:
    """A demo that runs or is over: what a live view shows and a picture is drawn from."""

    function: str
    cues: Sequence[Cue]
    #: Of the testbed; others can look into it while the demo runs.
    name: str = field(default_factory=lambda: f"demo-{secrets.token_hex(3)}")
    phase: str = "building the testbed"
    #: The move under way.
    cue: Cue | None = None
    #: Handovers that are over, with `title`, `to`, `state_bytes`, `state_arrived`, and `asked_ns`
    #: and `over_ns` (CLOCK_MONOTONIC).
    moves: list[dict[str, Any]] = field(default_factory=list)
    #: Where each scene's traffic is, by its title.
    places: dict[str, str] = field(default_factory=dict)
    looks: list[Look] = field(default_factory=list)
    udp: Udp | None = None
    tcp: Tcp | None = None
    session: Session | None = None
    ping: Ping | None = None
    #: CLOCK_MONOTONIC, ns, when the traffic had begun, and when it was over.
    began_ns: int = 0
    over_ns: int = 0
    #: CLOCK_REALTIME minus CLOCK_MONOTONIC, seconds.
    clock_offset: float = 0.0

    @property
    def longest(self) -> float:
        """Seconds that the traffic can last at most."""
        return 2 * MARGIN + len(self.cues) * (PATIENCE + PAUSE)


def play(demo: Demo, scratch: Path, told: Callable[[Demo], None] = lambda _: None) -> Outcome:
    """Play a demo from end to end; it fills `demo` as it goes, `told` hears of every step.

    `scratch` is an empty directory. Takes everything down again, also when interrupted. Raises
    `TestbedError`, `HslError`, `ControllerError` or `ProbeError` when something cannot be had; a
    loss is no error but the outcome's.
    """

    def enter(phase: str) -> None:
        demo.phase = phase
        told(demo)

    enter("building the testbed")
    with ExitStack() as stack:
        # AF_XDP ports: the plain ones keep some 270 packets while the switches do not run, and
        # drop the rest of a burst. Steering: without it two CPUs reorder by themselves.
        bed = stack.enter_context(
            Testbed(
                demo.name,
                instances=2,
                function=demo.function,
                steering=True,
                ports="afxdp-nonpmd" if demo.function == "bridge" else "system",
            )
        )
        enter("starting controller and agents")
        platform = stack.enter_context(
            Platform(
                bed,
                settling_ms=SETTLING,
                deadline_ms=DEADLINE,
                function_sockets=True,
                agent={"release_rate": RELEASE_RATE},
            )
        )
        controller = platform.client
        key = platform.keys[0]
        state = stack.enter_context(State(bed, scratch, key.id, Path(key.file)))
        for address in (bed.hosts["h2"].ip4, bed.hosts["h2"].ip6):
            bed.run("h1", ["ping", "-c1", "-W5", address])  # neighbours get to know each other
        enter("starting the traffic")
        dropped = receive_queue_drops()
        demo.clock_offset = time.time() - time.monotonic()
        clients = {name: agent.client() for name, agent in platform.agents.items()}
        watch = stack.enter_context(_Watch(demo, clients))
        demo.tcp = stack.enter_context(Tcp(bed))
        demo.session = stack.enter_context(Session(bed))
        demo.ping = stack.enter_context(Ping(bed))
        demo.udp = stack.enter_context(Udp(bed, demo.longest, scratch / "timeline"))
        demo.began_ns = time.monotonic_ns()
        demo.places = dict.fromkeys((cue.scene.title for cue in demo.cues), bed.instances[0].name)
        enter("traffic flows")
        _rest(MARGIN)
        for cue in demo.cues:
            if not _move(demo, controller, state, cue, told):
                break
            _rest(PAUSE)
        _rest(MARGIN)
        enter("waiting for the last packets")
        udp = demo.udp.finish()
        ping, session, tcp = demo.ping.finish(), demo.session.finish(), demo.tcp.finish()
        demo.over_ns = time.monotonic_ns()
        watch.stop()
        dropped = receive_queue_drops() - dropped
        agents = {name: agent.client().status() for name, agent in platform.agents.items()}
        where = spots(
            read_timeline(demo.udp.timeline),
            {flow["flow"]: flow["sent"] for flow in udp["per_flow"]},
            demo.moves,
            demo.began_ns,
            demo.over_ns,
        )
        enter("taking everything down")
        return Outcome(
            function=demo.function,
            duration=(demo.over_ns - demo.began_ns) / 1e9,
            moves=demo.moves,
            planned=len(demo.cues),
            udp=dict(udp),
            tcp=tcp,
            session=session,
            ping=ping,
            agents=agents,
            machine_dropped=dropped,
            spots=where,
        )


def receive_queue_drops() -> int:
    """Packets that found a CPU's receive queue full since boot, in all namespaces together.

    All namespaces share these queues; a loss in them is neither the switches' nor the HSL's.
    """
    rows = Path("/proc/net/softnet_stat").read_text().splitlines()
    return sum(int(row.split()[1], 16) for row in rows)


def _move(
    demo: Demo,
    controller: Controller,
    state: State,
    cue: Cue,
    told: Callable[[Demo], None],
) -> bool:
    """Do one move; whether the play can go on."""
    demo.cue, demo.phase = cue, "moving"
    told(demo)
    state.announce(cue.state)
    asked = time.monotonic_ns()
    scene = cue.scene
    if cue.to is None:
        rule = next(r for r in controller.rules() if r["priority"] == scene.priority)
        done = controller.remove_rule(rule["id"], wait=True, timeout=PATIENCE)
    else:
        done = controller.move(
            scene.match, cue.to, priority=scene.priority, wait=True, timeout=PATIENCE
        )
    demo.cue, demo.phase = None, "traffic flows"
    demo.places[scene.title] = cue.to or "home"
    demo.moves.append(
        {
            **done,
            "title": cue.title,
            "state_bytes": cue.state,
            "state_arrived": state.arrived(done["id"], cue.state),
            "asked_ns": asked,
            "over_ns": time.monotonic_ns(),
        }
    )
    told(demo)
    return bool(done["state"] == "done")


def _rest(seconds: float) -> None:
    """Let the traffic flow: part of the plan, not a protocol step."""
    time.sleep(seconds)


class _Watch:
    """Looks at the agents all the time, in a thread with connections of its own."""

    def __init__(self, demo: Demo, clients: Mapping[str, Client]) -> None:
        self._demo, self._clients = demo, clients
        self._halt = threading.Event()
        self._thread = threading.Thread(target=self._look, name="watch")

    def _look(self) -> None:
        while not self._halt.wait(LOOK):
            try:
                used = {
                    name: int(client.status()["buffer"]["used"])
                    for name, client in self._clients.items()
                }
            except HslError:
                return  # whoever moves hears the same, and says it
            slowest = 0.0 if self._demo.udp is None else self._demo.udp.slowest()
            self._demo.looks.append(Look(time.monotonic_ns(), used, slowest))

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
        _close(self._clients.values())


def _close(clients: Iterable[Client]) -> None:
    for client in clients:
        client.close()
