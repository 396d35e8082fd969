"""The rules in force: first in the journal, then at the switches.

Enters: what handovers change of the rules, and what users change of the instances. Leaves: the
journal's rules and instances, the entries that the switches shall have, and word of each change.
Nobody else replaces the model, writes rules down or asks switches for other entries. A handover's
`done` and `undo`, what it has changed so far and the way back, are written here alone.

Each change has two halves. `turn` and `turn_back` write it down, at once; `put_in_force` and
`put_back` have the switches follow, as long as that takes. What dies in between is found in the
journal, and the switches are compared with it when they are there again.
"""

from __future__ import annotations

from collections.abc import Callable

from flowferry.controller import remainder
from flowferry.controller.change import Change
from flowferry.controller.handover import Handover
from flowferry.controller.model import BOTH_SIDES, Model
from flowferry.controller.store import Record, Store
from flowferry.controller.switchboard import Switchboard
from flowferry.wire import Side


class Rulebook:
    """The model in force, and the only way to another one."""

    def __init__(
        self, configured: Model, store: Store, board: Switchboard, on_change: Callable[[], None]
    ) -> None:
        """`configured` is what there is without a journal; `on_change` hears of each change."""
        self.model = _with_defaults(store.restore(configured))
        self._store, self._board, self._on_change = store, board, on_change
        board.want(self.model)

    def dpids_of(self, group: str) -> list[int]:
        """The switches at both ends of a group."""
        return sorted({self.model.groups[group].at(side).dpid for side in BOTH_SIDES})

    def sides_at(self, group: str, dpid: int) -> tuple[Side, ...]:
        """The sides of a group that a switch is at."""
        ends = self.model.groups[group]
        return tuple(side for side in BOTH_SIDES if ends.at(side).dpid == dpid)

    # -- a handover's changes ------------------------------------------------------------------

    def turn(self, handover: Handover) -> None:
        """Write down what a handover changes."""
        assert handover.change is not None
        if handover.done is None:
            self._replace(handover, handover.change)

    async def put_in_force(self, handover: Handover) -> list[str]:
        """Have its switches follow what `turn` wrote down; what failed.

        If something failed the change is contested, until `put_back` or `settle`: a switch that
        comes back keeps what it has.
        """
        self.contest(handover)
        failed = await self._board.sync(self.dpids_of(handover.group), handover.number)
        if not failed:
            self._board.settle(handover.number)
        return failed

    def turn_back(self, handover: Handover, parts: tuple[int, ...]) -> None:
        """Write down that these parts of it go where they went before."""
        handover.back |= set(parts)
        if handover.done is None or handover.undo is None:
            return
        assert handover.change is not None
        before = handover.undo.apply(self.model)
        ids = iter(lambda: self._store.next_number("rule"), 0)
        left = remainder.turned_back(handover.change, before, handover.parts, handover.back, ids)
        self._replace(handover, left)

    async def put_back(self, handover: Handover) -> list[str]:
        """Have its switches follow what `turn_back` wrote down; what failed."""
        self._board.settle(handover.number)
        return await self._board.sync(self.dpids_of(handover.group))

    def contest(self, handover: Handover) -> None:
        """Let switches keep what they have where this handover has changed something."""
        if handover.undo is not None:
            before = handover.undo.apply(self.model)
            self._board.contest(handover.number, self.model, before)

    def settle(self, handover: Handover) -> bool:
        """It is known again what is right; whether switches may have to be brought in line."""
        return self._board.settle(handover.number)

    def _replace(self, handover: Handover, change: Change) -> None:
        """Let `change` be what this handover has done to the rules, written down first."""
        before = self.model if handover.undo is None else handover.undo.apply(self.model)
        handover.done, handover.undo = change, change.inverse(before)
        with self._store.together():
            self._adopt(change.apply(before))
            self._store.save_handover(Record(handover.number, False, handover.as_record()))

    # -- changes that move no flow -------------------------------------------------------------

    def adopt_rules(self, model: Model) -> None:
        """Write down a model with other rules; `sync_all` puts it in force."""
        with self._store.together():
            self._adopt(model)

    def adopt_instances(self, model: Model) -> None:
        """Write down a model with other instances; `sync_all` puts it in force."""
        model = _with_defaults(model)
        with self._store.together():
            self._store.save_instances(self.model, model)
            self._adopt(model)

    async def sync_all(self) -> list[str]:
        """Have every switch follow; what failed."""
        return await self._board.sync(self._board.dpids)

    def _adopt(self, model: Model) -> None:
        self.model = model
        self._store.save_rules(model)
        self._board.want(model)
        self._on_change()


def _with_defaults(model: Model) -> Model:
    """The model with every group's default written down, so that no other change moves it."""
    for group in model.groups:
        default = model.default(group)
        if default is not None:
            model = model.with_default(group, default.target)
    return model
