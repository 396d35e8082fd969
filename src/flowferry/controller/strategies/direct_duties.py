"""One part of a `direct` handover at the controller: its state, and the way into each state.

The table is in `direct_table`; every state has one way in here, `_enter_…`, where its duties stand
and nowhere else. What is heard is in `direct_part`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import count
from typing import Any

from flowferry.controller.partition import Part
from flowferry.controller.strategies import late
from flowferry.controller.strategies.base import Action, Note, Plan, Send, TurnBack
from flowferry.controller.strategies.direct_table import (
    FINAL,
    Cue,
    IllegalMoveError,
    State,
    Transition,
    transition,
)
from flowferry.controller.strategies.requests import Requests
from flowferry.wire import Command, Counter, Flags, Message, Reason, Report, Side

FINAL_ROUND = 0xFFFF_FFFF
"""Round of a marker that fences every flow of its side."""

Hook = Callable[[Transition], None]
"""Called before each transition takes effect; failpoints hang here."""


class Duties:
    """See the module's head. What is to be done is appended to `out`."""

    def __init__(
        self,
        plan: Plan,
        part: Part,
        numbers: count[int],
        out: list[Action],
        journal: Callable[[str], None],
        hook: Hook | None,
    ) -> None:
        """A part that nothing has been done for.

        `numbers` are unique in the handover, `journal` writes a step of it down.
        """
        self.plan = plan
        self.part = part
        self.state = State.WAITING
        #: Why it was called off, or what could not be promised; the first reason stays.
        self.why: str | None = None
        #: It has ended, but not all of that could be confirmed.
        self.broken = False
        #: The state is at the destination. From then on there is no way back.
        self.imported = False
        #: When the step is overdue.
        self.due: float | None = None
        self.flags = Flags.NONE
        #: The last figures of each instance.
        self.counts: dict[int, Mapping[Counter, int]] = {}
        self.markers = 0
        #: From the freeze until the state was in, seconds.
        self.transfer_s: float | None = None
        self._requests = Requests(plan.settings, numbers)
        self._out = out
        self._journal = journal
        self._hook = hook
        #: Not every switch has turned: it cannot go forward.
        self._refused = False
        #: Called off while it is not known yet what the switches do.
        self._pending: str | None = None
        #: Agents that have lost what they held.
        self.dead: set[int] = set()
        self._turned_at = 0.0
        self._back_at = 0.0
        self._frozen_at: float | None = None
        #: The source has dropped its frozen state.
        self._committed = False
        #: The destination has let everything go.
        self._released = False
        #: No final marker goes by a switch that has come back before this, by side.
        self._fences_from: dict[Side, float] = {}
        #: Sides whose final marker the source has answered.
        self._final: set[Side] = set()
        #: Rounds that were asked for before all switches had answered.
        self._early: dict[Side, int] = {}
        #: The destination is known to send back what it has.
        self._gives_back = False
        #: Where the agents say they are, after a restart, and who has only been heard of.
        self._steps: dict[int, tuple[str, Flags]] = {}
        self._heard: set[int] = set()

    @property
    def is_over(self) -> bool:
        """Nothing will happen any more."""
        return self.state in FINAL

    @property
    def next_due(self) -> float | None:
        """When `tick` is wanted."""
        times = [due for due in (self.due, self._requests.next_due) if due is not None]
        return min(times, default=None)

    def fire(self, cue: Cue, now: float) -> None:
        """Go where the table says.

        Raises:
            IllegalMoveError: the table does not have it; nothing has changed.
        """
        row = transition(self.state, cue)
        if row is None:
            raise IllegalMoveError(f"part {self.part.number} is {self.state}: no {cue} there")
        if self._hook is not None:
            self._hook(row)
        self.state = row.after
        self.due = None
        self._requests.clear()
        name = f"part {self.part.number}: " if len(self.plan.parts) > 1 else ""
        self._out.append(Note(f"{name}{cue} -> {row.after}".replace("_", " ")))
        duty: Callable[[float], None] | None = getattr(self, f"_enter_{row.after}", None)
        if duty is not None:
            duty(now)

    # --- what is said ---

    def _send(self, to: int, command: Command, *, flags: Flags = Flags.NONE, **fields: Any) -> Send:
        message = Message(
            command=command, to=to, handover=self.plan.wire_id(self.part), flags=flags, **fields
        )
        # Only a marker means the side it goes by.
        side = message.side if command is Command.MARKER else None
        return Send(to, side, message, 0)

    def _ask(self, name: str, send: Send, now: float, at: float | None = None) -> None:
        self._out += self._requests.ask(name, send, now, at=at)

    def _prepare(self, to: int) -> Send:
        part, settings = self.part, self.plan.settings
        return self._send(
            to,
            Command.PREPARE,
            match=part.match,
            overriding=part.excepts or None,
            priority=part.priority,
            sources=(part.source,),
            destination=part.destination,
            peers=tuple(self.plan.peers[one] for one in (part.source, part.destination)),
            side=part.sides[0] if len(part.sides) == 1 else None,
            deadline_ms=settings.transfer_ms,
            settling_ms=settings.settling_ms,
            strategy="direct",
        )

    def _freeze(self) -> Send:
        deadline_ms = self.plan.settings.transfer_ms
        return self._send(self.part.source, Command.FREEZE, deadline_ms=deadline_ms)

    def _abort(self, to: int, flags: Flags = Flags.NONE) -> Send:
        text = (self.why or "called off")[:300]
        return self._send(to, Command.ABORT, flags=flags, error=Report(Reason.REQUESTED, text))

    def _ask_final_markers(self, to: int, now: float, at: float) -> None:
        for side in self.part.sides:
            marker = self._send(to, Command.MARKER, side=side, round=FINAL_ROUND)
            self._ask(f"final-{side}", marker, now, max(at, self._fences_from.get(side, at)))

    def _mark(self, to: int, side: Side, round_: int) -> None:
        self.markers += 1
        self._out.append(self._send(to, Command.MARKER, side=side, round=round_))

    def _gone(self, instance: int) -> bool:
        return instance in self.dead

    @property
    def _is_fenced(self) -> bool:
        """No packet can come to the source by the old path any more."""
        return self._final.issuperset(self.part.sides)

    @property
    def _deadline(self) -> float:
        return self.plan.settings.deadline_ms / 1e3

    @property
    def _stale_until(self) -> float:
        """When no switch can use an old entry any more."""
        return self._turned_at + self.plan.settings.stale_ms / 1e3

    # --- forward ---

    def _enter_arming(self, now: float) -> None:
        self.due = now + self._deadline
        to = self.part.destination
        self._ask("prepare-destination", self._prepare(to), now)

    def _enter_listing(self, now: float) -> None:
        self.due = now + self._deadline
        self._ask("prepare-source", self._prepare(self.part.source), now)

    def _enter_freezing(self, now: float) -> None:
        self._turned_at = now
        if self.imported:
            return self.fire(Cue.IMPORTED, now)
        if self._gone(self.part.destination):
            return self.fire(Cue.DESTINATION_GONE, now)
        if self._gone(self.part.source):
            return self.fire(Cue.SOURCE_GONE, now)
        if self._pending is not None:
            self.why = self.why or self._pending
            return self.fire(Cue.CALL_OFF, now)
        self.due = now + self._deadline
        self._ask("freeze", self._freeze(), now)
        self._answer_early()

    def _answer_early(self) -> None:
        early, self._early = self._early, {}
        for side, round_ in early.items():
            self._mark(self.part.source, side, round_)

    def _enter_moving(self, now: float) -> None:
        settings = self.plan.settings
        settled = self._turned_at + settings.settling_ms / 1e3
        self.due = now + settings.transfer_ms / 1e3
        self._ask_final_markers(self.part.source, now, settled)

    def _enter_settling(self, now: float) -> None:
        self.imported = True
        self._journal("committed")
        self._out.append(self._send(self.part.destination, Command.COMMIT))
        if self._gone(self.part.destination):
            return self.fire(Cue.DESTINATION_GONE, now)
        if self._gone(self.part.source):
            return self.fire(Cue.SOURCE_GONE, now)
        settled = max(now, self._turned_at + self.plan.settings.settling_ms / 1e3)
        self.due = settled + self._deadline
        if not self._committed:
            self._ask("commit", self._send(self.part.source, Command.COMMIT), now)
        # Repeated until all is released, not only until it is answered: the answer to the
        # destination goes by a stream that may break.
        self._ask_final_markers(self.part.source, now, settled)

    def _enter_forcing(self, now: float) -> None:
        if self._released:
            return self.fire(Cue.RELEASED, now)
        # Once the state is in, there is no way back, whatever the switches said.
        if self._refused and not self.imported:
            return self.fire(Cue.REVERT, now)
        if self._gone(self.part.destination):
            self.broken = not self.imported
            return self.fire(Cue.DESTINATION_GONE, now)
        flags = Flags.UNFENCED | (Flags.NONE if self.imported else Flags.STATE_LOST)
        self.flags |= flags
        # Old packets may still pass the source, which nobody holds up any more.
        at = max(now, self._stale_until)
        self.due = at + self._deadline
        release = self._send(self.part.destination, Command.RELEASE, flags=flags)
        self._ask("force", release, now, at)

    def _enter_closing(self, now: float) -> None:
        """The destination's repeated RELEASED is answered, and the source's strays end."""
        if self._gone(self.part.destination):
            self.broken = True
        self._end_both(now, self._stale_until)
        if not self._requests.open(("release-source", "release-destination")):
            self.fire(Cue.CLOSED, now)

    def _end_both(self, now: float, source_at: float) -> None:
        self.due = max(now, source_at) + self._deadline
        for name, to, at in (
            ("release-destination", self.part.destination, now),
            ("release-source", self.part.source, source_at),
        ):
            release = self._send(to, Command.RELEASE)
            if self._gone(to):
                # It may be alive after all.
                forth = self.state is State.CLOSING
                at = self.part.destination if forth else self.part.source
                word = late.last_word(to, self.plan.wire_id(self.part), at)
                self._out.append(Send(to, None, word, 0))
            else:
                self._ask(name, release, now, at)

    # --- called off before the turn ---

    def _enter_cancelling(self, now: float) -> None:
        self.due = now + self._deadline
        for name, to in (
            ("abort-source", self.part.source),
            ("abort-destination", self.part.destination),
        ):
            if self._gone(to):
                self._out.append(self._abort(to))
            else:
                self._ask(name, self._abort(to), now)
        if not self._requests.open(("abort-source", "abort-destination")):
            self.fire(Cue.LET_GO, now)

    # --- called off after the turn ---

    def _enter_withdrawing(self, now: float) -> None:
        self._journal("withdrawing")
        if not self._turned_at:
            self._turned_at = now
        if self._gone(self.part.destination):
            return self.fire(Cue.DESTINATION_GONE, now)
        if self._gone(self.part.source):
            return self.fire(Cue.SOURCE_GONE, now)
        self.due = now + self._deadline
        self._ask("withdraw", self._abort(self.part.destination, Flags.TURNED), now)

    def _enter_halting(self, now: float) -> None:
        if self._gone(self.part.destination):
            return self.fire(Cue.DESTINATION_GONE, now)
        if self._gone(self.part.source):
            return self.fire(Cue.SOURCE_GONE, now)
        if self._is_fenced:
            return self.fire(Cue.FENCED, now)
        at = max(now, self._stale_until)
        self.due = at + self._deadline
        # No FREEZE: a marker implies it, and until then the source may as well go on serving.
        self._answer_early()
        self._ask_final_markers(self.part.source, now, at)
        # Both agents go on by themselves behind the fence; its report may be lost.
        source = self.part.source
        later = at + self.plan.settings.retry_limit_ms / 1e3
        self._ask(f"query-{source}", self._send(source, Command.QUERY), now, later)

    def _enter_regaining(self, now: float) -> None:
        self._journal("regaining")
        if self._gone(self.part.source):
            return self.fire(Cue.SOURCE_GONE, now)
        self.due = now + self._deadline
        self._ask("regain", self._abort(self.part.source, Flags.TURNED), now)

    def _enter_reverting(self, now: float) -> None:
        self._journal("reverting")
        self._out.append(TurnBack((self.part.number,)))

    def _enter_returning(self, now: float) -> None:
        self._back_at = now
        if self._gone(self.part.source):
            return self.fire(Cue.SOURCE_GONE, now)
        if self._gone(self.part.destination):
            return self.fire(Cue.DESTINATION_GONE, now)
        settled = now + self.plan.settings.settling_ms / 1e3
        self.due = settled + 2 * self._deadline
        self._ask_final_markers(self.part.destination, now, settled)
        # It gives back behind the source's last stray. If the stream has broken, or a switch could
        # not be reached for the fence, that never comes.
        at = now + self._deadline if self._is_fenced else now
        self._ask("withdraw-anyway", self._withdraw_anyway, now, at)

    def _enter_alone(self, now: float) -> None:
        self.due = now + self._deadline
        self.flags |= Flags.UNFENCED
        release = self._send(self.part.source, Command.RELEASE, flags=Flags.UNFENCED)
        self._ask("release-alone", release, now)

    @property
    def _withdraw_anyway(self) -> Send:
        return self._abort(self.part.destination, Flags.TURNED | Flags.UNFENCED)

    def _enter_clearing(self, now: float) -> None:
        self._end_both(now, now)
        to = self.part.destination
        if not self._gives_back and not self._gone(to):
            # It must not keep what it could not give back; nobody takes it any more.
            self._requests.drop("release-destination")
            self._ask("withdraw-anyway", self._withdraw_anyway, now)
        if not self._requests.open(("release-source", "release-destination", "withdraw-anyway")):
            self.fire(Cue.CLEARED, now)

    # --- after a restart of the controller ---

    def _enter_resuming(self, now: float) -> None:
        if self.imported:
            return self.fire(Cue.FOUND, now)
        self.due = now + self._deadline
        for instance in (self.part.source, self.part.destination):
            self._ask(f"query-{instance}", self._send(instance, Command.QUERY), now)
