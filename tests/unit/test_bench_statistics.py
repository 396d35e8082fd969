"""What a comparison says about how sure it is."""

from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowferry.bench.statistics import estimate, passes, ratios

amounts = st.floats(min_value=0.01, max_value=1e9)
some = st.lists(amounts, min_size=1, max_size=25)


@given(count=st.integers(min_value=0, max_value=20))
def test_every_pass_has_every_arm_once(count: int) -> None:
    order = passes("ABC", count)
    assert len(order) == count
    assert all(sorted(one) == ["A", "B", "C"] for one in order)


def test_passes_turn_so_that_a_steady_drift_cancels() -> None:
    flat = [arm for one in passes("AB", 4) for arm in one]
    places = {arm: [n for n, each in enumerate(flat) if each == arm] for arm in "AB"}
    assert sum(places["A"]) == sum(places["B"])


def test_ratios_pair_up_by_pass() -> None:
    assert ratios([1, 6], [2, 3]) == [0.5, 2.0]


def test_passes_that_do_not_pair_up_are_refused() -> None:
    with pytest.raises(ValueError, match="pair"):
        ratios([1.0], [1.0, 2.0])


def test_a_path_that_carried_nothing_is_no_baseline() -> None:
    with pytest.raises(ValueError, match="zero"):
        ratios([1.0], [0.0])


def test_no_values_give_no_estimate() -> None:
    with pytest.raises(ValueError, match="no values"):
        estimate([])


@given(values=some)
def test_the_interval_holds_the_median_and_stays_within_the_values(values: list[float]) -> None:
    found = estimate(values)
    assert min(values) <= found.low <= found.median <= found.high <= max(values)
    assert found.median == median(values)
    assert found.samples == len(values)


@given(values=some)
def test_the_same_values_give_the_same_interval(values: list[float]) -> None:
    assert estimate(values) == estimate(values)


def test_more_confidence_is_a_wider_interval() -> None:
    values = [float(n) for n in range(15)]
    narrow, wide = estimate(values, confidence=0.5), estimate(values, confidence=0.99)
    assert wide.low < narrow.low < narrow.high < wide.high


def test_one_outlier_moves_neither_median_nor_interval_far() -> None:
    calm = estimate([0.98, 0.99, 1.0, 1.01, 1.02, 0.99, 1.0, 1.0, 1.01])
    disturbed = estimate([0.98, 0.99, 1.0, 1.01, 1.02, 0.99, 1.0, 1.0, 0.1])
    assert disturbed.median == calm.median
    assert disturbed.high == pytest.approx(calm.high, abs=0.02)
