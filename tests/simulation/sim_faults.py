"""What goes wrong, when its time has come."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from sim_agent import Agent
from sim_clock import MS, S
from sim_ledger import SIDES
from sim_scenario import DESTINATION
from sim_stream import Stream

from flowferry.controller.strategies.base import AbortRequested

if TYPE_CHECKING:
    from sim_world import World


class Faults:
    """All of one run."""

    def __init__(self, world: World) -> None:
        """Nothing is wrong yet."""
        self._world, self._clock = world, world.clock

    def begin(self, fault: str) -> None:
        scenario, clock, agents = self._world.scenario, self._clock, self._world.agents
        source, destination = agents[scenario.fault_part], agents[DESTINATION]
        lasting = scenario.fault_for
        side = self._clock.random.choice(SIDES)
        match fault:
            case "abort":
                self._world.controller.feed(AbortRequested("somebody asked for it"))
            case "refuse":
                self._world.switches[side].refuses = True
            case "switch_gone":
                self._world.turning.disconnect(side)
                clock.after(lasting, self._world.turning.connect, side)
            case "export_fails" | "import_fails":
                agent = source if fault == "export_fails" else destination
                if agent.function is not None:
                    agent.function.fails.add(fault.split("_")[0])
            case "return_fails":
                for agent in agents.values():
                    if agent.function is not None:
                        agent.function.fails.add("return")
            case "transfer_late":
                if source.function is not None:
                    source.function.slow = 10 * S
            case "controller_killed" if self._world.controller.runs:
                self._world.controller.kill()
                clock.after(lasting, self._world.controller.restart)
            case "controller_stopped" if self._world.controller.runs:
                self._world.controller.stop()
                clock.after(lasting, self._world.controller.resume)
            case "cut" | "cut_for_good":
                for stream in self._streams(source, destination):
                    stream.cut(up=False)
                    if fault == "cut":
                        clock.after(lasting, stream.heal)
            case "source_killed" | "destination_killed":
                agent = source if fault == "source_killed" else destination
                if agent.runs:
                    agent.kill()
                    clock.after(lasting, agent.restart)
            case "source_stopped" | "destination_stopped":
                agent = source if fault == "source_stopped" else destination
                self._stop(agent, max(lasting, 100 * MS))
            case "unheard_source" | "unheard_destination":
                agent = source if fault == "unheard_source" else destination
                self._world.frames.unheard.add(agent.number)
                # After twice three settling times it would let go by itself; until then there is
                # time for more than one heartbeat, some of which may be lost.
                until = min(lasting, 4 * scenario.settings.settling_ms * MS)
                clock.after(until, self._world.frames.unheard.discard, agent.number)
            case "paused":
                agent = self._clock.random.choice((source, destination))
                self._stop(agent, 40 * MS * self._clock.random.random())

    def _stop(self, agent: Agent, lasting: float) -> None:
        if agent.runs:
            agent.stop()
            self._clock.after(lasting, agent.resume)

    def _streams(self, one: Agent, other: Agent) -> Iterator[Stream]:
        yield one.streams[other.address]
        yield other.streams[one.address]
