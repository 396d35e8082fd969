"""What comes after the end: agents that have not heard of it, and losses that are told late.

Enters: messages of handovers that are over, deaths, and counts of what had been held. Leaves:
answers to those agents, and packets for the ledger to book as lost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from flowferry.controller.handover import Handover
from flowferry.controller.ledger import Ledger
from flowferry.controller.losses import Losses
from flowferry.controller.model import Instance
from flowferry.controller.strategies import late
from flowferry.wire import Message

Answer = Callable[[int, Message], object]


class Aftermath:
    """For all handovers."""

    def __init__(self, ledger: Ledger, answer: Answer) -> None:
        """`answer` sends an agent a message."""
        self._ledger, self._answer = ledger, answer
        self._losses = Losses()

    def begin(self, handover: Handover, instances: Iterable[int]) -> None:
        """These instances may lose packets of it from now on."""
        self._losses.begin(handover, instances)

    def end(self, handover: Handover, instances: Iterable[int], now: float) -> None:
        """It is over, as far as its strategy goes."""
        self._losses.end(handover, instances, now)

    def died(self, instance: Instance) -> None:
        """An agent is gone, with what it holds."""
        self._losses.died(instance.id)

    def hear(self, instance: Instance, message: Message) -> None:
        """An agent has not heard the end of a handover; let it have its peace."""
        handover = self._ledger.handovers.get(message.handover >> 8)
        if handover is None or not handover.is_over:
            return
        number = message.handover & 0xFF
        part = next((each for each in handover.parts if each.number == number), None)
        if part is None or instance.id not in (part.source, part.destination):
            return
        at = handover.whereabouts(part)
        reply = late.answer(instance.id, message, at)
        if reply is not None:
            self._answer(instance.id, reply)
        thrown_away = late.thrown_away(instance.id, message, at)
        lost = self._losses.late(handover, instance.id, message.handover, thrown_away)
        if lost:
            self._ledger.lose(handover, instance, lost)

    def lost(self, instance: Instance, packets: int, fresh: bool, since: float) -> None:
        """An agent has counted what was held when it, or the one before it, failed."""
        handover = self._losses.tell(instance.id, packets, fresh, since)
        if handover is not None:
            self._ledger.lose(handover, instance, packets)
