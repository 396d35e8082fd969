"""Everything together: hosts, switches, instances, controller; and the verdict."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address
from random import Random

from sim_agent import Agent
from sim_clock import MS, US, Clock, S
from sim_controller import Controller
from sim_faults import Faults
from sim_frames import Frames
from sim_function import Function
from sim_ledger import HIGHER_PORT, SIDES, Flow, Ledger
from sim_network import Port, Switch
from sim_plants import Plant
from sim_scenario import DESTINATION, Scenario
from sim_stream import Stream
from sim_turn import Turn
from sim_verdict import Verdict

from flowferry.controller.strategies import base
from flowferry.controller.strategies.base import (
    Finished,
    HandoverState,
    Part,
    Plan,
)
from flowferry.controller.strategies.direct_table import Transition
from flowferry.wire import (
    KeyRing,
    Masked,
    Match,
    Peer,
    Side,
)

BEGIN = S + 20 * MS
"""When the handover begins."""
LONGEST = 12 * S
"""No handover may take longer."""


class World:
    """One run."""

    def __init__(self, scenario: Scenario) -> None:
        """Build it; nothing has happened yet."""
        self.scenario = scenario
        self.clock = clock = Clock(Random(scenario.seed ^ 0x5EED))
        self.random = clock.random
        keys = KeyRing(1, bytes(range(32)))
        self.frames, self.turning, self.faults = Frames(self), Turn(self), Faults(self)
        self.sources = list(range(1, scenario.parts + 1))
        self.ledger = ledger = Ledger(list(self._flows()))
        self.switches = {side: Switch(clock, side, scenario.stale) for side in SIDES}
        self.agents: dict[int, Agent] = {}
        blobs: dict[tuple[int, int], dict[Flow, int]] = {}
        for number in (*self.sources, DESTINATION):
            ports = {side: Port(clock, scenario.steering, scenario.stall) for side in SIDES}
            size = 4_000 if scenario.fault == "pressure" else 1 << 22
            agent = Agent(clock, number, keys, ledger, ports, self.frames.out, size)
            agent.on_step = self._on_step
            self.agents[number] = agent
            if scenario.function and not scenario.one_way:  # one state cannot be in two places
                agent.function = Function(clock, number, ledger, blobs, agent.on_line)
                agent.function.slow = scenario.slow
                able = json.dumps(scenario.new_flows)
                agent.on_line(f'{{"hello":"counter","lists_flows":false,"new_flows":{able}}}')
        for one in self.agents.values():
            for other in self.agents.values():
                if one is not other:
                    one.streams[other.address] = Stream(clock, one, other)
                    other.taken[one.number] = one.streams[other.address]
        plant = scenario.plant or Plant()
        #: The rows of the strategy's table that were taken.
        self.rows: set[str] = set()
        self._struck = False
        hook = self._on_row
        self.controller = Controller(clock, keys, self, plant.strategy(hook))
        self.controller.on_finished = self.on_finished
        self.plans = [self._plan(1, back=False)]
        self.ended: list[tuple[Plan, Finished]] = []
        self.reports: list[base.Report] = []
        #: A handover was called off while a switch was away, which leads its flows on to the
        #: destination until it is back. The handover has said so: it is unfenced.
        self.astray = False
        for side in SIDES:
            for part in self.plans[0].parts:
                self.switches[side].entries[part.number] = part.source
        for agent in self.agents.values():
            agent.hasty = plant.hasty_flushes
            for stream in agent.streams.values():
                stream.hasty = plant.hasty_records
                stream.spoil = plant.spoil

    def _on_row(self, row: Transition) -> None:
        self.rows.add(row.name)
        self._on_step(row.name)

    def _on_step(self, step: str) -> None:
        """Somebody takes a step; perhaps the fault comes with it."""
        if step == self.scenario.fault_on and not self._struck:
            self._struck = True
            pause = self.random.choice((0, self.clock.between(0, 2 * MS)))
            self.clock.after(pause, self.faults.begin, self.scenario.fault)

    def _flows(self) -> Iterator[Flow]:
        index = 0
        for source in self.sources:
            for kind in [source] * self.scenario.flows + [0]:
                yield Flow(index, kind, source)
                index += 1

    def _plan(self, number: int, back: bool) -> Plan:
        sides = (Side.UPSTREAM,) if self.scenario.one_way else SIDES
        parts = []
        for source in self.sources:
            client = Masked(IPv4Address(f"10.0.{source}.0"), IPv4Address("255.255.255.0"))
            match = Match(family=4, source=client)
            higher = Match(
                family=4,
                protocol=17,
                source=client,
                destination_port=Masked(HIGHER_PORT, 0xFFFF),
            )
            ends = (DESTINATION, source) if back else (source, DESTINATION)
            parts.append(Part(source, match, (higher,), *ends, sides, 1))
        peers = {n: Peer(n, IPv4Address(f"192.0.2.{n}"), 7000) for n in (*self.sources, 9)}
        return Plan(number, tuple(parts), peers, self.scenario.settings)

    # --- the run ---

    def run(self) -> list[str]:
        """Let it happen; what was wrong."""
        self._begin_traffic()
        self.clock.at(BEGIN, self.controller.start, self.plans[0])
        scenario = self.scenario
        self.clock.at(BEGIN + scenario.prelude_at, self.faults.begin, scenario.prelude)
        if scenario.fault_on is None:
            self.clock.at(BEGIN + scenario.fault_at, self.faults.begin, scenario.fault)
        if self.scenario.forgery:
            for _ in range(10):
                self.clock.at(BEGIN + self.clock.between(0, 500 * MS), self.frames.forge)
        end = BEGIN + LONGEST
        while self.clock.now < end and not self._is_over():
            self.clock.run(self.clock.now + 50 * MS)
        # Agents that nobody leads any more may need their own time to end.
        for _ in range(200):
            if all(agent.core.idle and agent.core.quiet for agent in self.agents.values()):
                break
            self.clock.run(self.clock.now + 50 * MS)
        self.clock.run(self.clock.now + 20 * MS)
        return list(Verdict(self).problems())

    def _is_over(self) -> bool:
        if len(self.ended) < len(self.plans):
            return False
        return self.clock.now > self._traffic_ends

    def _begin_traffic(self) -> None:
        clock, random = self.clock, self.random
        self._traffic_ends = BEGIN + random.choice((60, 150, 500)) * MS
        latest = 100 * MS
        if self.scenario.slow > 5 * MS:  # flows begin while state is on its way
            self._traffic_ends += self.scenario.slow
            latest = max(latest, self.scenario.slow)
        for line in self.ledger.lines:
            kind = random.random()
            begin = S if random.random() < 0.7 else BEGIN + clock.between(-5 * MS, latest)
            if kind < 0.15:
                continue  # this direction stays silent
            gap = random.choice((100 * US, 1 * MS, 1 * MS, 10 * MS, 60 * MS))
            left = random.randint(1, 3) if kind < 0.3 else random.randint(5, 120)
            if gap < MS:  # the fast ones run around the turn
                begin = max(begin, BEGIN - 2 * MS)
            clock.at(begin, self._emit, *line, gap, left)

    def _emit(self, flow: Flow, side: Side, gap: int, left: int) -> None:
        clock = self.clock
        if clock.now > self._traffic_ends:
            return
        packet = self.ledger.send(flow, side, clock.now)
        agent = self.agents[self.switches[side].instance_for(packet)]
        cpu = flow.index * 7 + int(side)
        agent.ports[side].carry(cpu, agent.on_packet, packet)
        if left > 1:
            burst = self.random.random() < 0.2
            clock.after(
                gap * (0.02 if burst else 2 * self.random.random()),
                self._emit,
                flow,
                side,
                gap,
                left - 1,
            )

    def on_finished(self, plan: Plan, end: Finished) -> None:
        """One handover is over; perhaps the flows move back at once."""
        self.ended.append((plan, end))
        self.turning.undecided.clear()
        self.reports.append(self.controller.report)
        away = not all(switch.connected for switch in self.switches.values())
        if away and end.state is not HandoverState.DONE:
            self.astray |= "unfenced" in self.controller.report.flags
        if self.scenario.there_and_back and plan.number == 1 and end.state is HandoverState.DONE:
            self.plans.append(self._plan(2, back=True))
            self.clock.after(self.clock.between(0, 2 * MS), self.controller.start, self.plans[1])

    # --- what the controller acts upon (`sim_controller.Network`) ---

    def down(self, instance: int, side: Side | None, retry: bool, frame: bytes) -> None:
        """A packet-out."""
        self.frames.down(instance, side, retry, frame)

    def turn(self, plan: Plan, parts: tuple[int, ...], back: bool) -> None:
        """Other entries."""
        self.turning.turn(plan, parts, back)

    # --- what there was ---

    @property
    def agent_rows(self) -> set[str]:
        """The rows of the agents' table that were taken."""
        cores = (json.loads(agent.core.describe()) for agent in self.agents.values())
        return {row for core in cores for row in core["transitions"]}


