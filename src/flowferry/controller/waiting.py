"""Handovers that wait for earlier ones of the same flows.

Those of a group run side by side when no flow belongs to two of them. Otherwise the later one
waits, and is planned when its time has come.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from flowferry.controller.handover import Handover
from flowferry.controller.match import overlaps
from flowferry.controller.planning import Build
from flowferry.wire import Match


class WaitingList:
    """What has not begun, in the order of asking."""

    def __init__(self, handovers: Mapping[int, Handover]) -> None:
        """`handovers`: all there are, by number, kept by somebody else."""
        self._handovers = handovers
        self._builds: dict[int, Build] = {}

    def add(self, handover: Handover, build: Build) -> None:
        """One more."""
        self._builds[handover.number] = build

    def remove(self, handover: Handover) -> bool:
        """Let one go; whether it had waited."""
        return self._builds.pop(handover.number, None) is not None

    def due(self, group: str) -> Iterator[tuple[Handover, Build]]:
        """Those that wait for nobody any more; each is to be begun before the next is asked for.

        One that is over as soon as it has begun stands in nobody's way.
        """
        ahead: list[Match] = []
        for handover in list(self._handovers.values()):
            if handover.group != group or handover.is_over:
                continue
            build = self._builds.get(handover.number)
            concerns = handover.concerns
            if build is not None and not _meet(concerns, ahead):
                del self._builds[handover.number]
                yield handover, build
                if handover.is_over:
                    continue
            elif build is not None and not any("waits" in line for _, line in handover.timeline):
                handover.note("waits for an earlier handover of the same flows")
            ahead += concerns


def _meet(some: list[Match], others: list[Match]) -> bool:
    return any(overlaps(one, other) for one in some for other in others)
