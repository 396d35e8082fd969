"""``flowferry probe``: traffic with sequence numbers and time stamps."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.table import Table

from flowferry import probe as runs

Command = TypeVar("Command", bound=Callable[..., Any])

_QUIET_RUN = 3.0
"""Runs shorter than this many seconds show no progress."""


@click.group()
def probe() -> None:
    """Send and count traffic that proves loss, order, duplication and delay."""


def _shared(command: Command) -> Command:
    for option in reversed(
        [
            click.option("--netns", metavar="NAME", help="Network namespace to run in."),
            click.option("--cpu", type=click.IntRange(0), help="CPU to run on."),
            click.option("--run-id", "run", type=click.IntRange(0, 2**32 - 1), help="Run number."),
            click.option(
                "--stamps",
                type=click.Choice(["kernel", "user"]),
                default="kernel",
                show_default=True,
                help="Where receive times come from.",
            ),
            click.option(
                "--timeline",
                type=click.Path(dir_okay=False, path_type=Path),
                help="Record arrivals here: CSV if it ends in .csv, else binary.",
            ),
            click.option(
                "--timeline-ms",
                type=click.FloatRange(0, min_open=True),
                help="Rows of the timeline per so many milliseconds, not per packet.",
            ),
            click.option(
                "--per-flow",
                type=click.Choice(["auto", "all", "bad", "none"]),
                default="auto",
                show_default=True,
                help="Flows the report lists; auto: all up to 100, else those amiss.",
            ),
            click.option(
                "--report",
                type=click.Path(dir_okay=False, path_type=Path),
                help="Also write the JSON report to this file.",
            ),
            click.option("--expect-clean", is_flag=True, help="Exit 1 unless clean."),
            click.option("--json", "as_json", is_flag=True, help="Print one JSON object."),
        ]
    ):
        command = option(command)
    return command


@probe.command()
@click.argument("to")
@click.option("--port", type=int, default=7000, show_default=True, help="First port to send to.")
@click.option("--ports", type=int, help="Ports to send to.  [default: one per flow up to 64]")
@click.option(
    "--source", multiple=True, metavar="ADDRESS", help="Address to send from; repeatable."
)
@click.option(
    "--source-port", type=int, default=20000, show_default=True, help="First source port."
)
@click.option("--flows", type=int, default=1, show_default=True, help="Number of flows.")
@click.option("--rate", type=float, help="Packets per second of all flows together.")
@click.option("--flow-rate", type=float, help="Packets per second of each flow.")
@click.option("--quiet", type=float, default=0.0, show_default=True, help="Share of quiet flows.")
@click.option(
    "--quiet-rate", type=float, default=1.0, show_default=True, help="Rate of each quiet flow."
)
@click.option("--frame", type=int, help="Ethernet frame size in bytes, without FCS.")
@click.option("--payload", type=int, help="UDP payload in bytes.  [default: 64]")
@click.option("--duration", type=float, help="Seconds to send.  [default: 10, or by --count]")
@click.option("--count", type=int, help="Packets per flow.")
@click.option("--threads", type=int, default=1, show_default=True, help="Threads to send from.")
@click.option("--burst", type=int, help="Packets in a row per flow.")
@click.option(
    "--segments",
    type=int,
    default=1,
    show_default=True,
    help="Packets per message cut by the kernel (UDP_SEGMENT).",
)
@click.option("--echo", is_flag=True, help="Count what comes back, as round trips.")
@click.option("--no-handshake", is_flag=True, help="Do not wait for the sink's answer first.")
@click.option("--no-end", is_flag=True, help="Do not tell the sink what was sent.")
@click.option(
    "--linger", type=float, default=1.0, show_default=True, help="Seconds to wait for lost replies."
)
@_shared
def send(
    to: str,
    no_handshake: bool,
    no_end: bool,
    report: Path | None,
    expect_clean: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Send to the sink at address TO (start the sink first)."""
    if expect_clean and not options["echo"]:
        raise click.UsageError(
            "only with --echo can the sender tell; give --expect-clean to the sink"
        )
    if no_handshake:
        options["handshake"] = None
    if no_end:
        options["end"] = None
    with _run_options("sent") as running:
        result = _guarded(lambda: runs.send(to, **options, **running))
    received = result["replies"]
    _finish(result, received, report, as_json, expect_clean)


