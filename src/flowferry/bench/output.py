"""A report as a table, a CSV, a JSON object and a picture."""

import csv
import json
from pathlib import Path
from typing import Any

from rich.table import Table

from flowferry.bench.report import Case, Report
from flowferry.bench.statistics import Estimate
from flowferry.bench.survey import Survey


def write(report: Report, directory: Path) -> list[Path]:
    """Write all three files, named after the experiment; returns them."""
    # matplotlib takes half a second to import, which a table alone need not wait for.
    from flowferry.bench import picture

    directory.mkdir(parents=True, exist_ok=True)
    paths = [directory / f"{report.experiment}.{kind}" for kind in ("csv", "json", "png")]
    with paths[0].open("w", newline="") as file:
        writer = csv.writer(file)
        if isinstance(report, Survey):
            cases = report.to_dict()["cases"]
            writer.writerow(cases[0])
            writer.writerows(case.values() for case in cases)
        else:
            writer.writerow(["case", "arm", "pass", "value", "unit"])
            writer.writerows(rows(report))
    paths[1].write_text(json.dumps(report.to_dict(), indent=1) + "\n")
    if isinstance(report, Survey):
        report.draw(paths[2])
    else:
        picture.draw(report, paths[2])
    return paths


def rows(report: Report) -> list[list[Any]]:
    """Every sample: case, arm, pass (from 1), value, unit."""
    return [
        [case.name, arm, number, value, case.unit]
        for case in report.cases
        for arm, values in case.samples.items()
        for number, value in enumerate(values, start=1)
    ]


def table(report: Report) -> Table:
    """One row a case."""
    if isinstance(report, Survey):
        headings, cells = report.table_rows()
        survey = Table(*headings, title=report.title, box=None, pad_edge=False)
        for row in cells:
            survey.add_row(*row)
        return survey
    columns = ("case", "without", "with", "unit", "ratio [95 %]", "goal", "verdict")
    result = Table(*columns, title=report.title, box=None, pad_edge=False, title_justify="left")
    for case in report.cases:
        medians = case.medians()
        result.add_row(
            case.title,
            amount(medians[case.baseline]),
            amount(medians[case.candidate]),
            case.unit,
            interval(case.ratio()),
            goal(case),
            _coloured(case),
        )
    return result


def counts(case: Case) -> str:
    """The counts of a case on one line, as far as they are not zero or have to be."""
    shown = {n: v for n, v in case.counts.items() if v or n in case.zero}
    return ", ".join(f"{name.replace('_', ' ')} {amount(value)}" for name, value in shown.items())


def interval(found: Estimate) -> str:
    """Median and interval, three digits."""
    return f"{found.median:.3f} [{found.low:.3f}, {found.high:.3f}]"


def amount(value: float) -> str:
    """A figure for people: three digits below 1,000, whole above.

    >>> amount(0.99512), amount(24.31), amount(655854.2)
    ('0.995', '24.3', '655,854')
    """
    if value == int(value) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def goal(case: Case) -> str:
    """The goal in words."""
    if case.goal is None:
        return ""
    unit = f" {case.unit}" if case.goal.measure == "value" else ""
    return f"{case.goal.sign} {case.goal.bound:g}{unit}"


def _coloured(case: Case) -> str:
    verdict = case.verdict()
    colour = "green" if case.met() else "red"
    return f"[{colour}]{verdict}[/]" if verdict else ""
