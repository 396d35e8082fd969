"""Packets that do not arrive: whether full queues of the machine explain them, or a loss.

Pure. Each device of a testbed takes in packets of one way only, so that what its queue has dropped
explains nothing that is missing of the other.
"""

from collections.abc import Mapping

THERE, BACK = WAYS = ("there", "back")


def by_way(there: int, replies: int) -> dict[str, int]:
    """Packets missing on each way.

    `there`: what the far host misses; `replies`: what the near one does, which also gets none to
    what was lost on its way there.
    """
    return {THERE: there, BACK: replies - there}


def unexplained(missing: Mapping[str, int], dropped: Mapping[str, int]) -> int:
    """Packets that are missing on a way beyond those that its queues have dropped."""
    return sum(max(0, missing[way] - dropped[way]) for way in WAYS)