def _receiving(command: Command) -> Command:
    for option in reversed(
        [
            click.option("--address", help="Address to bind.  [default: all]"),
            click.option("--port", type=int, default=7000, show_default=True, help="First port."),
            click.option("--ports", type=int, default=64, show_default=True, help="Ports to bind."),
            click.option("--duration", type=float, help="End after so many seconds in any case."),
            click.option(
                "--wait",
                type=float,
                default=60.0,
                show_default=True,
                help="Give up when nothing came for so many seconds; 0: never.",
            ),
            click.option(
                "--idle",
                type=float,
                default=30.0,
                show_default=True,
                help="End when nothing more came for so many seconds.",
            ),
            click.option(
                "--linger",
                type=float,
                default=1.0,
                show_default=True,
                help="Seconds to wait for missing packets once the sender has ended.",
            ),
            click.option(
                "--buffer", type=int, default=64 << 20, help="Receive buffer per port, bytes."
            ),
            click.option(
                "--sent",
                type=click.Path(dir_okay=False, path_type=Path),
                help="Read what was sent from this report of the sender, once it is there.",
            ),
        ]
    ):
        command = option(command)
    return _shared(command)


@probe.command()
@click.option("--echo", is_flag=True, help="Send every packet back.")
@_receiving
def sink(**options: Any) -> None:
    """Count what arrives until the sender says it is over."""
    _receive(**options)


@probe.command()
@_receiving
def echo(**options: Any) -> None:
    """Send every packet back, and count it: a sink with --echo."""
    _receive(echo=True, **options)


def _receive(
    wait: float, report: Path | None, expect_clean: bool, as_json: bool, **options: Any
) -> None:
    with _run_options("received") as running:
        result = _guarded(lambda: runs.sink(wait=wait or None, **options, **running))
    if result["received"] == 0 and result["ended_by"] == "nothing":
        _finish(result, result, report, as_json, expect_clean=False)
        raise SystemExit(_fail(result["verdict"]))
    _finish(result, result, report, as_json, expect_clean)


@contextmanager
def _run_options(done: str) -> Iterator[dict[str, Any]]:
    """Control and progress of a run; SIGINT and SIGTERM end it in order."""
    control = runs.Control()
    start = time.monotonic()

    def progress(packets: int) -> None:
        elapsed = time.monotonic() - start
        if elapsed > _QUIET_RUN:
            print(f"{elapsed:5.0f} s  {packets:,} packets {done}", file=sys.stderr)

    before = {
        number: signal.signal(number, lambda *_: control.stop())
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield {"control": control, "progress": progress}
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


Report = TypeVar("Report")


def _guarded(run: Callable[[], Report]) -> Report:
    try:
        return run()
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    except runs.ProbeError as error:
        raise SystemExit(_fail(str(error))) from None


def _fail(text: str) -> int:
    print(f"flowferry probe: {text}", file=sys.stderr)
    return 1


def _finish(
    result: runs.SendReport | runs.SinkReport,
    received: runs.Received | None,
    report: Path | None,
    as_json: bool,
    expect_clean: bool,
) -> None:
    if report is not None:
        try:
            runs.write_report(report, result)
        except OSError as error:
            raise SystemExit(_fail(f"cannot write {os.fspath(report)}: {error.strerror}")) from None
    if as_json:
        print(json.dumps(result))
    else:
        _print_table(result, received)
    if expect_clean and received is not None and not received["clean"]:
        raise SystemExit(_fail(result["verdict"]))


def _print_table(result: runs.SendReport | runs.SinkReport, received: runs.Received | None) -> None:
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="dim")
    table.add_column(justify="right")
    if result["role"] == "send":
        target = result["target_packets_per_second"]
        asked = "as fast as possible" if target is None else f"{target:,.0f} asked for"
        table.add_row("sent", f"{result['sent']:,}")
        table.add_row("rate", f"{result['packets_per_second']:,.0f} packets/s ({asked})")
        table.add_row("behind schedule", f"{_us(result['late_max_ns'])} at most")
    if received is not None:
        for name in ("received", "lost", "reordered", "duplicated", "unclassified", "sink_dropped"):
            table.add_row(name.replace("_", " "), f"{received[name]:,}")
        if received["foreign_run"] or received["malformed"]:
            foreign = (
                f"{received['foreign_run']:,} of other runs, {received['malformed']:,} no probe"
            )
            table.add_row("not counted", foreign)
        delay = received["delay_ns"]
        if delay is not None:
            what = "round trip" if result["role"] == "send" else "delay"
            for name in ("p50", "p90", "p99", "p999", "max"):
                table.add_row(f"{what} {name}", _us(delay[name]))  # type: ignore[literal-required]
        start = received["longest_gap_at_ns"] / 1e9
        table.add_row("longest gap", f"{_us(received['longest_gap_ns'])} at {start:.3f} s")
    console = Console()
    console.print(table)
    console.print(result["verdict"], soft_wrap=True, highlight=False)


def _us(ns: int) -> str:
    return f"{ns / 1000:,.1f} µs"
