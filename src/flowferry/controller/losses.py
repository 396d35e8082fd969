"""Packets that an agent held when it ended or failed open: which handover they are a loss of.

A dead agent says nothing. The next one on its maps, or the same one once it goes on, counts what
had been held, and says so in its heartbeats: perhaps long after the handover is over. An agent has
one number for all; if it took part in several handovers, it goes to the first of them.

Pure: times are arguments.
"""

from __future__ import annotations

from collections.abc import Iterable

from flowferry.controller.handover import Handover


class Losses:
    """Who has to bear them."""

    def __init__(self) -> None:
        """Nobody takes part in anything."""
        self._under_way: dict[int, list[Handover]] = {}
        #: Handovers that an instance has failed, until it says what that cost.
        self._failed: dict[int, list[Handover]] = {}
        #: The last handover that an instance took part in, and when it ended.
        self._last: dict[int, tuple[float, Handover]] = {}
        #: What instances have thrown away of parts that were over, by instance and part.
        self._thrown_away: dict[tuple[int, int], int] = {}

    def begin(self, handover: Handover, instances: Iterable[int]) -> None:
        """Instances take part in a handover from now on."""
        for number in instances:
            self._under_way.setdefault(number, []).append(handover)

    def end(self, handover: Handover, instances: Iterable[int], now: float) -> None:
        """It is over."""
        for number in instances:
            self._under_way[number].remove(handover)
            self._last[number] = now, handover

    def died(self, instance: int) -> None:
        """An agent is gone, with what it holds."""
        failed = self._failed.setdefault(instance, [])
        failed += [each for each in self._under_way.get(instance, ()) if each not in failed]

    def late(self, handover: Handover, instance: int, part: int, packets: int) -> int:
        """An agent says what it has thrown away of a part since it was over; what of it is new."""
        new = packets - self._thrown_away.get((instance, part), 0)
        if new <= 0:
            return 0
        self._thrown_away[instance, part] = packets
        held = handover.lost_unsaid.get(instance, handover.report.lost_of.get(instance, 0))
        handover.lost_unsaid[instance] = held + new
        return new

    def tell(self, instance: int, packets: int, fresh: bool, since: float) -> Handover | None:
        """An agent is back and says what had been lost; the handover that bears it.

        `fresh`: another process, so whatever the strategy has heard is not among these packets.
        `since`: when the agent was last heard of before. `None`: there was no handover then.
        """
        candidates: list[Handover] = [
            *self._failed.pop(instance, ()),
            *self._under_way.get(instance, ()),
        ]
        if instance in self._last and self._last[instance][0] > since:
            candidates.append(self._last[instance][1])
        if not candidates:
            return None
        bearer = candidates[0]
        heard = bearer.report.lost_of.get(instance, 0) if fresh else 0
        held = bearer.lost_unsaid.get(instance, 0)
        bearer.lost_unsaid[instance] = held + heard + packets
        return bearer
