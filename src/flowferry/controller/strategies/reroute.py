"""`reroute`: turn the switches and leave it at that. State stays behind, packets change places.

The comparison that shows what the others are for. No agent is asked for anything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from flowferry.controller.strategies.base import (
    AbortRequested,
    Action,
    Event,
    Finished,
    HandoverState,
    Journal,
    Note,
    Plan,
    Report,
    Turn,
    TurnAccepted,
    TurnBack,
    TurnedBack,
    TurnRefused,
)


class Reroute:
    """Preparing is nothing; turning; done, or turned back and aborted."""

    name = "reroute"

    def __init__(self, hook: Callable[[Any], None] | None = None) -> None:
        """Before `start`; it has no transitions that `hook` could hear of."""
        self._plan: Plan
        self._began = 0.0
        self._took_ms: float | None = None
        self._state = HandoverState.PREPARING
        self._error: str | None = None

    def start(self, plan: Plan, now: float) -> list[Action]:
        """Turn at once."""
        self._plan, self._began = plan, now
        self._state = HandoverState.TURNING
        return [Journal("turning", {}), Turn()]

    def restore(self, plan: Plan, data: Mapping[str, Any], now: float) -> list[Action]:
        """Turn again: it has the same effect."""
        return self.start(plan, now)

    def handle(self, event: Event, now: float) -> list[Action]:
        """The switches have answered."""
        every = tuple(part.number for part in self._plan.parts)
        if self._state.is_over:
            return []
        match event:
            case TurnAccepted() if self._error is None:
                self._end(HandoverState.DONE, now)
                return [Note("turned"), Finished(self._state, None, every)]
            case TurnRefused(why) | AbortRequested(why) if self._error is None:
                self._error = why
                return [Note(why), TurnBack(every)]
            case TurnedBack():
                self._end(HandoverState.ABORTED, now)
                return [Finished(self._state, self._error, ())]
        return []

    def _end(self, state: HandoverState, now: float) -> None:
        self._state, self._took_ms = state, (now - self._began) * 1e3

    @property
    def next_due(self) -> float | None:
        """Nothing is waited for."""
        return None

    @property
    def state(self) -> HandoverState:
        """Where it is."""
        return self._state

    def report(self, now: float) -> Report:
        """Only the time is known."""
        return Report(duration_ms=self._took_ms, error=self._error)
