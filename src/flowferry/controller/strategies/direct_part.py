"""One part of a `direct` handover at the controller: what is heard, and what follows from it.

What instances say is *offered* to the table: what does not fit the state changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from flowferry.controller.strategies.direct_duties import FINAL_ROUND, Duties
from flowferry.controller.strategies.direct_table import (
    BACKWARD,
    BEFORE_TURN,
    FINAL,
    FORWARD,
    Cue,
    State,
    transition,
)
from flowferry.wire import Command, Flags, Message, Reason, Report, Side

#: Steps (docs/hsl.md) in which an agent does not have the part any more, or gives it up.
_FORGOTTEN = frozenset({"none", "over", "withdrawing", "discarding"})
_HAS_IMPORTED = frozenset({"imported", "releasing", "released", "closing"})
_HAS_REGAINED = frozenset({"regaining", "resuming", "releasing", "released"})
_BACK = BACKWARD | {
    State.CANCELLING,
    State.CANCELLED,
    State.HALTING,
    State.REGAINING,
    State.RETURNED,
}
_REPORTED = Flags.DRAIN_UNPROVEN | Flags.UNFENCED | Flags.STATE_LOST


class PartMachine(Duties):
    """See the module's head."""

    def offer(self, cue: Cue, now: float) -> bool:
        """`fire` if the table has it; whether it had."""
        if transition(self.state, cue) is None:
            return False
        self.fire(cue, now)
        return True

    def refuse(self, why: str, now: float) -> None:
        """Not every switch has turned."""
        self._refused = True
        self.why = self.why or f"the switches have not all turned: {why}"
        self.fire(Cue.REFUSED, now)

    def call_off(self, why: str, now: float) -> None:
        """Somebody wants it back; nothing changes if it is too late, or over."""
        if self.state in (State.TURNING, State.RESUMING):
            self._pending = self._pending or why
        elif transition(self.state, Cue.CALL_OFF) is not None:
            self.why = self.why or why
            self.fire(Cue.CALL_OFF, now)

    @property
    def is_undecided(self) -> bool:
        """It is called off, and the destination may have imported already."""
        pending = self._pending is not None and self.state in (State.TURNING, State.RESUMING)
        return pending or self.state is State.WITHDRAWING

    @property
    def goes_back(self) -> bool:
        """Its flows will be at the source, unless that dies."""
        return self.state in _BACK

    def in_line(self, sides: Iterable[Side], now: float) -> None:
        """A switch is back, and may use old entries still, as after a turn."""
        for side in sides:
            self._fences_from[side] = now + self.plan.settings.stale_ms / 1e3
            self._requests.postpone(f"final-{side}", self._fences_from[side])

    def die(self, instance: int, why: str, now: float) -> None:
        """An agent has lost what it held."""
        if instance not in (self.part.source, self.part.destination) or instance in self.dead:
            return
        self.dead.add(instance)
        if self.is_over:
            return
        self.why = self.why or why
        if instance == self.part.source:
            self._requests.drop("freeze", "regain", "commit", "release-source", "abort-source")
            self.offer(Cue.SOURCE_GONE, now)
        else:
            self._requests.drop("withdraw", "withdraw-anyway", "force")
            self._requests.drop("release-destination", "abort-destination")
            self.offer(Cue.DESTINATION_GONE, now)
        self._go_on(now)

    def tick(self, now: float) -> None:
        """Repeat what is due; past the deadline, take the other way out."""
        if self.due is not None and now >= self.due:
            self.due = None
            self._overdue(now)
        self._out += self._requests.due(now)

    def snapshot(self) -> dict[str, Any]:
        """What `restore` needs; JSON."""
        return {
            "state": str(self.state),
            "imported": self.imported,
            "refused": self._refused,
            "why": self.why,
        }

    def restore(self, data: Mapping[str, Any], now: float) -> None:
        """Go on from a snapshot."""
        state = State(data["state"])
        self.imported, self._refused = bool(data["imported"]), bool(data["refused"])
        self.why = data["why"]
        self._turned_at = now
        self._final = set(self.part.sides)
        if state in FINAL:
            self.state = state
        elif state in BEFORE_TURN or state is State.CANCELLING:
            self.call_off("the controller was restarted before the switches had turned", now)
        elif state is State.REGAINING:
            self.fire(Cue.FENCED, now)
        elif state in (State.WITHDRAWING, State.HALTING):
            self._final.clear()
            self.fire(Cue.WITHDRAW, now)
        elif state in BACKWARD:
            self.fire(Cue.REVERT, now)
        else:
            self._final.clear()
            self.fire(Cue.RESUME, now)

    def receive(self, instance: int, message: Message, request: int | None, now: float) -> None:
        """A control message about this part."""
        if instance not in (self.part.source, self.part.destination):
            return
        self.flags |= message.flags & _REPORTED
        if message.counts is not None and message.command is not Command.SEEN:
            self.counts[instance] = message.counts
        match message.command:
            case Command.ACK:
                self._on_ack(request, message, now)
            case Command.NACK:
                self._on_nack(request, message, now)
            case Command.SEEN:
                self._on_seen(instance, message, now)
            case Command.FENCED:
                self._on_fenced(instance, message, now)
            case Command.IMPORTED if instance == self.part.destination:
                self._on_imported(now)
            case Command.RELEASED if instance == self.part.destination:
                self._on_released(now)
            case Command.ABORTED:
                self._on_aborted(instance, now)
            case Command.ABORT:
                text = message.error.text if message.error else "it did not say why"
                self.call_off(f"instance {instance} asks to call it off: {text}", now)
            case Command.STATUS if message.step is not None:
                self._on_status(instance, message, now)
            case _:
                pass
        self._go_on(now)

    def _on_ack(self, request: int | None, message: Message, now: float) -> None:
        name = self._requests.take(request)
        over = message.counts is not None
        match name:
            case "prepare-destination":
                self.fire(Cue.ARMED, now)
            case "prepare-source":
                self.fire(Cue.LISTED, now)
            case "freeze":
                if self._frozen_at is None:
                    self._frozen_at = now
                self.offer(Cue.FROZEN, now)
            case "commit":
                self._committed = True
            case "regain":
                self.fire(Cue.REGAINED, now)
            case "withdraw":
                self.fire(Cue.WITHDRAWN, now)
            case "withdraw-anyway":
                self._gives_back = True
                self._end_destination(now)
            case "force" if over:  # it had been released before
                self._released = True
                self.fire(Cue.RELEASED, now)
            case "release-alone" if over:
                self.fire(Cue.GIVEN_BACK, now)
            case _:
                pass

    def _on_nack(self, request: int | None, message: Message, now: float) -> None:
        name = self._requests.take(request)
        error = message.error or Report(Reason.OTHER, "it did not say why")
        said = f"instance {message.sender} refused: {error.text}"
        match name:
            case "prepare-destination" | "prepare-source":
                self.call_off(said, now)
            case "withdraw" if error.reason is Reason.WRONG_STATE:
                self.fire(Cue.TOO_LATE, now)
            case "freeze" | "regain" | "withdraw" | "force" | "release-alone":
                # It does not have the part any more, whatever became of the process.
                self.die(message.sender, said, now)
            case "commit":
                self._committed = True
            case "withdraw-anyway":
                self._end_destination(now)
            case _:
                pass  # there is nothing left to end

    def _end_destination(self, now: float) -> None:
        if self.state is State.CLEARING:
            release = self._send(self.part.destination, Command.RELEASE)
            self._ask("release-destination", release, now)

    def _go_on(self, now: float) -> None:
        """Leave a state in which nothing is waited for any more."""
        waits = self._requests.open
        if self.state is State.SETTLING and self._released and self._committed:
            self.fire(Cue.RELEASED, now)
        if self.state is State.CANCELLING and not waits(("abort-source", "abort-destination")):
            self.fire(Cue.LET_GO, now)
        elif self.state in (State.CLOSING, State.CLEARING) and not waits(
            ("release-source", "release-destination", "withdraw-anyway")
        ):
            self.fire(Cue.CLOSED if self.state is State.CLOSING else Cue.CLEARED, now)

    def _on_seen(self, instance: int, message: Message, now: float) -> None:
        side, round_ = message.side, message.round
        if side is None or round_ is None:
            return
        forward = instance == self.part.destination
        if self.state is State.RESUMING:
            self._heard.add(instance)  # it keeps what comes
        elif forward and self.state is State.TURNING:
            self._early[side] = round_
        elif self.state in FORWARD if forward else self.state is State.RETURNING:
            self._mark(self.part.source if forward else self.part.destination, side, round_)

    def _on_fenced(self, instance: int, message: Message, now: float) -> None:
        side, round_ = message.side, message.round
        if side is None or round_ is None:
            return
        if instance == self.part.destination:
            self._gives_back = True
        elif round_ == FINAL_ROUND:
            self._final.add(side)
            if self.state is State.HALTING and self._is_fenced:
                self.fire(Cue.FENCED, now)

    def _on_imported(self, now: float) -> None:
        if not self.imported and self._frozen_at is not None:
            self.transfer_s = now - self._frozen_at
        if not self.offer(Cue.IMPORTED, now) and self.imported:
            self._out.append(self._send(self.part.destination, Command.COMMIT))  # once more

    def _on_released(self, now: float) -> None:
        if self.state in BACKWARD or self.is_over:
            # It was taken for dead, or has not heard the answer.
            self._out.append(self._send(self.part.destination, Command.RELEASE))
            return
        self._released = True
        if not self.flags & Flags.STATE_LOST:
            self.offer(Cue.IMPORTED, now)
        elif self.state is not State.FORCING:
            # It let go by itself, without the state: nobody led it for too long.
            self.why = self.why or f"instance {self.part.destination} let go without the state"
            self.offer(Cue.SOURCE_GONE, now)
        if self.state is State.FORCING:
            self.fire(Cue.RELEASED, now)

    def _on_aborted(self, instance: int, now: float) -> None:
        if self.state is State.CANCELLING:
            source = instance == self.part.source
            self._requests.drop("abort-source" if source else "abort-destination")
        elif instance == self.part.source:
            # Or it has taken its flows back alone, and let them go: nobody led it for too long.
            self.offer(Cue.GIVEN_BACK, now) or self.offer(Cue.REGAINED, now)
        elif self.state is State.WITHDRAWING:
            said = f"instance {instance} had given back already, while nobody led it"
            self.die(instance, said, now)

    def _on_status(self, instance: int, message: Message, now: float) -> None:
        halted = self.state is State.HALTING and instance == self.part.source
        if halted and message.step in _HAS_REGAINED:
            self._final = set(self.part.sides)
            self.fire(Cue.FENCED, now)
        if self.state is not State.RESUMING or message.step is None:
            return
        self._requests.drop(f"query-{instance}")
        self._steps[instance] = (message.step, message.flags)
        if len(self._steps) == 2:
            self._find(now)

    def _find(self, now: float) -> None:
        """Where to go on after a restart. An agent that has not answered is gone."""
        source, destination = self.part.source, self.part.destination
        for instance in (source, destination):
            silent = "armed" if instance in self._heard else "none"
            self._steps.setdefault(instance, (silent, Flags.NONE))
        step, flags = self._steps[destination]
        # Agents that nobody leads finish forward by themselves, and say so.
        alone = step == "over" and bool(flags & Flags.UNFENCED)
        self.imported = alone or step in _HAS_IMPORTED
        self._released = alone
        if step in _FORGOTTEN and not alone:
            self.dead.add(destination)
        if self._steps[source][0] in _FORGOTTEN:
            self.dead.add(source)
        gone = destination in self.dead
        self.fire(Cue.DESTINATION_GONE if gone else Cue.FOUND, now)

    def _overdue(self, now: float) -> None:
        source, destination = self.part.source, self.part.destination
        late: str | None = None
        match self.state:
            case State.ARMING | State.WITHDRAWING:
                late = f"instance {destination} did not answer in time; look at its agent"
            case State.LISTING | State.FREEZING | State.REGAINING:
                late = f"instance {source} did not answer in time; look at its agent"
            case State.MOVING:
                late = f"the state was not in after {self.plan.settings.transfer_ms} ms"
            case State.FORCING | State.ALONE:
                self.broken = True
                late = "the release was not confirmed in time"
            case State.RESUMING:
                self.why = self.why or "an agent did not answer the restarted controller"
                return self._find(now)
            case State.SETTLING if self._released:
                return self.fire(Cue.RELEASED, now)
            case _:
                pass
        self.why = self.why or late
        if self.state is State.REGAINING:
            self.dead.add(source)
        if self.state is State.WITHDRAWING:
            self.dead.add(destination)
        self.offer(Cue.OVERDUE, now)
