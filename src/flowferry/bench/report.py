"""What an experiment found: cases, each a comparison of two arms or one absolute figure.

A case knows its goal; its verdict is about the median, and says when the interval does not
exclude the opposite.
"""

import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any, Literal

from flowferry.bench.statistics import Estimate, estimate, ratios

Measure = Literal["ratio", "value"]


@dataclass(frozen=True)
class Goal:
    """At least `least`, or at most `most`: of the ratio of the arms, or the candidate's value."""

    least: float | None = None
    measure: Measure = "ratio"
    most: float | None = None

    @property
    def bound(self) -> float:
        """The figure itself."""
        bound = self.least if self.most is None else self.most
        assert bound is not None, "a goal has a bound"
        return bound

    @property
    def sign(self) -> str:
        """How figure and bound are compared, for people."""
        return "≥" if self.most is None else "≤"

    def reached(self, figure: float) -> bool:
        """Whether a figure is on the right side."""
        return figure >= self.bound if self.most is None else figure <= self.bound


@dataclass
class Case:
    """One comparison. `samples` holds a value per pass for each arm, in passes order."""

    name: str
    #: For people: what was compared.
    title: str
    unit: str
    baseline: str
    candidate: str
    samples: dict[str, list[float]]
    goal: Goal | None = None
    #: Packets by fate, summed over the passes, and other counts that belong to the candidate.
    counts: dict[str, float] = field(default_factory=dict)
    #: Counts that have to be zero for the case to pass at all.
    zero: tuple[str, ...] = ()

    def ratio(self) -> Estimate:
        """Candidate over baseline."""
        return estimate(ratios(self.samples[self.candidate], self.samples[self.baseline]))

    def value(self) -> Estimate:
        """The candidate's own figure, in `unit`."""
        return estimate(self.samples[self.candidate])

    def judged(self) -> Estimate:
        """What the goal is about; the ratio when there is none."""
        by_value = self.goal is not None and self.goal.measure == "value"
        return self.value() if by_value else self.ratio()

    def medians(self) -> dict[str, float]:
        """The median of each arm, in `unit`."""
        return {arm: median(values) for arm, values in self.samples.items()}

    def amiss(self) -> dict[str, float]:
        """Counts that should be zero and are not."""
        return {name: self.counts[name] for name in self.zero if self.counts.get(name, 0) != 0}

    def met(self) -> bool | None:
        """Whether the goal is reached; None without a goal."""
        if self.amiss():
            return False
        if self.goal is None:
            return None
        return self.goal.reached(self.judged().median)

    def verdict(self) -> str:
        """`met`, `missed`, with a question mark when the interval allows the opposite."""
        if self.amiss():
            return "wrong: " + ", ".join(f"{n} {v:,.0f}" for n, v in self.amiss().items())
        met = self.met()
        if met is None or self.goal is None:
            return ""
        found = self.judged()
        sure = self.goal.reached(found.low) == self.goal.reached(found.high) == met
        return ("met" if met else "missed") + ("" if sure else "?")

    def to_dict(self) -> dict[str, Any]:
        """Plain data, the JSON object of the case."""
        return {
            "name": self.name,
            "title": self.title,
            "unit": self.unit,
            "baseline": self.baseline,
            "candidate": self.candidate,
            "medians": self.medians(),
            "ratio": asdict(self.ratio()),
            "value": asdict(self.value()),
            "goal": asdict(self.goal) if self.goal else None,
            "met": self.met(),
            "verdict": self.verdict(),
            "counts": self.counts,
            "samples": self.samples,
        }


@dataclass
class Report:
    """All cases of an experiment."""

    experiment: str
    title: str
    settings: Mapping[str, Any]
    cases: list[Case] = field(default_factory=list)

    def met(self) -> bool:
        """Whether no case failed."""
        return all(case.met() is not False for case in self.cases)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, the JSON object of the experiment."""
        return {
            "experiment": self.experiment,
            "title": self.title,
            "met": self.met(),
            "settings": dict(self.settings),
            "machine": {
                "cpus": os.cpu_count(),
                "kernel": platform.release(),
                "architecture": platform.machine(),
            },
            "cases": [case.to_dict() for case in self.cases],
        }
