"""One handover under way: feeds its strategy with events and carries out what it answers.

The strategy is pure; the clock, the timer, the journal and the wire are here. Actions are carried
out in their order; what has to be waited for (a turn) comes back as an event.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Protocol

from flowferry.controller.handover import Handover
from flowferry.controller.strategies.base import (
    AbortRequested,
    Action,
    Decided,
    Event,
    Finished,
    HandoverState,
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
from flowferry.wire import Message, Side

LOG = logging.getLogger(__name__)
#: Requests whose answers are still recognised.
MOST_REQUESTS = 4096
#: Seconds after which new figures are told of at the latest.
TOLD_EVERY = 0.02


class World(Protocol):
    """What a conductor needs of the service."""

    def send(self, number: int, side: Side | None, message: Message) -> list[int]:
        """Send; the sequence numbers of the frames, none if there was no way."""

    def journal(self, handover: Handover, step: str, data: Mapping[str, Any]) -> None:
        """Write a step down; it is on disk when this returns."""

    def turn(self, handover: Handover) -> None:
        """Begin to turn; `TurnAccepted` or `TurnRefused` follows."""

    def turn_back(self, handover: Handover, parts: tuple[int, ...]) -> None:
        """Begin to turn parts back; `TurnedBack` follows."""

    def changed(self, handover: Handover) -> None:
        """It may look different now."""

    def finished(self, handover: Handover, end: Finished) -> None:
        """It is over."""


class Conductor:
    """Runs one strategy."""

    def __init__(
        self,
        world: World,
        handover: Handover,
        plan: Plan,
        strategy: Strategy,
        failpoint: Failpoint,
    ) -> None:
        """Nothing happens before `start` or `restore`."""
        self._world, self.handover, self.plan, self._strategy = world, handover, plan, strategy
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._due: float | None = None
        self._telling: asyncio.TimerHandle | None = None
        self._told: HandoverState | None = None
        self._events: deque[Event] = deque()
        #: Before the start, and while actions are carried out, events wait.
        self._busy = True
        self._requests: dict[tuple[int, int], int] = {}
        self._failpoint = failpoint
        #: Instances whose death has been told.
        self.dead: set[int] = set()
        self.started = False
        self.over = False
        #: Whether it is called off, for those who have asked.
        self._decision: asyncio.Future[bool] | None = None
        #: From the handover's beginning to a restart of the controller, milliseconds.
        self._before_ms = 0.0

    @property
    def instances(self) -> set[int]:
        """All that take part."""
        return {end for part in self.plan.parts for end in (part.source, part.destination)}

    def start(self) -> None:
        """Begin."""
        self.started = True
        self.handover.begin()
        self._carry_out(self._strategy.start(self.plan, self._loop.time()))
        self._drain()

    def restore(self, data: Mapping[str, Any]) -> None:
        """Go on from a journalled step."""
        self.started = True
        self._before_ms = self.handover.age_ms
        self._carry_out(self._strategy.restore(self.plan, data, self._loop.time()))
        self._drain()

    def feed(self, event: Event) -> None:
        """Something happened. What happens while actions are carried out waits."""
        if self.over:
            return
        self._events.append(event)
        if not self._busy:
            self._busy = True
            self._drain()

    async def call_off(self, why: str) -> bool:
        """Ask for an end; once it is known, whether the flows go back (false: it was too late)."""
        if self._decision is None:
            self._decision = self._loop.create_future()
        decision = self._decision
        self.feed(AbortRequested(why))
        return await asyncio.shield(decision)

    def _decide(self, called_off: bool) -> None:
        if self._decision is not None:
            self._decision.set_result(called_off)
            self._decision = None

    def hear(self, instance: int, message: Message) -> None:
        """An agent has said something."""
        request = None
        if message.in_reply_to is not None:
            request = self._requests.get((instance, message.in_reply_to.sequence))
        self.feed(Received(instance, message, request))

    def _drain(self) -> None:
        try:
            while self._events and not self.over:
                event = self._events.popleft()
                try:
                    actions = self._strategy.handle(event, self._loop.time())
                except Exception as error:
                    # An illegal move raises and changes nothing; deadlines lead on from there.
                    LOG.exception("handover %d: %s", self.handover.number, event)
                    self.handover.note(f"refused {type(event).__name__}: {error}")
                    continue
                self._carry_out(actions)
        finally:
            self._busy = False
        self._set_timer()
        if not self.over:
            self._tell_of_it()

    def _set_timer(self) -> None:
        due = None if self.over else self._strategy.next_due
        if due == self._due:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._due = due
        self._timer = None if due is None else self._loop.call_at(due, self._tick)

    def _tick(self) -> None:
        self._timer = self._due = None
        self.feed(Tick())

    def _tell_of_it(self) -> None:
        """A new state at once; figures soon, and together: packets wait for the next event."""
        if self._strategy.state != self._told:
            self._tell()
        elif self._telling is None:
            self._telling = self._loop.call_later(TOLD_EVERY, self._tell)

    def _tell(self) -> None:
        if self._telling is not None:
            self._telling.cancel()
            self._telling = None
        if not self.over:
            self._update()
            self._told = self.handover.state
            self._world.changed(self.handover)

    def _update(self) -> None:
        handover = self.handover
        if not self.over:
            handover.state = self._strategy.state
            handover.report = self._report()

    def _report(self) -> Report:
        """The strategy's, which knows nothing of the time before a restart."""
        report = self._strategy.report(self._loop.time())
        if report.duration_ms is None:
            return report
        return replace(report, duration_ms=self._before_ms + report.duration_ms)

    def _carry_out(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Send():
                    self._send(action)
                case Turn():
                    self._world.turn(self.handover)
                case TurnBack():
                    self._world.turn_back(self.handover, action.parts)
                case Journal():
                    self._failpoint.reach(f"before-{action.step}")
                    self._update()
                    self._world.journal(self.handover, action.step, action.data)
                    self._failpoint.reach(action.step)
                case Note():
                    self.handover.note(action.text)
                case Decided():
                    self._decide(action.called_off)
                case Finished():
                    self._finish(action)

    def _send(self, action: Send) -> None:
        sequences = self._world.send(action.instance, action.side, action.message)
        for sequence in sequences:
            self._requests[action.instance, sequence] = action.request
        while len(self._requests) > MOST_REQUESTS:
            del self._requests[next(iter(self._requests))]

    def _finish(self, end: Finished) -> None:
        handover = self.handover
        self.over = True
        handover.report = self._report()
        handover.state, handover.error = end.state, end.error
        self._set_timer()
        self._decide(end.state is not HandoverState.DONE)
        self._world.finished(handover, end)


class Failpoint:
    """For tests: STEP:kill or STEP:stop, with @N; a step is a journalled one or a transition."""

    def __init__(self, text: str | None) -> None:
        """Parse it."""
        step, _, rest = (text or "").rpartition(":")
        what, _, times = rest.partition("@")
        self._step, self._what, self._left = step, what, int(times or 1)

    def reach(self, step: str) -> None:
        """A step has been reached."""
        if not self._step or step != self._step:
            return
        self._left -= 1
        if self._left == 0:
            number = signal.SIGKILL if self._what == "kill" else signal.SIGSTOP
            os.kill(os.getpid(), number)
