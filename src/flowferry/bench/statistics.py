"""How sure a comparison is: alternating passes, ratios of pairs, bootstrap intervals.

Two arms are never measured one after the other in two blocks: a machine that others use drifts by
more than the differences looked for. They alternate, and the order turns with each pass (A B, B A,
A B, …), so that a steady drift falls on both alike. What is reported is the median of the ratios
within the passes; its interval comes from resampling the passes.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import TypeVar

Arm = TypeVar("Arm")

#: Resamples of a bootstrap: the ends of the interval then repeat to about a hundredth of its width.
RESAMPLES = 10_000


@dataclass(frozen=True)
class Estimate:
    """A median with the ends of its interval of the given confidence, from `samples` values."""

    median: float
    low: float
    high: float
    samples: int
    confidence: float = 0.95


def passes(arms: Sequence[Arm], count: int) -> list[list[Arm]]:
    """The order of measurement: `count` passes over all arms, every other one backwards.

    >>> passes("AB", 3)
    [['A', 'B'], ['B', 'A'], ['A', 'B']]
    """
    return [list(arms) if number % 2 == 0 else list(reversed(arms)) for number in range(count)]


def ratios(candidate: Sequence[float], baseline: Sequence[float]) -> list[float]:
    """Candidate over baseline, pass by pass.

    Raises `ValueError` when the passes do not pair up, or a baseline measured nothing: a ratio to
    zero would hide a broken path behind an infinite gain.
    """
    if len(candidate) != len(baseline):
        raise ValueError(f"{len(candidate)} passes against {len(baseline)}: they do not pair up")
    if any(value <= 0 for value in baseline):
        raise ValueError("a baseline of zero: nothing came through")
    return [one / other for one, other in zip(candidate, baseline, strict=True)]


def estimate(values: Sequence[float], *, confidence: float = 0.95, seed: int = 1) -> Estimate:
    """The median of `values` and its percentile bootstrap interval.

    The same values give the same interval (`seed`). Raises `ValueError` without values.
    """
    if not values:
        raise ValueError("no values")
    draw = random.Random(seed)
    medians = sorted(median(draw.choices(values, k=len(values))) for _ in range(RESAMPLES))
    tail = (1 - confidence) / 2
    low = medians[int(tail * RESAMPLES)]
    high = medians[min(RESAMPLES - 1, int((1 - tail) * RESAMPLES))]
    return Estimate(median(values), low, high, len(values), confidence)
