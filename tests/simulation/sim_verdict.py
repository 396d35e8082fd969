"""What a run has to show: each packet once and in order, or counted; an end; no endless wait."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from sim_agent import Agent
from sim_clock import MS, S
from sim_ledger import SIDES, Flow
from sim_scenario import DESTINATION, HARMLESS, STATE_FAULTS

from flowferry.controller.strategies.base import HandoverState
from flowferry.wire import Side

if TYPE_CHECKING:
    from sim_world import World

PATIENCE = 6 * S
"""No packet may wait longer, whatever fails."""


class Verdict:
    """Of a world in which nothing happens any more."""

    def __init__(self, world: World) -> None:
        """Look at it later."""
        self._world = world

    @property
    def _damaged(self) -> set[int]:
        """Instances whose packets and state may be lost."""
        gone = {instance for report in self._world.reports for instance in report.gone}
        return self._struck_down | self._world.controller.buried | gone

    @property
    def _struck_down(self) -> set[int]:
        """Instances that something has befallen.

        Others may be taken for dead, when too many frames are lost. What they hold is then thrown
        away; to let it out when their flows have gone on would be out of order.
        """
        scenario = self._world.scenario
        harmed = set()
        for fault in scenario.faults:
            if fault.startswith("destination"):
                harmed.add(DESTINATION)
            if fault not in HARMLESS:
                harmed.add(scenario.fault_part)
        return harmed

    @property
    def _stateless(self) -> bool:
        """State did not come, and no controller was there to bring the flows back.

        The agents then let them go without it and say so (docs/hsl.md, Handovers).
        """
        faults = set(self._world.scenario.faults)
        away = not faults.isdisjoint(("controller_killed", "controller_stopped"))
        late = self._world.scenario.slow > S or not faults.isdisjoint(STATE_FAULTS)
        return away and late

    def problems(self) -> Iterator[str]:
        """What was wrong; nothing, if all is well."""
        world, ledger = self._world, self._world.ledger
        yield from ledger.doubled()
        damaged = self._damaged
        spared, in_order = self._spared(damaged), self._spared(self._struck_down)
        if len(world.ended) < len(world.plans):
            yield "the handover did not end"
        for number, agent in world.agents.items():
            if not (agent.core.idle and agent.core.quiet):
                idle = f"idle {agent.core.idle}, quiet {agent.core.quiet}"
                yield f"instance {number} is not at rest: {idle} {agent.core.describe()}"
        lost = ledger.lost()
        counted = ledger.said_lost + sum(map(self._said_lost_by, world.agents.values()))
        if lost and not damaged and "pressure" not in world.scenario.faults:
            yield f"{lost} packets lost"
        if lost > counted:
            yield f"{lost} packets lost, {counted} counted"
        for flow, text in ledger.disordered():
            if flow in in_order:
                yield text
        if not damaged:
            if not (self._stateless or self._said_state_lost or world.astray):
                yield from ledger.wrong
            for flow, (late, whose) in ledger.longest.items():
                bound = self._bound(flow)
                if late > bound:
                    yield f"{whose} waited {late / MS:.0f} ms, more than {bound / MS:.0f}"
        for flow in ledger.flows:
            yield from self._check_places(flow, flow in spared)

    def _said_lost_by(self, agent: Agent) -> int:
        """Packets that an agent's last words count as lost; they may not have been heard."""
        heard = sum(report.lost_of.get(agent.number, 0) for report in self._world.reports)
        return max(heard, agent.core.overflowed)

    def _spared(self, harmed: set[int]) -> list[Flow]:
        """The flows that none of these instances had to do with."""
        return [
            flow
            for flow in self._world.ledger.flows
            if flow.home not in harmed and (DESTINATION not in harmed or not flow.part)
        ]

    @property
    def _said_state_lost(self) -> bool:
        """State did not come back by rights, and the handover says so."""
        said = any("state_lost" in report.flags for report in self._world.reports)
        return said and "return_fails" in self._world.scenario.faults

    def _bound(self, flow: Flow) -> int:
        scenario = self._world.scenario
        done = all(end.state is HandoverState.DONE for _, end in self._world.ended)
        if scenario.faults != ("none", "none") or scenario.loss or scenario.lateness or not done:
            return PATIENCE
        quick = 60 * MS + scenario.stale
        alone = self._began_late(flow) and not scenario.there_and_back
        return quick if alone else quick + 2 * scenario.slow

    def _began_late(self, flow: Flow) -> bool:
        """Its source never had it, and its state need not be waited for."""
        scenario = self._world.scenario
        able = scenario.new_flows and scenario.function and not scenario.one_way
        return able and self._world.ledger.began_at[flow] == DESTINATION

    def _check_places(self, flow: Flow, spared: bool) -> Iterator[str]:
        if not flow.part:
            for side in SIDES:
                if not set(self._world.ledger.places(flow, side)) <= {flow.home}:
                    yield f"flow {flow.index} of a higher rule was moved"
            return
        if not spared or self._world.astray:
            return
        way: list[int] = [flow.home]
        places_of = [self._world.ledger.places(flow, side) for side in SIDES]
        for plan, end in self._world.ended:
            if flow.part in end.moved:
                way.append(flow.home if plan.number == 2 else DESTINATION)
            elif plan.number == 1 and any(places_of) and self._began_late(flow):
                way += [DESTINATION, flow.home]  # it was served there for a while
        for side in SIDES:
            places = self._world.ledger.places(flow, side)
            allowed = (
                way if side is Side.UPSTREAM or not self._world.scenario.one_way else [flow.home]
            )
            if not _is_within(places, allowed):
                yield f"flow {flow.index} {side.name.lower()} was at {places}, moved by {allowed}"


def _is_within(places: list[int], way: list[int]) -> bool:
    """Whether `places` is `way` with some left out."""
    rest = iter(way)
    return all(place in rest for place in places)
