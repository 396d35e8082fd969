"""What a demo says about where packets went amiss."""

from typing import Any

from flowferry.demo.spots import Spot, spots
from flowferry.probe import TimelinePacket

MS = 1_000_000
#: Sent a millisecond apart from 1 s on.
BEGAN, OVER = 1000 * MS, 2000 * MS
MOVES: list[dict[str, Any]] = [
    {"id": 1, "title": "all UDP → i2", "asked_ns": 1100 * MS, "over_ns": 1200 * MS},
    {"id": 2, "title": "ping → i1", "asked_ns": 1500 * MS, "over_ns": 1600 * MS},
]


def arrivals(flow: int, *numbers: int, kind: Any = "in order") -> list[TimelinePacket]:
    return [TimelinePacket(flow, kind, n, BEGAN + n * MS, BEGAN + n * MS + 1) for n in numbers]


def found(packets: list[TimelinePacket], **sent: int) -> list[Spot]:
    counts = {int(name[1:]): count for name, count in sent.items()}
    return spots(packets, counts, MOVES, BEGAN, OVER)


def test_nothing_amiss() -> None:
    assert found(arrivals(0, *range(10)), f0=10) == []


def test_a_loss_is_told_with_flow_time_and_move() -> None:
    missing = range(150, 160)
    packets = arrivals(0, *range(900)) + arrivals(1, *(n for n in range(900) if n not in missing))
    (spot,) = found(packets, f0=900, f1=900)
    assert spot == Spot("lost", 1, 10, 0.149, 0.16, "move 1 (all UDP → i2)")
    assert str(spot) == ("to port 7001, sent from 0.149 to 0.160 s, during move 1 (all UDP → i2)")


def test_losses_close_together_are_one_spot_and_the_worst_comes_first() -> None:
    missing = {300, 310, 320, 700, *range(710, 720)}
    packets = arrivals(0, *(n for n in range(900) if n not in missing))
    assert found(packets, f0=900) == [
        Spot("lost", 0, 11, 0.699, 0.72, None),
        Spot("lost", 0, 3, 0.299, 0.321, None),
    ]
    assert str(found(packets, f0=900)[0]).endswith("while nothing moved")


def test_what_is_missing_at_either_end_counts() -> None:
    assert [spot.packets for spot in found(arrivals(0, *range(5, 400)), f0=407)] == [7, 5]
    (spot,) = found([], f3=4)
    assert (spot.packets, spot.flow, spot.from_s, spot.to_s) == (4, 3, 0.0, 1.0)


def test_late_and_doubled_packets_have_their_spots() -> None:
    packets = arrivals(0, 0, 2, 3) + arrivals(0, 1, kind="reordered")
    packets += arrivals(0, 3, kind="duplicate")
    assert [(spot.what, spot.packets) for spot in found(packets, f0=4)] == [
        ("reordered", 1),
        ("duplicated", 1),
    ]
