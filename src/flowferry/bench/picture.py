"""A report as a picture: one row a case, its pairs, their median and interval, and the goal."""

from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from flowferry.bench.output import amount
from flowferry.bench.report import Report
from flowferry.bench.statistics import ratios

ROW_INCHES = 0.62


def draw(report: Report, path: Path) -> None:
    """Draw the ratios of all cases as a PNG."""
    figure = Figure(figsize=(9, 1.5 + ROW_INCHES * len(report.cases)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for row, case in enumerate(report.cases):
        pairs = ratios(case.samples[case.candidate], case.samples[case.baseline])
        axes.plot(pairs, [row] * len(pairs), "o", color="0.78", markersize=4, zorder=1)
        found = case.ratio()
        colour = "tab:red" if case.met() is False else "tab:blue"
        axes.plot([found.low, found.high], [row, row], color=colour, linewidth=3, zorder=2)
        axes.plot(found.median, row, "o", color=colour, markersize=7, zorder=3)
        if case.goal is not None and case.goal.measure == "ratio":
            axes.plot([case.goal.bound] * 2, [row - 0.4, row + 0.4], color="black", linewidth=1.5)
        medians = case.medians()
        text = f"{amount(medians[case.candidate])} : {amount(medians[case.baseline])} {case.unit}"
        if case.goal is not None and case.goal.measure == "value":
            text += f" (goal {case.goal.sign} {case.goal.bound:g})"
        axes.annotate(
            text, (1.01, row), xycoords=("axes fraction", "data"), va="center", fontsize=8
        )
    every = [r for case in report.cases for r in (case.ratio().median, 1.0)]
    if max(every) > 20 * min(every):
        axes.set_xscale("log")
    axes.axvline(1, color="0.6", linewidth=0.8, linestyle=":")
    axes.set_yticks(range(len(report.cases)), [case.title for case in report.cases], fontsize=9)
    axes.set_ylim(len(report.cases) - 0.5, -0.5)
    axes.set_xlabel("ratio to the other arm; grey: pairs, bar: 95 % interval, black: goal")
    axes.set_title(report.title, fontsize=10, loc="left")
    figure.savefig(path, dpi=120)
