"""The controller's shell: switches and agents on one side, handovers on the other.

It decides nothing about how a handover goes (strategies do), what entries there must be
(`openflow.tables`), which flows move (`planning`) or which handover is next (`waiting`). What it
brings together has rooms of its own: the rules in force (`rulebook`), handovers as they are written
down and told of (`ledger`), what comes after their end (`aftermath`). Left here is who is told of
what happens, and the life of one handover: begun, led by its conductor, closed; taken up again
after a restart.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine, Mapping
from dataclasses import replace
from typing import Any

from flowferry.controller import planning, strategies
from flowferry.controller.aftermath import Aftermath
from flowferry.controller.agents import Agents
from flowferry.controller.api import Metrics
from flowferry.controller.conductor import Conductor, Failpoint
from flowferry.controller.events import Events
from flowferry.controller.handover import Handover
from flowferry.controller.ledger import Ledger
from flowferry.controller.model import Instance, Model, ModelError
from flowferry.controller.openflow.channel import Channel
from flowferry.controller.openflow.listener import Listener
from flowferry.controller.planning import Build
from flowferry.controller.rulebook import Rulebook
from flowferry.controller.store import Store
from flowferry.controller.strategies.base import (
    Finished,
    HandoverState,
    InstanceDead,
    Plan,
    SwitchGone,
    SwitchInLine,
    TurnAccepted,
    TurnedBack,
    TurnRefused,
)
from flowferry.controller.switchboard import Switchboard
from flowferry.controller.waiting import WaitingList
from flowferry.wire import KeyRing, Message, Side

LOG = logging.getLogger(__name__)
#: Seconds that a handover from before a restart waits for its switches.
PATIENCE = 15.0


class Service:
    """One controller, in the running event loop."""

    def __init__(
        self,
        configured: Model,
        store: Store,
        keys: KeyRing,
        *,
        first_table: int,
        heartbeat: float,
        dead_after: int,
        echo_interval: float,
        timeout: float,
        greeting: float = 0.25,
        failpoint: str | None = None,
    ) -> None:
        """All times in seconds.

        `greeting`: at most so long a handover waits to hear that its agents are there.
        """
        self._greeting = greeting
        self._failpoint = Failpoint(failpoint)
        self.store, self.metrics, self.events = store, Metrics(), Events()
        self.listener = Listener(
            on_up=self._switch_up,
            on_down=self._switch_down,
            on_packet=lambda channel, packet: self.agents.on_packet(channel, packet),
            echo_interval=echo_interval,
            timeout=timeout,
        )
        self.board = Switchboard(self.listener.channels, first_table, self._switch_ready)
        self._rulebook = Rulebook(configured, store, self.board, self._rules_changed)
        self._ledger = Ledger(store, self.events, self.metrics, lambda: self.model)
        self._aftermath = Aftermath(
            self._ledger, lambda number, message: self.agents.send(number, None, message)
        )
        self.agents = Agents(
            keys,
            boot=store.next_boot(time.time()),
            model=lambda: self.model,
            channels=self.listener.channels,
            on_message=self._message,
            on_dead=self._dead,
            on_alive=self._alive,
            on_lost=self._aftermath.lost,
            on_frame=lambda *kind: self.metrics.frames.labels(*kind).inc(),
            heartbeat=heartbeat,
            dead_after=dead_after,
        )
        for position in store.positions():
            self.agents.opener.resume(*position)
        self._conductors: dict[int, Conductor] = {}
        self._waiting = WaitingList(self.handovers)
        self._resuming: set[int] = set()
        self._ready = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def model(self) -> Model:
        """The model in force."""
        return self._rulebook.model

    @property
    def handovers(self) -> Mapping[int, Handover]:
        """All handovers, by number."""
        return self._ledger.handovers

    # -- life ----------------------------------------------------------------------------------

    def start(self) -> None:
        """Take up what was under way, and watch the agents. The listener is the caller's."""
        self._measure()
        for handover in self._ledger.restore():
            self._take_up(handover)
        self._spawn(self.agents.watch())

    async def stop(self) -> None:
        """End; what is under way is resumed at the next start."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.listener.stop()
        self.store.save_positions(self.agents.opener.positions)
        self.store.close()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            LOG.error("a task failed", exc_info=error)

    # -- switches ------------------------------------------------------------------------------

    async def _switch_up(self, channel: Channel) -> None:
        await self.board.greet(channel)

    def _switch_down(self, channel: Channel, why: str) -> None:
        if self.listener.channels.get(channel.dpid) is not None:
            return  # it is here again already
        self.board.gone(channel)
        for conductor, sides in self._conductors_at(channel.dpid):
            conductor.feed(SwitchGone(channel.dpid, sides))

    def _switch_ready(self, dpid: int, ready: bool) -> None:
        self.metrics.switches.set(sum(self.board.ready(each) for each in self.board.dpids))
        self.events.publish("switch", {"dpid": dpid, "connected": ready, "ready": ready})
        if ready:
            for conductor, sides in self._conductors_at(dpid):
                conductor.feed(SwitchInLine(dpid, sides))
            self.agents.ask_all()
            self._spawn(self._wake())

    def _conductors_at(self, dpid: int) -> list[tuple[Conductor, tuple[Side, ...]]]:
        """Whose flows come by a switch, and the sides that it is at."""
        sides = ((one, self._rulebook.sides_at(one.handover.group, dpid)) for one in self._leading)
        return [(conductor, at) for conductor, at in sides if at]

    async def _wake(self) -> None:
        async with self._ready:
            self._ready.notify_all()

    # -- agents --------------------------------------------------------------------------------

    def _message(self, instance: Instance, message: Message) -> None:
        number = message.handover >> 8
        conductor = self._conductors.get(number)
        if conductor is not None:
            conductor.hear(instance.id, message)
        elif number not in self._resuming:
            self._aftermath.hear(instance, message)

    def _dead(self, instance: Instance, why: str) -> None:
        self.events.publish("instance", {"name": instance.name, "alive": False, "why": why})
        self._aftermath.died(instance)
        for conductor in self._leading:
            concerned = conductor.started and instance.id in conductor.instances
            if concerned and instance.id not in conductor.dead:
                conductor.dead.add(instance.id)
                conductor.feed(InstanceDead(instance.id, f"instance {instance.name}: {why}"))

    def _alive(self, instance: Instance) -> None:
        self.events.publish("instance", {"name": instance.name, "alive": True})

    @property
    def _leading(self) -> list[Conductor]:
        """Conductors as they are now: what they are told may end them."""
        return list(self._conductors.values())

    # -- the model -----------------------------------------------------------------------------

    async def adopt(self, model: Model) -> list[str]:
        """Let this be the model from now on: instances have changed. What failed at switches."""
        self._rulebook.adopt_instances(model)
        return await self._rulebook.sync_all()

    def _rules_changed(self) -> None:
        self._measure()
        self.events.publish("rule", {"rules": len(self.model.rules)})

    def _measure(self) -> None:
        self.metrics.rules.set(len(self.model.rules))
        self.metrics.instances.set(len(self.model.instances))

    async def _sync_all(self) -> None:
        for failed in await self._rulebook.sync_all():
            LOG.info("%s; it is brought in line when it is back", failed)

    # -- handovers: from the request to the end ------------------------------------------------

    def submit(self, handover: Handover, build: Build) -> Handover:
        """Take a handover in; it begins now or when those before it are over.

        Raises `ModelError` when it cannot be done on the rules as they are.
        """
        planning.plan(handover, build, self.model)
        self._ledger.enter(handover)
        self._waiting.add(handover, build)
        self._advance(handover.group)
        return handover

    def _advance(self, group: str) -> None:
        """Begin whatever waits for nobody any more, in the order of asking."""
        for handover, build in self._waiting.due(group):
            self._begin(handover, build)

    def _begin(self, handover: Handover, build: Build) -> None:
        try:
            planning.plan(handover, build, self.model)
        except ModelError as error:
            self._close(handover, HandoverState.ABORTED, str(error))
            return
        if not handover.parts:
            self._settle_at_once(handover)
            return
        handover.packets_before = self.agents.data_packets
        conductor = self._conduct(handover)
        if self._greeting:
            self._spawn(self._launch(conductor))
        else:
            self._start(conductor)

    async def _launch(self, conductor: Conductor) -> None:
        """Begin when agents have been heard, and no switch uses entries of before it came.

        An old entry that leads to the destination would make a packet there prove a turn.
        """
        await self.agents.refresh(conductor.instances, self._greeting)
        stale = conductor.plan.settings.stale_ms / 1e3
        dpids = self._rulebook.dpids_of(conductor.handover.group)
        while (left := stale - self.board.youngest(dpids)) > 0:
            await asyncio.sleep(left)
        self._start(conductor)

    def _start(self, conductor: Conductor) -> None:
        self._aftermath.begin(conductor.handover, conductor.instances)
        conductor.start()

    def _conduct(self, handover: Handover) -> Conductor:
        peers = {k: one.peer for k, one in self.model.instances.items() if one.peer is not None}
        plan = Plan(handover.number, handover.parts, peers, handover.settings)
        reach = self._failpoint.reach
        strategy = strategies.make(handover.strategy, lambda row: reach(row.name))
        conductor = Conductor(self, handover, plan, strategy, self._failpoint)
        self._conductors[handover.number] = conductor
        self.agents.engage(conductor.instances)
        self.metrics.under_way.set(len(self._conductors))
        return conductor

    def _settle_at_once(self, handover: Handover) -> None:
        """No flow changes its instance: no agent is asked."""
        assert handover.change is not None
        handover.note("all flows are there already; no packet was touched")
        after = handover.change.apply(self.model)
        if after != self.model:
            self._rulebook.adopt_rules(after)
            self._spawn(self._sync_all())
        self._close(handover, HandoverState.DONE, None)

    async def abort(self, handover: Handover, why: str) -> None:
        """Call a handover off; returns when that is sure. Raises `ModelError` if it is too late."""
        number = handover.number
        if handover.is_over:
            raise ModelError(f"handover {number} is over: {handover.state}")
        if self._waiting.remove(handover):
            return self._close(handover, HandoverState.ABORTED, why)
        conductor = self._conductors.get(number)
        if conductor is None:
            raise ModelError(
                f"handover {number} is {handover.state}, and is being taken up after a restart of "
                "the controller; ask again in a moment"
            )
        if not await conductor.call_off(why):
            raise ModelError(
                f"handover {number} is {handover.state}: too late to call it off, its flows are at "
                "their new instance; when it is done, move them back"
            )

    async def wait(self, handover: Handover, seconds: float) -> None:
        """Until a handover is over, at most `seconds`."""
        await self._ledger.wait(handover, seconds)

    def _close(self, handover: Handover, state: HandoverState, error: str | None) -> None:
        if self._rulebook.settle(handover):
            self._spawn(self._sync_all())
        self._ledger.close(handover, state, error, self.agents.opener.positions)
        # Not from within the strategy's own call.
        asyncio.get_running_loop().call_soon(self._advance, handover.group)

    # -- handovers: what a conductor needs (`conductor.World`) ---------------------------------

    def send(self, number: int, side: Side | None, message: Message) -> list[int]:
        """Send to an instance's agent; the sequence numbers of the frames.

        What means a side goes by a switch that is in line: what has just come back may turn yet.
        """
        if side is not None:
            instance = self.model.instances.get(number)
            group = None if instance is None else self.model.groups[instance.group]
            if group is None or not self.board.ready(group.at(side).dpid):
                return []
        return self.agents.send(number, side, message)

    def journal(self, handover: Handover, step: str, data: Mapping[str, Any]) -> None:
        """Write a step down."""
        self._ledger.journal(handover, step, data)

    def turn(self, handover: Handover) -> None:
        """Put the new rules in force."""
        self._rulebook.turn(handover)
        self._spawn(self._turn(handover))

    async def _turn(self, handover: Handover) -> None:
        failed = await self._rulebook.put_in_force(handover)
        conductor = self._conductors.get(handover.number)
        if conductor is not None:
            conductor.feed(TurnRefused("; ".join(failed)) if failed else TurnAccepted())

    def turn_back(self, handover: Handover, parts: tuple[int, ...]) -> None:
        """Put old rules in force again."""
        self._rulebook.turn_back(handover, parts)
        self._spawn(self._turn_back(handover, parts))

    async def _turn_back(self, handover: Handover, parts: tuple[int, ...]) -> None:
        for failed in await self._rulebook.put_back(handover):
            handover.note(f"{failed}; it is brought in line when it is back")
        conductor = self._conductors.get(handover.number)
        if conductor is not None:
            conductor.feed(TurnedBack(parts))

    def changed(self, handover: Handover) -> None:
        """Tell who listens."""
        self._ledger.changed(handover)

    def finished(self, handover: Handover, end: Finished) -> None:
        """A strategy is done."""
        conductor = self._conductors.pop(handover.number)
        self.agents.disengage(conductor.instances)
        self._aftermath.end(handover, conductor.instances, asyncio.get_running_loop().time())
        for part in handover.parts:
            self.agents.forget(conductor.plan.wire_id(part))
        self.metrics.under_way.set(len(self._conductors))
        extra = self.agents.data_packets - handover.packets_before
        handover.report = replace(handover.report, controller_packets=extra)
        self._close(handover, end.state, end.error)

    # -- after a restart -----------------------------------------------------------------------

    def _take_up(self, handover: Handover) -> None:
        if handover.step is None:
            # Nobody had been asked for anything yet.
            error = "the controller was restarted before it began; ask again"
            self._close(handover, HandoverState.ABORTED, error)
            return
        handover.note("the controller was restarted")
        for change in (handover.change, handover.undo):
            handover.concerns += [] if change is None else change.concerns(self.model)
        self._rulebook.contest(handover)
        self._resuming.add(handover.number)
        self._spawn(self._resume(handover))

    async def _resume(self, handover: Handover) -> None:
        def there() -> bool:
            dpids = self._rulebook.dpids_of(handover.group)
            return all(self.board.ready(dpid) for dpid in dpids)

        try:
            async with asyncio.timeout(PATIENCE), self._ready:
                await self._ready.wait_for(there)
        except TimeoutError:
            handover.note(f"not all switches came back within {PATIENCE:g} s")
        conductor = self._conduct(handover)
        self._resuming.discard(handover.number)
        self._aftermath.begin(handover, conductor.instances)
        conductor.restore(handover.data)
