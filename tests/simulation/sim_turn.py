"""The turn of the switches' entries: flow-mods, barriers, refusals; switches that go and come."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sim_clock import MS, US
from sim_ledger import SIDES

from flowferry.controller.strategies.base import (
    Event,
    Plan,
    SwitchGone,
    SwitchInLine,
    TurnAccepted,
    TurnedBack,
    TurnRefused,
)
from flowferry.wire import Side

if TYPE_CHECKING:
    from sim_world import World


class Turn:
    """What the controller's shell does with switches."""

    def __init__(self, world: World) -> None:
        """Nothing has turned."""
        self._world, self._clock = world, world.clock
        #: What each switch should have, whether or not it is there to be told ...
        self._wanted: dict[Side, dict[int, int]] = {side: {} for side in SIDES}
        #: ... but for parts whose turn is not decided: there it keeps what it has.
        self.undecided: set[int] = set()

    def turn(self, plan: Plan, parts: tuple[int, ...], back: bool) -> None:
        """Flow-mods and barriers on every switch concerned; the answers come together."""
        boot = self._world.controller.boot
        waiting: set[Side] = set()
        failed: list[str] = []
        if back:
            self.undecided -= set(parts)
        else:
            self.undecided |= set(parts)
        for side in SIDES:
            entries = {
                part.number: part.source if back else part.destination
                for part in plan.parts
                if part.number in parts and side in part.sides
            }
            if not entries:
                continue
            self._wanted[side] |= entries
            if not self._world.switches[side].connected:
                failed.append(f"{side.name.lower()} switch is gone")
                continue
            waiting.add(side)
            self._clock.after(
                self._clock.between(50 * US, 1 * MS),
                self._change,
                side,
                entries,
                back,
                waiting,
                failed,
                boot,
                parts,
            )
        if not waiting:
            self._answer_turn(back, failed, boot, parts)

    def _change(
        self,
        side: Side,
        entries: dict[int, int],
        back: bool,
        waiting: set[Side],
        failed: list[str],
        boot: int,
        parts: tuple[int, ...],
    ) -> None:
        switch = self._world.switches[side]
        if switch.refuses and not back:
            failed.append("table full")
        elif not switch.connected:
            failed.append("gone")
        else:
            switch.change(entries)
        self._clock.note(f"{side.name.lower()} switch: {entries} {failed or ''}")
        self._clock.after(
            self._clock.between(20 * US, 500 * US),
            self._barrier,
            side,
            back,
            waiting,
            failed,
            boot,
            parts,
        )

    def _barrier(
        self,
        side: Side,
        back: bool,
        waiting: set[Side],
        failed: list[str],
        boot: int,
        parts: tuple[int, ...],
    ) -> None:
        waiting.discard(side)
        if not waiting:
            self._answer_turn(back, failed, boot, parts)

    def _answer_turn(
        self, back: bool, failed: list[str], boot: int, parts: tuple[int, ...]
    ) -> None:
        event: Event
        if back:
            event = TurnedBack(parts)
        elif failed:
            event = TurnRefused(failed[0])
        else:
            event = TurnAccepted()
            self.undecided -= set(parts)
        self._clock.after(1, self._tell_turn, event, boot)

    def _tell_turn(self, event: Event, boot: int) -> None:
        if boot == self._world.controller.boot:
            self._world.controller.feed(event)

    def disconnect(self, side: Side) -> None:
        self._world.switches[side].connected = False
        self._world.controller.feed(SwitchGone(int(side), (side,)))

    def connect(self, side: Side) -> None:
        self._world.switches[side].connected = True
        decided = {
            part: end for part, end in self._wanted[side].items() if part not in self.undecided
        }
        self._world.switches[side].change(decided)
        self._world.controller.feed(SwitchInLine(int(side), (side,)))
