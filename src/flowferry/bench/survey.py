"""A report of another kind: one row a situation, many figures each, goals for some of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flowferry.bench.report import Report


@dataclass(frozen=True)
class Figure:
    """One column of a survey."""

    name: str
    heading: str
    #: The greatest value that is good enough, or None.
    most: float | None = None

    def met(self, row: Mapping[str, Any]) -> bool | None:
        """Whether a row is good enough here; None if nothing is asked."""
        value = row.get(self.name)
        return None if self.most is None or value is None else bool(value <= self.most)


@dataclass
class Row:
    """One situation. `within` is False where the path itself is past its limit: no goal holds."""

    name: str
    title: str
    values: dict[str, Any]
    within: bool = True
    figures: Sequence[Figure] = field(default_factory=tuple, repr=False)
    #: As `Case`: what belongs to it besides.
    counts: Mapping[str, float] = field(default_factory=dict)

    def met(self) -> bool | None:
        """Whether every goal is reached; None where none holds."""
        if not self.within:
            return None
        answers = [figure.met(self.values) for figure in self.figures]
        known = [answer for answer in answers if answer is not None]
        return all(known) if known else None

    def verdict(self) -> str:
        """`met`, or what was missed."""
        if not self.within:
            return "limit of the path"
        missed = [f.heading for f in self.figures if f.met(self.values) is False]
        return "missed: " + ", ".join(missed) if missed else "met"


@dataclass
class Survey(Report):
    """All rows of an experiment. `cases` are rows, which the command line shows alike."""

    figures: Sequence[Figure] = ()
    #: The figure to draw over the rows, by arms: name of the figure and label.
    drawn: Sequence[tuple[str, str]] = ()
    unit: str = "ms"

    def add(self, name: str, title: str, values: dict[str, Any], *, within: bool = True) -> None:
        """One more row."""
        self.cases.append(Row(name, title, values, within, self.figures))  # type: ignore[arg-type]

    def to_dict(self) -> dict[str, Any]:
        """Plain data, the JSON object of the experiment."""
        rows: list[Any] = list(self.cases)
        cases, self.cases = self.cases, []
        try:
            found = super().to_dict()
        finally:
            self.cases = cases
        found["met"] = self.met()
        found["goals"] = {f.name: f.most for f in self.figures if f.most is not None}
        found["cases"] = [
            {
                "name": row.name,
                "title": row.title,
                **row.values,
                "met": row.met(),
                "verdict": row.verdict(),
            }
            for row in rows
        ]
        return found

    def table_rows(self) -> tuple[list[str], list[list[str]]]:
        """Headings, and the cells of each row."""
        headings = ["case", *(f.heading for f in self.figures), "verdict"]
        rows: list[Any] = list(self.cases)
        cells = [
            [row.title, *(_cell(row.values.get(f.name)) for f in self.figures), row.verdict()]
            for row in rows
        ]
        return headings, cells

    def draw(self, path: Path) -> None:
        """The drawn figures of all rows, side by side, with their goals."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure as Canvas

        rows: list[Any] = list(self.cases)
        canvas = Canvas(figsize=(10, 1.5 + 0.35 * len(rows)), layout="constrained")
        FigureCanvasAgg(canvas)
        axes = canvas.add_subplot()
        goals = {f.name: f.most for f in self.figures}
        for number, (name, label) in enumerate(self.drawn):
            points = [(row.values[name], at) for at, row in enumerate(rows) if row.values.get(name)]
            colour = f"C{number}"
            axes.plot(*zip(*points, strict=True), "o", color=colour, label=label)
            if goals.get(name) is not None:
                axes.axvline(goals[name] or 0, color=colour, linestyle=":", linewidth=1)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.set_yticks(range(len(rows)), [row.title for row in rows], fontsize=8)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlabel(f"{self.unit}; dotted: goals")
        axes.grid(alpha=0.25)
        axes.legend(fontsize=8)
        axes.set_title(self.title, fontsize=10, loc="left")
        canvas.savefig(path, dpi=120)


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.2f}" if value < 100 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
