"""`flowferry bench`: run experiments; table, CSV, JSON, picture."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import click
from rich.console import Console

from flowferry.bench import output
from flowferry.bench.arms import preferred
from flowferry.bench.catalogue import EXPERIMENTS
from flowferry.bench.report import Report
from flowferry.bench.settings import Settings
from flowferry.cli import ending
from flowferry.controller import ControllerError
from flowferry.hsl import HslError
from flowferry.probe import ProbeError
from flowferry.testbed import TestbedError, preflight

ALL, LIST = "all", "list"


def _expression(context: click.Context, option: click.Parameter, text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise click.BadParameter(f"{text!r} is no regular expression: {error}") from None
    return text


@click.command()
@click.argument("name", type=click.Choice([ALL, LIST, *EXPERIMENTS]), default=ALL)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("results"),
    show_default=True,
    help="Directory for the CSV, the JSON and the picture.",
)
@click.option("--quick", is_flag=True, help="Few and short passes: a look, not a result.")
@click.option(
    "--only",
    default="",
    metavar="TEXT",
    callback=_expression,
    help="Only cases whose name contains this text or regular expression.",
)
@click.option("--passes", type=click.IntRange(2), help="Passes over each comparison.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def bench(name: str, out: Path, quick: bool, only: str, passes: int | None, as_json: bool) -> None:
    """Run the experiment NAME, or all of them; `list` says which there are.

    Exit status 1 if a goal is missed or a packet unaccounted for.
    """
    if name == LIST:
        for experiment in EXPERIMENTS.values():
            click.echo(f"{experiment.name:<12} {experiment.help}")
        return
    settings = Settings.quick(only) if quick else Settings.full(only)
    if passes is not None:
        settings = Settings(passes, settings.seconds, only)
    chosen = list(EXPERIMENTS.values()) if name == ALL else [EXPERIMENTS[name]]
    reports = []
    try:
        _require(any(experiment.switches for experiment in chosen))
        with ending.in_order(), preferred():
            for experiment in chosen:
                report = experiment.run(settings)
                if not report.cases:
                    continue
                reports.append(report)
                paths = output.write(report, out)
                if not as_json:
                    _show(report, paths)
    except (ControllerError, TestbedError, HslError, ProbeError) as error:
        raise click.ClickException(str(error)) from None
    except (OSError, subprocess.SubprocessError) as error:
        raise click.ClickException(f"{error}; check the machine with 'flowferry doctor'") from error
    if not reports:
        raise click.UsageError(f"no case has {only!r} in its name")
    if as_json:
        found = [report.to_dict() for report in reports]
        met = all(report.met() for report in reports)
        click.echo(json.dumps({"met": met, "experiments": found}))
    missed = [case.title for report in reports for case in report.cases if case.met() is False]
    if missed:
        raise click.ClickException(f"missed: {'; '.join(missed)}; docs/benchmarks.md has the goals")


def _require(switches: bool) -> None:
    """Raise `TestbedError` for the first thing missing; `switches`: Open vSwitch is needed."""
    preflight.require(without=[] if switches else ["Open vSwitch"])
    if shutil.which("iperf3") is None:
        raise TestbedError("iperf3 is not installed", "run 'make setup', or install iperf3")


def _show(report: Report, paths: list[Path]) -> None:
    console = Console()
    if not console.is_terminal:
        console = Console(width=200)
    console.print(output.table(report))
    for case in report.cases:
        if case.counts:
            console.print(f"  {case.name}: {output.counts(case)}", highlight=False)
    click.echo("written: " + " ".join(map(str, paths)) + "\n")
