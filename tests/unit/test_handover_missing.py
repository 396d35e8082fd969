"""What the crash grid takes for a loss (`handover_missing`)."""

import pytest

from handover_missing import by_way, unexplained


@pytest.mark.parametrize(
    ("there", "replies", "dropped", "lost"),
    [
        (0, 0, (0, 0), 0),
        (0, 0, (7, 7), 0),  # what was dropped was other traffic's
        (3, 3, (3, 0), 0),
        (3, 3, (2, 9), 1),  # replies that were dropped explain no packet on its way there
        (0, 3, (9, 2), 1),
        (2, 5, (2, 3), 0),
        (2, 5, (1, 2), 2),
        (4, 4, (0, 0), 4),
    ],
)
def test_a_queue_explains_what_is_missing_behind_it(
    there: int, replies: int, dropped: tuple[int, int], lost: int
) -> None:
    ways = dict(zip(("there", "back"), dropped, strict=True))
    assert unexplained(by_way(there, replies), ways) == lost
