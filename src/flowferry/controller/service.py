"""The controller's shell: switches and agents on one side, handovers on the other.

It decides nothing about how a handover goes (strategies do), what entries there must be
(`openflow.tables`) or which flows move (`partition`). It keeps the model, puts handovers in an
order in which none disturbs another, and writes everything down before it happens.

Handovers of a group run side by side when no flow belongs to two of them. Otherwise the later one
waits, state `preparing`, and is planned when its time has come, on the rules as they are then.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from typing import Any

from flowferry.controller import remainder, strategies
from flowferry.controller.agents import Agents, Pulse
from flowferry.controller.api import Metrics
from flowferry.controller.change import Change
from flowferry.controller.conductor import Conductor, Failpoint
from flowferry.controller.handover import Handover
from flowferry.controller.losses import Losses
from flowferry.controller.match import overlaps
from flowferry.controller.model import BOTH_SIDES, Instance, Model, ModelError
from flowferry.controller.openflow.channel import Channel
from flowferry.controller.openflow.listener import Listener
from flowferry.controller.partition import parts as parts_of
from flowferry.controller.store import Record, Store
from flowferry.controller.strategies import late
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
from flowferry.wire import KeyRing, Match, Message, Side

LOG = logging.getLogger(__name__)
Build = Callable[[Model], Change]
Watcher = Callable[[str, dict[str, Any]], None]
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
        self.store = store
        self.metrics = Metrics()
        self._failpoint = Failpoint(failpoint)
        self.model = _with_defaults(store.restore(configured))
        self.listener = Listener(
            on_up=self._switch_up,
            on_down=self._switch_down,
            on_packet=lambda channel, packet: self.agents.on_packet(channel, packet),
            echo_interval=echo_interval,
            timeout=timeout,
        )
        self.board = Switchboard(self.listener.channels, first_table, self._switch_ready)
        self.board.want(self.model)
        self.agents = Agents(
            keys,
            boot=store.next_boot(time.time()),
            model=lambda: self.model,
            channels=self.listener.channels,
            on_message=self._message,
            on_dead=self._dead,
            on_alive=self._alive,
            on_lost=self._lost,
            on_frame=lambda *kind: self.metrics.frames.labels(*kind).inc(),
            heartbeat=heartbeat,
            dead_after=dead_after,
        )
        for position in store.positions():
            self.agents.opener.resume(*position)
        self.handovers: dict[int, Handover] = {}
        self._conductors: dict[int, Conductor] = {}
        self._waiting: dict[int, Build] = {}
        self._resuming: set[int] = set()
        self._ends: dict[int, asyncio.Event] = {}
        self._losses = Losses()
        self._ready = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()
        self.watchers: set[Watcher] = set()

    # -- life ----------------------------------------------------------------------------------

    def start(self) -> None:
        """Take up what was under way, and watch the agents. The listener is the caller's."""
        self._measure()
        for record in self.store.handovers():
            handover = Handover.from_record(record.body)
            self.handovers[handover.number] = handover
            if not record.over:
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

    def publish(self, event: str, data: dict[str, Any]) -> None:
        """Tell everybody who listens."""
        for watcher in list(self.watchers):
            watcher(event, data)

    # -- switches ------------------------------------------------------------------------------

    async def _switch_up(self, channel: Channel) -> None:
        await self.board.greet(channel)

    def _switch_down(self, channel: Channel, why: str) -> None:
        if self.listener.channels.get(channel.dpid) is not None:
            return  # it is here again already
        self.board.gone(channel)
        for conductor in list(self._conductors.values()):
            sides = self._sides_at(conductor.handover.group, channel.dpid)
            if sides:
                conductor.feed(SwitchGone(channel.dpid, sides))

    def _switch_ready(self, dpid: int, ready: bool) -> None:
        self.metrics.switches.set(sum(self.board.ready(each) for each in self.board.dpids))
        self.publish("switch", {"dpid": dpid, "connected": ready, "ready": ready})
        if ready:
            for conductor in list(self._conductors.values()):
                if sides := self._sides_at(conductor.handover.group, dpid):
                    conductor.feed(SwitchInLine(dpid, sides))
            self.agents.ask_all()
            self._spawn(self._wake())

    async def _wake(self) -> None:
        async with self._ready:
            self._ready.notify_all()

    def _sides_at(self, group: str, dpid: int) -> tuple[Side, ...]:
        ends = self.model.groups[group]
        return tuple(side for side in BOTH_SIDES if ends.at(side).dpid == dpid)

    def dpids_of(self, group: str) -> list[int]:
        """The switches at both ends of a group."""
        return sorted({self.model.groups[group].at(side).dpid for side in BOTH_SIDES})

    # -- agents --------------------------------------------------------------------------------

    def _message(self, instance: Instance, message: Message) -> None:
        number = message.handover >> 8
        conductor = self._conductors.get(number)
        if conductor is not None:
            conductor.hear(instance.id, message)
        elif number not in self._resuming:
            self._answer_late(instance, message)

    def _answer_late(self, instance: Instance, message: Message) -> None:
        """An agent has not heard the end of a handover; let it have its peace."""
        handover = self.handovers.get(message.handover >> 8)
        if handover is None or not handover.is_over:
            return
        number = message.handover & 0xFF
        part = next((each for each in handover.parts if each.number == number), None)
        if part is None or instance.id not in (part.source, part.destination):
            return
        at = handover.whereabouts(part)
        reply = late.answer(instance.id, message, at)
        if reply is not None:
            self.agents.send(instance.id, None, reply)
        thrown_away = late.thrown_away(instance.id, message, at)
        lost = self._losses.late(handover, instance.id, message.handover, thrown_away)
        if lost:
            self._lose(handover, instance, lost)

    def _dead(self, instance: Instance, why: str) -> None:
        self.publish("instance", {"name": instance.name, "alive": False, "why": why})
        self._losses.died(instance.id)
        for conductor in list(self._conductors.values()):
            concerned = conductor.started and instance.id in conductor.instances
            if concerned and instance.id not in conductor.dead:
                conductor.dead.add(instance.id)
                conductor.feed(InstanceDead(instance.id, f"instance {instance.name}: {why}"))

    def _alive(self, instance: Instance) -> None:
        self.publish("instance", {"name": instance.name, "alive": True})

    def _lost(self, instance: Instance, packets: int, fresh: bool, since: float) -> None:
        """An agent has counted what was held when it, or the one before it, failed."""
        handover = self._losses.tell(instance.id, packets, fresh, since)
        if handover is None:
            return
        self._lose(handover, instance, packets)

    def _lose(self, handover: Handover, instance: Instance, packets: int) -> None:
        handover.note(f"instance {instance.name} had held {packets} packets, which are lost")
        if not handover.is_over:
            return self.changed(handover)
        self.metrics.packets.labels("lost").inc(packets)
        self.store.save_handover(Record(handover.number, True, handover.as_record()))
        self.publish("handover", handover.as_json(self.model, timeline=False))

    def _engage(self, conductor: Conductor, by: int) -> None:
        engaged = self.agents.engaged
        for number in conductor.instances:
            engaged[number] = engaged.get(number, 0) + by
            if by > 0:
                self.agents.pulses.setdefault(number, Pulse()).missed = 0

    # -- handovers: queue ----------------------------------------------------------------------

    def submit(self, handover: Handover, build: Build) -> Handover:
        """Take a handover in; it begins now or when those before it are over.

        Raises `ModelError` when it cannot be done on the rules as they are.
        """
        self._plan(handover, build(self.model))
        self.handovers[handover.number] = handover
        self._waiting[handover.number] = build
        self.store.save_handover(Record(handover.number, False, handover.as_record()))
        self._advance(handover.group)
        return handover

    def _plan(self, handover: Handover, change: Change) -> None:
        """Work out what would change on the model as it is."""
        handover.change = change
        handover.concerns = change.concerns(self.model)
        remainder.check(change, self.model)
        handover.parts = parts_of(self.model, change.apply(self.model), handover.group)
        if change.put:
            handover.priority, handover.rule = change.put[0].priority, change.put[0].id
        for number in {end for part in handover.parts for end in (part.source, part.destination)}:
            instance = self.model.instances[number]
            if instance.peer is None:
                raise ModelError(
                    f"instance {instance.name} has no support layer; give it a peer, the address "
                    "of its agent's stream"
                )

    def _advance(self, group: str) -> None:
        """Begin whatever waits for nobody any more, in the order of asking."""
        ahead: list[Match] = []
        for handover in list(self.handovers.values()):
            if handover.group != group or handover.is_over:
                continue
            build = self._waiting.get(handover.number)
            concerns = handover.concerns
            if build is not None and not _meet(concerns, ahead):
                del self._waiting[handover.number]
                self._begin(handover, build)
                if handover.is_over:
                    continue
            elif build is not None and not any("waits" in line for _, line in handover.timeline):
                handover.note("waits for an earlier handover of the same flows")
            ahead += concerns

    def _begin(self, handover: Handover, build: Build) -> None:
        try:
            self._plan(handover, build(self.model))
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
        dpids = self.dpids_of(conductor.handover.group)
        while (left := stale - self.board.youngest(dpids)) > 0:
            await asyncio.sleep(left)
        self._start(conductor)

    def _start(self, conductor: Conductor) -> None:
        self._losses.begin(conductor.handover, conductor.instances)
        conductor.start()

    def _conduct(self, handover: Handover) -> Conductor:
        peers = {k: one.peer for k, one in self.model.instances.items() if one.peer is not None}
        plan = Plan(handover.number, handover.parts, peers, handover.settings)
        reach = self._failpoint.reach
        strategy = strategies.make(handover.strategy, lambda row: reach(row.name))
        conductor = Conductor(self, handover, plan, strategy, self._failpoint)
        self._conductors[handover.number] = conductor
        self._engage(conductor, +1)
        self.metrics.under_way.set(len(self._conductors))
        return conductor

    def _settle_at_once(self, handover: Handover) -> None:
        """No flow changes its instance: no agent is asked."""
        assert handover.change is not None
        handover.note("all flows are there already; no packet was touched")
        after = handover.change.apply(self.model)
        if after != self.model:
            self._adopt(after)
            self._spawn(self._sync_all())
        self._close(handover, HandoverState.DONE, None)

    async def abort(self, handover: Handover, why: str) -> None:
        """Call a handover off; returns when that is sure. Raises `ModelError` if it is too late."""
        number = handover.number
        if handover.is_over:
            raise ModelError(f"handover {number} is over: {handover.state}")
        if self._waiting.pop(number, None) is not None:
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

    # -- handovers: what a conductor needs -----------------------------------------------------

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
        handover.step, handover.data = step, dict(data)
        self.store.save_handover(Record(handover.number, False, handover.as_record()))

    def turn(self, handover: Handover) -> None:
        """Put the new rules in force."""
        assert handover.change is not None
        if handover.done is None:
            self._replace(handover, handover.change)
        self._spawn(self._turn(handover))

    async def _turn(self, handover: Handover) -> None:
        assert handover.undo is not None
        self.board.contest(handover.number, self.model, handover.undo.apply(self.model))
        failed = await self.board.sync(self.dpids_of(handover.group), handover.number)
        if not failed:
            self.board.settle(handover.number)
        conductor = self._conductors.get(handover.number)
        if conductor is not None:
            conductor.feed(TurnRefused("; ".join(failed)) if failed else TurnAccepted())

    def turn_back(self, handover: Handover, parts: tuple[int, ...]) -> None:
        """Put old rules in force again."""
        handover.back |= set(parts)
        if handover.done is not None and handover.undo is not None:
            assert handover.change is not None
            before = handover.undo.apply(self.model)
            ids = iter(lambda: self.store.next_number("rule"), 0)
            left = remainder.turned_back(
                handover.change, before, handover.parts, handover.back, ids
            )
            self._replace(handover, left)
        self._spawn(self._turn_back(handover, parts))

    async def _turn_back(self, handover: Handover, parts: tuple[int, ...]) -> None:
        self.board.settle(handover.number)
        for failed in await self._sync(handover.group):
            handover.note(f"{failed}; it is brought in line when it is back")
        conductor = self._conductors.get(handover.number)
        if conductor is not None:
            conductor.feed(TurnedBack(parts))

    def _replace(self, handover: Handover, change: Change) -> None:
        """Let `change` be what this handover has done to the rules, written down first."""
        before = self.model if handover.undo is None else handover.undo.apply(self.model)
        handover.done, handover.undo = change, change.inverse(before)
        with self.store.together():
            self._adopt(change.apply(before))
            self.store.save_handover(Record(handover.number, False, handover.as_record()))

    def _adopt(self, model: Model) -> None:
        self.model = model
        self.store.save_rules(model)
        self.board.want(model)
        self._measure()
        self.publish("rule", {"rules": len(model.rules)})

    def _measure(self) -> None:
        self.metrics.rules.set(len(self.model.rules))
        self.metrics.instances.set(len(self.model.instances))

    async def _sync(self, group: str) -> list[str]:
        return await self.board.sync(self.dpids_of(group))

    async def adopt(self, model: Model) -> list[str]:
        """Let this be the model from now on: instances have changed. What failed at switches."""
        model = _with_defaults(model)
        with self.store.together():
            self.store.save_instances(self.model, model)
            self._adopt(model)
        return await self.board.sync(self.board.dpids)

    async def _sync_all(self) -> None:
        for failed in await self.board.sync(self.board.dpids):
            LOG.info("%s; it is brought in line when it is back", failed)

    def changed(self, handover: Handover) -> None:
        """Tell who listens."""
        if self.watchers and not handover.is_over:
            self.publish("handover", handover.as_json(self.model, timeline=False))

    def finished(self, handover: Handover, end: Finished) -> None:
        """A strategy is done."""
        conductor = self._conductors.pop(handover.number)
        self._engage(conductor, -1)
        self._losses.end(handover, conductor.instances, asyncio.get_running_loop().time())
        for part in handover.parts:
            self.agents.forget(conductor.plan.wire_id(part))
        self.metrics.under_way.set(len(self._conductors))
        extra = self.agents.data_packets - handover.packets_before
        handover.report = replace(handover.report, controller_packets=extra)
        self._close(handover, end.state, end.error)

    def _close(self, handover: Handover, state: HandoverState, error: str | None) -> None:
        handover.state, handover.error = state, error
        if handover.report.duration_ms is None:  # no strategy has led it to its end
            handover.report = replace(handover.report, duration_ms=handover.age_ms)
        if self.board.settle(handover.number):
            self._spawn(self._sync_all())
        with self.store.together():
            self.store.save_handover(Record(handover.number, True, handover.as_record()))
            self.store.save_positions(self.agents.opener.positions)
        shown = handover.as_json(self.model, timeline=False)
        self.metrics.ended(shown)
        self.publish("handover", shown)
        self._ends.pop(handover.number, asyncio.Event()).set()
        LOG.info("handover %d is %s%s", handover.number, state, f": {error}" if error else "")
        # Not from within the strategy's own call.
        asyncio.get_running_loop().call_soon(self._advance, handover.group)

    async def wait(self, handover: Handover, seconds: float) -> None:
        """Until a handover is over, at most `seconds`."""
        if handover.is_over:
            return
        end = self._ends.setdefault(handover.number, asyncio.Event())
        try:
            await asyncio.wait_for(end.wait(), seconds)
        except TimeoutError:
            return

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
        if handover.undo is not None:
            self.board.contest(handover.number, self.model, handover.undo.apply(self.model))
        self._resuming.add(handover.number)
        self._spawn(self._resume(handover))

    async def _resume(self, handover: Handover) -> None:
        def there() -> bool:
            return all(self.board.ready(dpid) for dpid in self.dpids_of(handover.group))

        try:
            async with asyncio.timeout(PATIENCE), self._ready:
                await self._ready.wait_for(there)
        except TimeoutError:
            handover.note(f"not all switches came back within {PATIENCE:g} s")
        conductor = self._conduct(handover)
        self._resuming.discard(handover.number)
        self._losses.begin(handover, conductor.instances)
        conductor.restore(handover.data)


def _with_defaults(model: Model) -> Model:
    """The model with every group's default written down, so that no other change moves it."""
    for group in model.groups:
        default = model.default(group)
        if default is not None:
            model = model.with_default(group, default.target)
    return model


def _meet(some: list[Match], others: list[Match]) -> bool:
    return any(overlaps(one, other) for one in some for other in others)
