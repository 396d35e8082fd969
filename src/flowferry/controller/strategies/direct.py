"""The `direct` strategy: the controller never sees a data packet (docs/direct.md).

# Theory of operation

A handover has parts (`partition.Part`): one source, one destination, one match each. Each part is
a machine of its own (`direct_part`, by the table in `direct_table`); here is what they share.

* **One turn.** Only when every part is ready do the entries change, once for all. Before that a
  failure of one part calls all of them off, and nothing has changed for any packet.
* **After the turn each part goes its own way.** A dead source fails its own flows only; a part
  whose state cannot be moved goes back alone (`TurnBack` names it), while parts whose state is in
  stay moved.
* **A journal of a few lines.** `preparing` at the beginning, `turning` before the turn, `committed`
  before a source may drop its state, `withdrawing`, `regaining` and `reverting` on the way back.
  After a restart the agents are asked where they are; every message may be repeated, so nothing
  else is needed.
* **Bounded waiting.** Every state in which something is waited for has a deadline and a way out.
  Agents that hear nothing for three settling times finish by themselves.

Pure: no I/O, no clock; see `base` for what the shell owes.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count
from typing import Any

from flowferry.controller.strategies.base import (
    AbortRequested,
    Action,
    Decided,
    Event,
    Finished,
    HandoverState,
    InstanceDead,
    Journal,
    Note,
    Plan,
    Received,
    Report,
    SwitchGone,
    SwitchInLine,
    Tick,
    Turn,
    TurnAccepted,
    TurnedBack,
    TurnRefused,
)
from flowferry.controller.strategies.direct_duties import Hook
from flowferry.controller.strategies.direct_part import PartMachine
from flowferry.controller.strategies.direct_table import BACKWARD, BEFORE_TURN, Cue, State
from flowferry.wire import Counter, Flags, Message

_UNTURNED = BEFORE_TURN | {State.CANCELLING, State.CANCELLED}
_SHOWN = {
    State.TURNING: HandoverState.TURNING,
    State.RESUMING: HandoverState.TURNING,
    State.FREEZING: HandoverState.FENCING,
}


class Direct:
    """One handover by `direct`."""

    name = "direct"
    part_machine: type[PartMachine] = PartMachine

    def __init__(self, hook: Hook | None = None) -> None:
        """`hook` is called before each transition of a part; failpoints hang there."""
        self._hook = hook
        self._out: list[Action] = []
        self._parts: dict[int, PartMachine] = {}
        self._finished: Finished | None = None
        self._began_at = 0.0
        self._ended_at: float | None = None
        #: When something happened last.
        self._last_at = 0.0
        #: The switches have been told to turn ...
        self._turned = False
        #: ... and have done so.
        self._in_force = False
        #: Why somebody wants it called off, while it is not known whether that can be.
        self._asked_off: str | None = None

    # --- the interface of a strategy (see `base.Strategy`) ---

    def start(self, plan: Plan, now: float) -> list[Action]:
        """Begin."""
        self._begin(plan, now)
        if self._parts:
            self._journal("preparing")
        for part in self._parts.values():
            part.fire(Cue.PREPARE, now)
        return self._conclude(now)

    def restore(self, plan: Plan, data: Mapping[str, Any], now: float) -> list[Action]:
        """Go on with what the last `Journal` held, or roll back."""
        self._begin(plan, now)
        for number, part in self._parts.items():
            part.restore(data["parts"][str(number)], now)
        # Once a part goes back, the shell knows better than the plan what is to be in force.
        self._turned = any(part.state in BACKWARD for part in self._parts.values())
        self._in_force = self._turned
        return self._conclude(now)

    def handle(self, event: Event, now: float) -> list[Action]:
        """Something happened. What does not fit the state changes nothing."""
        if self._finished is not None:
            return []
        self._notice_standstill(now)
        parts = self._parts.values()
        match event:
            case Received(instance, message, request):
                self._receive(instance, message, request, now)
            case TurnAccepted():
                self._on_turned(None, now)
            case TurnRefused(why):
                self._on_turned(why, now)
            case TurnedBack(numbers):
                for number in numbers:
                    self._parts[number].offer(Cue.TURNED_BACK, now)
            case SwitchGone(dpid):
                self._on_switch_gone(dpid, now)
            case SwitchInLine(dpid, sides):
                if self._is_untouched:
                    # Its old entries may lead to the destination, where packets prove the turn.
                    self._call_off(f"switch {dpid:#x} has come just now; ask again", now)
                for part in parts:
                    part.in_line(sides, now)
            case InstanceDead(instance, why):
                for part in parts:
                    part.die(instance, why, now)
            case AbortRequested(why):
                self._asked_off = why
                self._call_off(why, now)
            case Tick():
                for part in parts:
                    part.tick(now)
        return self._conclude(now)

    @property
    def next_due(self) -> float | None:
        """When `Tick` is wanted at the latest."""
        times = [part.next_due for part in self._parts.values()]
        return min((due for due in times if due is not None), default=None)

    @property
    def state(self) -> HandoverState:
        """Where the handover is: where its hindmost part is."""
        if self._finished is not None:
            return self._finished.state
        states = [part.state for part in self._parts.values() if not part.is_over]
        if any(state in _UNTURNED for state in states):
            return HandoverState.PREPARING
        for state, shown in _SHOWN.items():
            if state in states:
                return shown
        return HandoverState.MOVING

    def report(self, now: float) -> Report:
        """Its figures so far."""
        parts = list(self._parts.values())
        took = None if self._ended_at is None else (self._ended_at - self._began_at) * 1e3
        said = [counts for part in parts for counts in part.counts.values()]
        fences = [counts[Counter.FENCE_US] / 1e3 for counts in said if Counter.FENCE_US in counts]
        transfers = [part.transfer_s for part in parts if part.transfer_s is not None]
        flags = Flags.NONE
        for part in parts:
            flags |= part.flags
        lost: dict[int, int] = {}
        for part in parts:
            for instance, counts in part.counts.items():
                lost[instance] = lost.get(instance, 0) + counts.get(Counter.LOST_PACKETS, 0)
        error = self._finished.error if self._finished else self._why()
        return Report(
            flows=_sum_of_most(parts, Counter.FLOWS),
            duration_ms=took,
            fence_ms=max(fences, default=None),
            transfer_ms=max(transfers) * 1e3 if transfers else None,
            captured_packets=_sum_of_most(parts, Counter.CAPTURED_PACKETS),
            captured_bytes_peak=_sum_of_most(parts, Counter.CAPTURED_BYTES_PEAK),
            stray_packets=_sum_of_most(parts, Counter.STRAY_PACKETS),
            lost_packets=sum(lost.values()),
            lost_of=lost,
            markers=sum(part.markers for part in parts)
            + sum(counts.get(Counter.MARKERS, 0) for counts in said),
            flags=tuple(flag.name.lower() for flag in flags if flag.name),
            gone=tuple(sorted({instance for part in parts for instance in part.dead})),
            error=error,
            parts={number: str(part.state) for number, part in self._parts.items()},
        )

    # --- what the parts share ---

    def _begin(self, plan: Plan, now: float) -> None:
        numbers = count(1)
        self._began_at = self._last_at = now
        self._parts = {
            part.number: self.part_machine(
                plan, part, numbers, self._out, self._journal, self._hook
            )
            for part in plan.parts
        }

    def _receive(self, instance: int, message: Message, request: int | None, now: float) -> None:
        part = self._parts.get(message.handover & 0xFF)
        if part is not None and part.plan.wire_id(part.part) == message.handover:
            part.receive(instance, message, request, now)

    def _on_turned(self, refused: str | None, now: float) -> None:
        self._in_force = refused is None
        for part in self._parts.values():
            if refused is None:
                part.offer(Cue.TURNED, now)
            elif part.state is State.TURNING:
                part.refuse(refused, now)

    @property
    def _is_untouched(self) -> bool:
        """No switch has been asked to turn."""
        return all(part.state in BEFORE_TURN for part in self._parts.values())

    def _on_switch_gone(self, dpid: int, now: float) -> None:
        self._out.append(Note(f"the connection to switch {dpid:#x} is lost"))
        if self._is_untouched:
            self._call_off(f"switch {dpid:#x} is gone", now)

    def _notice_standstill(self, now: float) -> None:
        """Whoever was stopped cannot know whether agents that heard nothing still hold anything.

        They give up what has not turned after three settling times. Requests that are open let
        something happen more often than this.
        """
        still, self._last_at = now - self._last_at, now
        settings = [part.plan.settings for part in self._parts.values()]
        longest = max((max(2 * s.settling_ms, 2 * s.retry_limit_ms) for s in settings), default=0)
        if self._is_untouched and still * 1e3 > longest:
            why = f"the controller stood still for {still:.1f} s before the turn; ask again"
            self._call_off(why, now)

    def _call_off(self, why: str, now: float) -> None:
        for part in self._parts.values():
            part.call_off(why, now)

    def _decide(self) -> None:
        """Say what has become of the request, as soon as no agent or switch can change it."""
        parts = self._parts.values()
        if self._asked_off is None or any(part.is_undecided for part in parts):
            return
        back = any(part.goes_back for part in parts)
        if not back:
            self._out.append(Note(f"too late to call it off ({self._asked_off})"))
        self._out.append(Decided(back))
        self._asked_off = None

    def _conclude(self, now: float) -> list[Action]:
        """What follows from where the parts are now; hand out what is to be done."""
        parts = self._parts.values()
        if any(part.state in (State.CANCELLING, State.CANCELLED) for part in parts):
            why = self._why() or "called off"
            for part in parts:
                if part.state in BEFORE_TURN:
                    part.call_off(why, now)
        if parts and all(part.state is State.READY for part in parts):
            for part in parts:
                part.fire(Cue.TURN, now)
            self._journal("turning")
        self._turn(now)
        self._decide()
        if all(part.is_over for part in parts):
            self._finish(now)
        out = self._out[:]
        self._out.clear()
        return out

    def _turn(self, now: float) -> None:
        parts = self._parts.values()
        turning = [part for part in parts if part.state is State.TURNING]
        if not turning or any(part.state is State.RESUMING for part in parts):
            return
        if not self._turned:
            self._turned = True
            self._out.append(Turn())
        elif self._in_force:
            for part in turning:
                part.fire(Cue.TURNED, now)

    def _journal(self, step: str) -> None:
        data = {"parts": {str(number): part.snapshot() for number, part in self._parts.items()}}
        self._out.append(Journal(step, data))

    def _why(self) -> str | None:
        return next((part.why for part in self._parts.values() if part.why), None)

    def _finish(self, now: float) -> None:
        parts = self._parts.values()
        moved = tuple(n for n, part in self._parts.items() if part.state is State.DONE)
        stateless = any(part.flags & Flags.STATE_LOST for part in parts)
        broken = any(part.broken for part in parts) or stateless
        if len(moved) == len(parts) and not broken:
            state = HandoverState.DONE
        elif not moved and not broken:
            state = HandoverState.ABORTED
        else:
            state = HandoverState.FAILED
        error = self._why()
        if state is HandoverState.DONE and not any(part.flags & Flags.UNFENCED for part in parts):
            error = None  # called off too late, for instance
        elif stateless:
            error = f"state lost: {error}"
        self._ended_at = now
        self._finished = Finished(state, error, moved)
        self._out.append(self._finished)


def _sum_of_most(parts: list[PartMachine], counter: Counter) -> int:
    """Both agents count the same packets and flows; one of them may not have seen all."""
    return sum(
        max((counts.get(counter, 0) for counts in part.counts.values()), default=0)
        for part in parts
    )
