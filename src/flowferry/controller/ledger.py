"""All handovers: written down, told of, waited for.

Enters: handovers and what becomes of them. Leaves: records for the journal, events, figures. It
decides nothing, and touches no rule, switch or agent.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from flowferry.controller.api import Metrics
from flowferry.controller.events import Events
from flowferry.controller.handover import Handover
from flowferry.controller.model import Instance, Model
from flowferry.controller.store import Record, Store
from flowferry.controller.strategies.base import HandoverState

LOG = logging.getLogger(__name__)


class Ledger:
    """Handovers by number, with those of before a restart."""

    def __init__(
        self, store: Store, events: Events, metrics: Metrics, model: Callable[[], Model]
    ) -> None:
        """`model`: the one in force, for the names of instances."""
        self._store, self._events, self._metrics, self._model = store, events, metrics, model
        self.handovers: dict[int, Handover] = {}
        self._ends: dict[int, asyncio.Event] = {}

    def restore(self) -> list[Handover]:
        """Read the journal; what was under way."""
        records = self._store.handovers()
        self.handovers.update((each.number, Handover.from_record(each.body)) for each in records)
        return [self.handovers[each.number] for each in records if not each.over]

    def enter(self, handover: Handover) -> None:
        """A new one."""
        self.handovers[handover.number] = handover
        self._save(handover, over=False)

    def journal(self, handover: Handover, step: str, data: Mapping[str, Any]) -> None:
        """Write a step down; it is on disk when this returns."""
        handover.step, handover.data = step, dict(data)
        self._save(handover, over=False)

    def changed(self, handover: Handover) -> None:
        """Tell who listens."""
        if self._events.heard and not handover.is_over:
            self._events.publish("handover", handover.as_json(self._model(), timeline=False))

    def lose(self, handover: Handover, instance: Instance, packets: int) -> None:
        """An agent held packets for it that are lost: perhaps after its end."""
        handover.note(f"instance {instance.name} had held {packets} packets, which are lost")
        if not handover.is_over:
            return self.changed(handover)
        self._metrics.packets.labels("lost").inc(packets)
        self._save(handover, over=True)
        self._events.publish("handover", handover.as_json(self._model(), timeline=False))

    def close(
        self,
        handover: Handover,
        state: HandoverState,
        error: str | None,
        positions: list[tuple[int, int, int]],
    ) -> None:
        """It is over. `positions`: how far control frames have been taken, kept with it."""
        handover.state, handover.error = state, error
        if handover.report.duration_ms is None:  # no strategy has led it to its end
            handover.report = replace(handover.report, duration_ms=handover.age_ms)
        with self._store.together():
            self._save(handover, over=True)
            self._store.save_positions(positions)
        shown = handover.as_json(self._model(), timeline=False)
        self._metrics.ended(shown)
        self._events.publish("handover", shown)
        self._ends.pop(handover.number, asyncio.Event()).set()
        LOG.info("handover %d is %s%s", handover.number, state, f": {error}" if error else "")

    async def wait(self, handover: Handover, seconds: float) -> None:
        """Until a handover is over, at most `seconds`."""
        if handover.is_over:
            return
        end = self._ends.setdefault(handover.number, asyncio.Event())
        try:
            await asyncio.wait_for(end.wait(), seconds)
        except TimeoutError:
            return

    def _save(self, handover: Handover, *, over: bool) -> None:
        self._store.save_handover(Record(handover.number, over, handover.as_record()))
