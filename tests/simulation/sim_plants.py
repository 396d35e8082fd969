"""Faults planted in the strategy and around it: what finds none of them proves nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from sim_clock import MS
from sim_scenario import Scenario

from flowferry.controller.strategies.base import Strategy
from flowferry.controller.strategies.direct import Direct
from flowferry.controller.strategies.direct_duties import Hook
from flowferry.controller.strategies.direct_part import PartMachine
from flowferry.controller.strategies.direct_table import Cue
from flowferry.wire import Command, Flags


class BarrierAsFence(PartMachine):
    """The final markers go out on the barrier replies."""

    def _enter_freezing(self, now: float) -> None:
        super()._enter_freezing(now)
        for side in self.part.sides:
            self._mark(self.part.source, side, 0xFFFF_FFFF)


class ReleaseBeforeFence(PartMachine):
    """Once the state is in, the destination is told to wait for no marker."""

    def _enter_settling(self, now: float) -> None:
        super()._enter_settling(now)
        to = self.part.destination
        self._out.append(self._send(to, Command.RELEASE, flags=Flags.UNFENCED))


class LostAbort(PartMachine):
    """The destination never hears that it is called off."""

    def _enter_withdrawing(self, now: float) -> None:
        super()._enter_withdrawing(now)
        self._out.pop()
        self.fire(Cue.WITHDRAWN, now)


class FreezeBeforePromise(PartMachine):
    """The source is frozen first, and gives its state away."""

    def _enter_withdrawing(self, now: float) -> None:
        super()._enter_withdrawing(now)
        self._ask("withdraw", self._abort(self.part.destination, Flags.TURNED), now, now + 0.02)
        self._out.pop()
        self._out.append(self._freeze())


class BackBeforeFence(PartMachine):
    """The source keeps what arrives while old packets may still come."""

    def _enter_halting(self, now: float) -> None:
        self.fire(Cue.FENCED, now)


def forget_listed(record: bytes) -> bytes:
    """A last list becomes empty: what is on it is let go before its state is in."""
    kind, flags = record[0], record[1]
    return record[:10] + bytes(2) if kind == 2 and flags & 1 else record


def keep_state(record: bytes) -> bytes | None:
    """Nobody says whose state comes back when a move is called off."""
    kind, flags = record[0], record[1]
    return None if kind == 2 and flags == 1 else record


@dataclass(frozen=True)
class Plant:
    """A planted fault, and the fault of the world that brings it to light."""

    machine: type[PartMachine] = PartMachine
    fault: str = "none"
    #: The streams deliver records ahead of the strays that were sent before them.
    hasty_records: bool = False
    #: Agents answer flushes without looking at their queues.
    hasty_flushes: bool = False
    #: What becomes of a record on a stream; None: it is not sent.
    spoil: Callable[[bytes], bytes | None] = lambda record: record
    #: Nanoseconds that state takes; None: as drawn.
    slow: int | None = None

    def strategy(self, hook: Hook) -> Callable[[], Strategy]:
        """Makes strategies with it."""
        machine = self.machine

        class Planted(Direct):
            part_machine = machine

        return lambda: Planted(hook)

    def into(self, scenario: Scenario) -> Scenario:
        """The scenario with this fault, and with nothing that would hide it."""
        return replace(
            scenario,
            plant=self,
            fault=self.fault,
            fault_at=scenario.fault_at % (10 * MS if self.slow is None else self.slow),
            fault_part=1,
            fault_on=None,
            prelude="none",
            loss=0.0,
            lateness=0.0,
            stale=max(scenario.stale, 8 * MS),
            stall=0.1,
            steering=4,
            there_and_back=False,
            slow=self.slow or scenario.slow,
            new_flows=True,
        )


PLANTS = {
    "marker on the barrier reply": Plant(BarrierAsFence),
    "release before the fence": Plant(ReleaseBeforeFence),
    "records ahead of strays": Plant(hasty_records=True),
    "flush that proves nothing": Plant(hasty_flushes=True),
    "lost abort": Plant(LostAbort, "abort"),
    "freeze before the promise": Plant(FreezeBeforePromise, "refuse"),
    "back before the fence": Plant(BackBeforeFence, "abort"),
    "listed flows let go": Plant(spoil=forget_listed, slow=60 * MS),
    "state of new flows kept": Plant(fault="abort", spoil=keep_state, slow=400 * MS),
}
