"""The controller's shell around the real strategy: frames, journal, heartbeats, restart."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

from sim_clock import Clock, S

from flowferry.controller.strategies import late
from flowferry.controller.strategies.base import (
    Action,
    Event,
    Finished,
    InstanceDead,
    Journal,
    Note,
    Plan,
    Received,
    Report,
    Send,
    Strategy,
    Tick,
    Turn,
    TurnBack,
)
from flowferry.wire import Command, Flags, KeyRing, Message, Opener, RejectedError, Sealer, Side

HEARTBEAT = S // 20
IDLE_FACTOR = 5
"""Between questions to agents that take part in nothing, in heartbeats."""
DEAD_AFTER = 5
_BLANK = bytes(6)


class Network(Protocol):
    """What the controller acts upon."""

    def down(self, instance: int, side: Side | None, retry: bool, frame: bytes) -> None:
        """Have a switch put a frame out of an instance's port."""

    def turn(self, plan: Plan, parts: tuple[int, ...], back: bool) -> None:
        """Change entries; an event follows."""


@dataclass
class Pulse:
    """One agent's heartbeat."""

    missed: int = 0
    epoch: int | None = None
    boot: int | None = None
    dead: bool = False


def _text(message: Message) -> str:
    """A message in a few words."""
    side = "" if message.side is None else f" {message.side.name.lower()}"
    round_ = "" if message.round is None else f" round {message.round}"
    why = "" if message.error is None else f" ({message.error.text})"
    return f"{message.command.name}{side}{round_}{why} {message.flags or ''}"


