"""`flowferry demo`: live flows on the move, with a verdict, a report and a picture."""

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import click
from rich.console import Console

from flowferry.cli import ending
from flowferry.controller import ControllerError
from flowferry.demo import Demo, Outcome, plan, play
from flowferry.hsl import HslError
from flowferry.probe import ProbeError
from flowferry.testbed import TestbedError, preflight

FUNCTIONS = ("bridge", "forwarder")


@click.command()
@click.option(
    "--moves", type=click.IntRange(1, 1000), default=20, show_default=True, help="How many."
)
@click.option(
    "--function",
    type=click.Choice(FUNCTIONS),
    default="bridge",
    show_default=True,
    help="A function that the kernel forwards, or one with packet sockets.",
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("results/demo"),
    show_default=True,
    help="Where the report and the picture go.",
)
@click.option(
    "--name", metavar="RUN", help="Name its testbed, to look into it meanwhile.  [default: demo-…]"
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def demo(moves: int, function: str, out: Path, name: str | None, as_json: bool) -> None:
    """Move live UDP, TCP and ping between two running functions, and count every packet.

    Exit status 1 if anything was lost, reordered or duplicated, or a connection broke.
    """
    try:
        preflight.require()
        out.mkdir(parents=True, exist_ok=True)
        with ending.in_order():
            it = Demo(function, plan(moves))
            outcome = _play(replace(it, name=name) if name else it, out, as_json)
    except (TestbedError, HslError, ControllerError, ProbeError) as error:
        raise click.ClickException(str(error)) from None
    except (OSError, subprocess.SubprocessError) as error:
        raise click.ClickException(f"{error}; check the machine with 'flowferry doctor'") from error
    if as_json:
        click.echo(json.dumps(outcome.as_json()))
    else:
        click.echo(f"report:  {outcome.files['report']}\npicture: {outcome.files['picture']}")
        click.echo(outcome.line())
    if outcome.problems():
        if as_json:
            raise click.ClickException(outcome.line())
        sys.exit(1)


def _play(it: Demo, out: Path, as_json: bool) -> Outcome:
    from flowferry.demo import live, picture  # matplotlib takes a second to load

    console, began = Console(stderr=as_json), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="flowferry-demo-") as scratch:
        with live.shown(it, console) as told:
            outcome = play(it, Path(scratch), told)
        files = {"report": str(out / "demo.json"), "picture": str(out / "demo.png")}
        outcome = replace(outcome, files=files, seconds=time.monotonic() - began)
        picture.draw(it, outcome, Path(scratch) / "timeline", Path(files["picture"]))
    Path(files["report"]).write_text(json.dumps(outcome.as_json(), indent=2) + "\n")
    return outcome