@dataclass(frozen=True)
class Outcome:
    """What a run has shown."""

    seed: int
    fault: str
    #: Nothing, if all is well.
    wrong: tuple[str, ...]
    #: Rows of the strategy's table that were taken, and of the agents'.
    rows: frozenset[str]
    agent_rows: frozenset[str]
    #: How the handovers ended.
    ends: tuple[str, ...]


def simulate(scenario: Scenario, trace: Callable[[int, str], None] | None = None) -> Outcome:
    """Run a scenario."""
    world = World(scenario)
    if trace is not None:
        world.clock.trace = []
    wrong = tuple(world.run())
    for time, text in world.clock.trace or ():
        assert trace is not None
        trace(time, text)
    ends = tuple(str(end.state) for _, end in world.ended)
    rows, agent_rows = frozenset(world.rows), frozenset(world.agent_rows)
    return Outcome(scenario.seed, scenario.fault, wrong, rows, agent_rows, ends)


def simulate_seed(seed: int) -> Outcome:
    """Run the scenario of a seed; an exception is an outcome, too."""
    scenario = Scenario.draw(seed)
    try:
        return simulate(scenario)
    except Exception as error:
        wrong = (f"{type(error).__name__}: {error}",)
        return Outcome(seed, scenario.fault, wrong, frozenset(), frozenset(), ())