class Controller:
    """See the module's head."""

    def __init__(
        self, clock: Clock, keys: KeyRing, network: Network, make: Callable[[], Strategy]
    ) -> None:
        """At rest."""
        self._clock, self._keys, self._network, self._make = clock, keys, network, make
        self.boot = 0
        self.runs = True
        #: What happens while it is stopped.
        self._missed: list[Callable[[], None]] | None = None
        self._plan: Plan | None = None
        self._strategy: Strategy | None = None
        self._journal: dict[int, str] = {}
        self.finished: dict[int, Finished] = {}
        self._over: dict[int, tuple[Plan, Report]] = {}
        #: By instance, as far as it has been told.
        self.epochs: dict[int, int] = {}
        #: Agents that were taken for dead.
        self.buried: set[int] = set()
        self.report = Report()
        self.on_finished: Callable[[Plan, Finished], None] = lambda _plan, _end: None
        self._pulses: dict[int, Pulse] = {}
        #: The boot that asks for heartbeats.
        self._beating = 0
        self._timer: int | None = None
        self._begin_boot()

    def _begin_boot(self) -> None:
        self.boot += 1
        self._sealer = Sealer(self._keys, sender=0, boot=self.boot)
        self._opener = Opener(self._keys, own=0)
        self._requests: dict[tuple[int, int], int] = {}

    @property
    def _now(self) -> float:
        return self._clock.now / S

    # --- a handover ---

    def start(self, plan: Plan) -> None:
        """Begin one."""
        self._plan, self._strategy = plan, self._make()
        ends = {end for part in plan.parts for end in (part.source, part.destination)}
        # Idle agents are asked as well, more slowly: their epochs are known.
        self._pulses = {end: Pulse(epoch=self.epochs.get(end, 1)) for end in sorted(ends)}
        self._carry_out(self._strategy.start(plan, self._now))
        self._begin_to_beat()

    def feed(self, event: Event) -> None:
        """Something happened."""
        if self._missed is not None:
            self._missed.append(lambda: self.feed(event))
            return
        if not self.runs or self._strategy is None:
            return
        self._carry_out(self._strategy.handle(event, self._now))

    def _carry_out(self, actions: list[Action]) -> None:
        plan = self._plan
        assert plan is not None
        for action in actions:
            match action:
                case Send():
                    self._send(action)
                case Turn():
                    self._network.turn(plan, tuple(p.number for p in plan.parts), False)
                case TurnBack(parts):
                    self._network.turn(plan, parts, True)
                case Journal(step, data):
                    self._clock.note(f"controller: journal {step}")
                    self._journal[plan.number] = json.dumps(data)
                case Note(text):
                    self._clock.note(f"controller: {text}")
                case Finished():
                    self._finish(plan, action)
                    return
        self._set_timer()

    def _finish(self, plan: Plan, end: Finished) -> None:
        self._clock.note(f"controller: finished {end.state} {end.error or ''}")
        self.finished[plan.number] = end
        assert self._strategy is not None
        self.report = self._strategy.report(self._now)
        self._over[plan.number] = plan, self.report
        self._strategy = None
        self.on_finished(plan, end)

    def _set_timer(self) -> None:
        due = self._strategy.next_due if self._strategy else None
        at = None if due is None else int(due * S) + 1
        if at is not None and at != self._timer:
            self._timer = at
            self._clock.at(at, self._tick, at, self.boot)

    def _tick(self, at: int, boot: int) -> None:
        if at == self._timer and boot == self.boot:
            self._timer = None
            self.feed(Tick())

    # --- frames ---

    def _send(self, action: Send) -> None:
        message = action.message
        if message.command is Command.PREPARE:
            epoch = self._pulses[action.instance].epoch
            if epoch is None:
                query = Message(command=Command.QUERY, to=action.instance, flags=message.flags)
                self._send(replace(action, message=query))
                return
            message = replace(message, epoch=epoch)
        frame, sent = self._sealer.seal(message, destination=_BLANK, source=_BLANK)
        self._requests[action.instance, sent.sequence] = action.request
        retry = bool(message.flags & Flags.RETRY)
        if message.command is not Command.QUERY:
            self._clock.note(f"controller -> {action.instance}: {_text(message)}")
        self._network.down(action.instance, action.side, retry, frame)

    def on_frame(self, frame: bytes) -> None:
        """A switch has sent a control frame up."""
        if self._missed is not None:
            self._missed.append(lambda: self.on_frame(frame))
            return
        if not self.runs:
            return
        try:
            message = self._opener.open(frame)
        except RejectedError:
            return
        if message.command is not Command.STATUS:
            self._clock.note(f"{message.sender} -> controller: {_text(message)}")
        pulse = self._pulses.setdefault(message.sender, Pulse())
        pulse.missed = 0
        before, pulse.boot = pulse.boot, message.boot
        if before not in (None, message.boot):
            self._bury(message.sender, "its agent was restarted")
        if message.command is Command.STATUS and message.epoch is not None:
            changed = pulse.epoch is not None and pulse.epoch != message.epoch
            pulse.epoch = self.epochs[message.sender] = message.epoch
            if changed:
                self._bury(message.sender, "its agent failed open or was restarted")
        if not message.handover:
            return
        plan = self._plan
        if plan is not None and message.handover >> 8 == plan.number and self._strategy:
            asked = message.in_reply_to
            request = self._requests.get((message.sender, asked.sequence)) if asked else None
            self.feed(Received(message.sender, message, request))
        else:
            self._answer_late(message)

    def _answer_late(self, message: Message) -> None:
        plan, report = self._over.get(message.handover >> 8, (None, None))
        if plan is None or report is None:
            return
        part = next(each for each in plan.parts if each.number == message.handover & 0xFF)
        at = {"done": part.destination, "returned": part.source}.get(report.parts[part.number])
        answer = late.answer(message.sender, message, at)
        if answer is not None:
            to = message.sender
            self._send(Send(to, None, replace(answer, to=to), -1))

    # --- who is alive ---

    def _begin_to_beat(self) -> None:
        if self._beating != self.boot:
            self._beating = self.boot
            self._clock.after(HEARTBEAT, self._beat, 1, self.boot)

    def _beat(self, turn: int, boot: int) -> None:
        if boot != self.boot or not self.runs:
            return
        if self._missed is not None:
            self._missed.append(lambda: self._beat(turn, boot))
            return
        self._clock.after(HEARTBEAT, self._beat, turn + 1, boot)
        engaged = self._strategy is not None
        if not engaged and turn % IDLE_FACTOR:
            return
        for instance, pulse in self._pulses.items():
            pulse.missed += 1
            if engaged and pulse.missed > DEAD_AFTER:
                self._bury(instance, f"no answer to {DEAD_AFTER} heartbeats")
            flags = Flags.RETRY if pulse.missed > 1 else Flags.NONE
            query = Message(command=Command.QUERY, to=instance, flags=flags)
            self._send(Send(instance, None, query, -1))

    def _bury(self, instance: int, why: str) -> None:
        pulse = self._pulses[instance]
        if not pulse.dead:
            pulse.dead = True
            self.buried.add(instance)
            self._clock.note(f"controller: instance {instance} is dead: {why}")
            self.feed(InstanceDead(instance, f"instance {instance}: {why}"))

    # --- faults ---

    def stop(self) -> None:
        """SIGSTOP: what comes waits."""
        self._clock.note("controller: stopped")
        self._missed = []

    def resume(self) -> None:
        """SIGCONT."""
        self._clock.note("controller: resumed")
        missed, self._missed = self._missed or [], None
        for call in missed:
            call()

    def kill(self) -> None:
        """SIGKILL: all but the journal is gone."""
        self._clock.note("controller: killed")
        self.runs, self._missed = False, None
        self._strategy = None
        self._begin_boot()

    def restart(self) -> None:
        """Begin again with the journal."""
        self._clock.note("controller: restarted")
        self.runs = True
        self._pulses = {instance: Pulse() for instance in self._pulses}
        self._begin_to_beat()
        plan = self._plan
        if plan is None or plan.number in self.finished:
            return
        self._strategy = self._make()
        data: Any = json.loads(self._journal[plan.number])
        self._carry_out(self._strategy.restore(plan, data, self._now))
