"""One cell of the crash grid: a handover under traffic, in which something goes wrong."""

import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from handover_rig import TIME_TO_DRAIN, Echo, Function
from hsl_pcap import until
from softnet import dropped_on_the_way

from flowferry.controller import Client, ControllerError, Platform
from flowferry.hsl import HslError
from flowferry.testbed import Testbed
from handover_missing import WAYS, by_way, unexplained
from handover_rows import CONTROLLER, DESTINATION, SOURCE

#: Of the agents' heartbeat, and of the settling, in milliseconds: short, so that the cells are.
TIMEOUT_MS, SETTLING_MS = 300, 300
#: Agents finish alone after three settling times; a controller is back before.
PATIENT_MS = 1000
FLOWS, RATE = 10, 1000
OVER = ("done", "aborted", "failed")
#: Seconds in which a handover has to end, whatever goes wrong.
PATIENCE = 30.0


@dataclass(frozen=True)
class Play:
    """What happens in a cell besides the fault."""

    #: What a user and the functions do.
    act: "Callable[[Cell], None]"
    #: Steps that functions hold back, by instance.
    holds: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    #: Whether functions say that new flows need not wait for the others' state.
    new_flows: bool = False


def forward(cell: "Cell") -> None:
    """A move that goes well."""
    cell.move()
    cell.reaches("moving", *OVER)
    cell.let_functions_go()


def called_off(cell: "Cell") -> None:
    """Called off while the state is on its way."""
    cell.move()
    if cell.awaits("export") and cell.reaches("moving", *OVER):
        cell.call_off()
    cell.reaches(*OVER)
    cell.let_functions_go()


def not_taken(cell: "Cell") -> None:
    """The destination cannot be prepared: another hold is in the way there."""
    with cell.platform.agents[DESTINATION].client() as client:
        hold = client.hold("udp,tp_src=9")
        cell.move()
        cell.reaches(*OVER)
        with suppress(HslError):
            client.release(hold)


def refused(cell: "Cell") -> None:
    """A switch refuses the entry."""
    bed = cell.bed
    vsctl = ["ovs-vsctl", f"--db={bed.ovs_of('egress').database}"]
    limit = ["--id=@t", "create", "Flow_Table", "flow_limit=1", "overflow_policy=refuse"]
    words = [*limit, "--", "set", "Bridge", "egress", "flow_tables:11=@t"]
    bed.owner.run(None, [*vsctl, "--", *words])
    cell.move()
    cell.reaches(*OVER, whatever=True)
    bed.owner.run(None, [*vsctl, "clear", "Bridge", "egress", "flow_tables"])


PLAYS = {
    "forward": Play(forward, {DESTINATION: ("import",)}),
    "called_off": Play(called_off, {SOURCE: ("export",)}),
    "not_taken": Play(not_taken),
    "refused": Play(refused),
}


class Fault(Protocol):
    """Something that befalls neither controller nor agents, but what they rely on."""

    #: Packets each second, and packets that it lasts for.
    rate: int
    lasts: int
    #: Whether agents must not finish alone meanwhile.
    patient: bool

    def prepare(self, cell: "Cell", stack: ExitStack) -> None:
        """Before there is traffic; whatever is entered into `stack` ends behind it."""

    def begin(self, cell: "Cell") -> None:
        """While the controller stands still at a step."""

    def end(self, cell: "Cell") -> None:
        """All is well again."""


class Cell:
    """A deployment of two instances with functions at their control channels, and echoed traffic.

    `victim` dies or stops at its failpoint, `row:kill` or `row:stop`, or, without a row, when the
    play says `hit`; `strike` notices. With a `fault` it is that which happens where the controller
    stops; see `befall`.
    """

    def __init__(
        self,
        bed: Testbed,
        victim: str | None,
        failpoint: str | None,
        play: Play,
        fault: Fault | None = None,
        settling_ms: int | None = None,
    ) -> None:
        """Start nothing yet."""
        waits = victim == CONTROLLER and fault is None
        if settling_ms is None:
            patient = waits or (fault is not None and fault.patient)
            settling_ms = PATIENT_MS if patient else SETTLING_MS
        self._fault = fault
        self._player = ThreadPoolExecutor(1)
        self._played: Future[None] | None = None
        self.bed, self.victim, self.failpoint = bed, victim, failpoint
        self._own: dict[str, dict[str, Any]] = {one.name: {} for one in bed.instances}
        fields: dict[str, Any] = {}
        if self.row and victim == CONTROLLER:
            fields["failpoint"] = failpoint
        elif self.row and victim is not None:
            self._own[victim]["failpoint"] = failpoint
        self.platform = Platform(
            bed,
            function_sockets=True,
            agent=TIME_TO_DRAIN | ({"heartbeat_timeout_ms": TIMEOUT_MS} if fault is None else {}),
            agents=self._own,
            settling_ms=settling_ms,
            deadline_ms=2000,
            heartbeat_ms=200,
            **fields,
        )
        self._stack = ExitStack()
        self.play = play
        self.functions: dict[str, Function] = {}
        # What gathers until a controller is back goes in one burst; a port takes some hundreds.
        self.rate = fault.rate if fault is not None else RATE // 4 if waits else RATE
        self.echo = Echo(bed, flows=FLOWS, rate=self.rate)
        #: Packets lost by the agents' account, and whether none may be (`None`: the fault knows).
        self.counted: int = 0
        #: Packets that full queues have cost between hosts, of anybody's, by their way.
        self.dropped = dict.fromkeys(WAYS, 0)
        self.exact: bool | None = True

    def __enter__(self) -> Self:
        try:
            self._stack.enter_context(self.platform)
            for name in (SOURCE, DESTINATION):
                self._join(name, self.play.holds.get(name, ()))
            self.bed.run("h1", ["ping", "-c1", "-W5", self.bed.hosts["h2"].ip4])
            if self._fault is not None:
                self._fault.prepare(self, self._stack)
            before = dropped_on_the_way(self.bed)
            self._stack.callback(self._account, before)
            self._stack.enter_context(self.echo)
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._player.shutdown(wait=error is None)
        self._stack.__exit__(kind, error, trace)

    def _join(self, name: str, holds: tuple[str, ...]) -> None:
        path = self.bed.owner.directory / f"fn-{name}.sock"
        function = Function(path, holds=holds, new_flows=self.play.new_flows)
        self.functions[name] = self._stack.enter_context(function)

    @property
    def row(self) -> str:
        """Where the victim dies or stops; empty if there is none."""
        return (self.failpoint or "").partition(":")[0]

    @property
    def client(self) -> Client:
        return self.platform.client

    def move(self) -> None:
        """Ask for the move; the controller may die of it."""
        with suppress(ControllerError, OSError):
            self.client.move("udp", DESTINATION)

    def act(self) -> None:
        """Begin what the play says; beside us, since a request may hang at one that has stopped."""
        self._played = self._player.submit(self.play.act, self)

    def finish(self) -> None:
        """Wait for the end of the play."""
        assert self._played is not None
        self._played.result(2 * PATIENCE)
        self.let_functions_go()

    def reaches(self, *states: str, whatever: bool = False) -> bool:
        """Wait until the handover is in one of these states; false if the fault came first.

        `whatever`: the fault is no reason not to wait.
        """
        reached = False

        def there() -> bool:
            nonlocal reached
            with suppress(ControllerError, OSError):
                reached = self.client.handover(1)["state"] in states
            return reached or (not whatever and (self.struck() or self.hears("aborted")))

        until(there, f"{states}, or {self.failpoint}", seconds=PATIENCE)
        return reached

    def hears(self, event: str, name: str = SOURCE) -> bool:
        """Whether an instance's function has heard of a step."""
        return event in self.functions[name].names()

    def awaits(self, event: str, name: str = SOURCE) -> bool:
        """Wait until a function hears of a step; false if the fault came first."""
        until(lambda: self.hears(event, name) or self.struck(), f"{event}, or {self.failpoint}")
        return self.hears(event, name)

    def call_off(self) -> None:
        """Ask for an end, if there is anybody to ask; the answer may wait for the fault's end."""

        def ask() -> None:
            with suppress(ControllerError, OSError):  # too late, or the controller is the victim
                self.client.abort(1)

        threading.Thread(target=ask, name="call off", daemon=True).start()

    def let_functions_go(self) -> None:
        """Functions answer whatever they have held back."""
        for function in self.functions.values():
            with suppress(OSError):
                function.go()

    # -- the fault -----------------------------------------------------------------------------

    @property
    def _process(self) -> Any:
        if self.victim == CONTROLLER:
            return self.platform.controller.process
        assert self.victim is not None
        return self.platform.agents[self.victim].process

    def struck(self) -> bool:
        """Whether the victim has died or stopped."""
        if self.victim is None:
            return False
        if self._process.poll() is not None:
            return True
        with suppress(OSError):
            return Path(f"/proc/{self._process.pid}/stat").read_text().split()[2] == "T"
        return True

    def hit(self) -> None:
        """Let the victim die or stop now."""
        assert self.failpoint is not None
        how = signal.SIGKILL if self.failpoint.endswith(":kill") else signal.SIGSTOP
        os.kill(self._process.pid, how)

    def strike(self, away_ms: int = 100) -> None:
        """Wait until the fault has struck, let traffic go on, and bring the victim back.

        `away_ms`: for so long a victim is dead before it is started again.
        """
        until(self.struck, f"{self.failpoint} at {self.victim}", seconds=15)
        # The play may be waiting for an answer of a controller that stands still.
        self.let_functions_go()
        assert self.failpoint is not None
        if self.failpoint.endswith(":stop"):
            # The fault: longer than the heartbeat's time-out.
            self.send(2 * self.rate * TIMEOUT_MS // 1000)
            os.kill(self._process.pid, signal.SIGCONT)
            return
        self._process.wait(10)
        self.send(self.rate * away_ms // 1000)
        self.revive()

    def revive(self) -> None:
        """Start the victim again, without a failpoint."""
        if self.victim == CONTROLLER:
            daemon = self.platform.controller
            told = daemon.config.read_text().splitlines(keepends=True)
            daemon.config.write_text("".join(t for t in told if not t.startswith("failpoint:")))
            daemon.restart()
            until(lambda: all(s["ready"] for s in self.client.switches()), "the switches")
        else:
            assert self.victim is not None
            self._own[self.victim].pop("failpoint", None)
            self.platform.start_agent(self.victim)
            self._join(self.victim, ())

    def befall(self) -> None:
        """Let the fault begin where the controller stops, last while packets are sent, and end."""
        fault = self._fault
        assert fault is not None
        until(self.struck, f"{self.failpoint} at {self.victim}", seconds=15)
        fault.begin(self)
        os.kill(self._process.pid, signal.SIGCONT)
        self.send(fault.lasts)
        fault.end(self)

    # -- afterwards ----------------------------------------------------------------------------

    def more(self, packets: int) -> None:
        """Let traffic flow for a while, as far as it does."""
        so_far = self.echo.arrived.packets
        until(lambda: self.echo.arrived.packets >= so_far + packets, "traffic", seconds=20)

    def send(self, packets: int) -> None:
        """Let h1 send for a while, wherever it goes."""
        enough = self.echo.sent_packets + packets
        until(lambda: self.echo.sent_packets >= enough, "traffic", seconds=20)

    def over(self) -> list[dict[str, Any]]:
        """All handovers, once they are over."""

        def ended() -> bool:
            with suppress(ControllerError):
                return all(one["state"] in OVER for one in self.client.handovers())
            return False

        try:
            until(ended, "the end of all handovers", seconds=PATIENCE)
        except AssertionError as error:
            raise AssertionError(f"{error}: {self._timelines()}") from None
        return self.client.handovers()

    def _timelines(self) -> str:
        with suppress(ControllerError):
            return str([self.client.handover(h["id"]) for h in self.client.handovers()])
        return "what nobody can tell: the controller does not answer"

    def idle(self) -> bool:
        """Whether no agent holds anything."""
        for agent in self.platform.agents.values():
            with suppress(HslError, OSError), agent.client() as client:
                status = client.status()
                if status["holds"]["holding"] or status["holds"]["releasing"]:
                    return False
                continue
            return False
        return True

    def _account(self, before: Mapping[str, int]) -> None:
        """Behind the traffic: what others cost us. The kernel's queues are everybody's."""
        with suppress(HslError, OSError):  # an agent is dead, in a cell that has failed
            now, tried_again = dropped_on_the_way(self.bed), self._tried_again()
            for way in WAYS:  # not all that is refused is dropped at a device
                self.dropped[way] = max(0, now[way] - before[way] - tried_again[way])

    def _tried_again(self) -> dict[str, int]:
        """Packets of these that agents wrote again."""
        found = dict.fromkeys(WAYS, 0)
        for counters in self._counters():
            for way, side in zip(WAYS, ("upstream", "downstream"), strict=True):
                found[way] += counters[side]["refused"]
        return found

    @property
    def missing(self) -> dict[str, int]:
        """Packets that have not arrived, on each way; known behind the traffic."""
        back = self.echo.sent["replies"]
        assert back is not None
        return by_way(self.echo.there["lost"], back["lost"])

    @property
    def unexplained(self) -> int:
        """Those of them that no full queue explains."""
        return unexplained(self.missing, self.dropped)

    def told(self) -> int:
        """Packets that are lost by the handovers' account."""
        return sum(one["lost_packets"] for one in self.client.handovers())

    def lost(self) -> int:
        """Packets that the agents have counted as lost, restarts included."""
        return sum(
            side["lost"] + side["overflowed"]
            for counters in self._counters()
            for side in counters.values()
        )

    def _counters(self) -> Iterator[dict[str, dict[str, int]]]:
        """The agents' counters, by side."""
        for agent in self.platform.agents.values():
            with agent.client() as client:
                yield client.status()["counters"]
