"""How the answers of `flowferry hsl` look: tables for people, one JSON object for programs."""

import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from flowferry.hsl.endpoint import Transition

#: Columns when nobody can see how wide the output is: never to be cut.
UNBOUNDED = 400


def console() -> Console:
    """A console on stdout that does not fold tables in a pipe."""
    return Console(width=None if sys.stdout.isatty() else UNBOUNDED, highlight=False)


def answer(as_json: bool, data: Mapping[str, Any], text: str) -> None:
    """A command's answer in one form or the other."""
    click.echo(json.dumps(data) if as_json else text)


def grid(*columns: str, title: str | None = None) -> Table:
    """A plain table; a column whose name ends in > stands to the right."""
    table = Table(box=None, pad_edge=False, title=title, title_justify="left", title_style="bold")
    for column in columns:
        right = column.endswith(">")
        table.add_column(column.rstrip(">"), justify="right" if right else "left", no_wrap=right)
    return table


def status(found: Mapping[str, Any], as_json: bool) -> None:
    """Everything at a glance."""
    if as_json:
        click.echo(json.dumps(found))
        return
    summary = Table(show_header=False, box=None, pad_edge=False)
    summary.add_column(style="dim")
    summary.add_column()
    one, buffer = found["instance"], found["buffer"]
    share = buffer["used"] / buffer["limit"]
    summary.add_row("instance", f"{one['name']} (id {one['id']}), {found['shim']} shim")
    summary.add_row("agent", f"{found['version']}, up {found['uptime_ms'] / 1e3:,.1f} s")
    fails = "[red]failing open[/]" if found["tripped"] else "fast path"
    summary.add_row("epoch", f"{found['epoch']}, {fails}")
    summary.add_row("buffer", f"{size(buffer['used'])} of {size(buffer['limit'])} ({share:.0%})")
    summary.add_row("flow sides", _counts(found["flows"]))
    summary.add_row("holds", _counts(found["holds"]))
    lost = found["lost_packets"]
    summary.add_row("lost", f"[red]{lost:,} packets[/]" if lost else "nothing")
    if found["takeover_lost_packets"] is not None:
        summary.add_row("taken over", f"{found['takeover_lost_packets']:,} packets lost")
    rejected = sum((found["control"]["rejected"] or {}).values())
    summary.add_row("control", f"{found['control']['accepted']:,} accepted, {rejected:,} rejected")
    out = console()
    out.print(summary)
    table = grid("packets", "upstream>", "downstream>")
    sides = [found["counters"][side] or {} for side in ("upstream", "downstream")]
    for name in sides[0] or sides[1]:
        cells = [f"{side[name]:,}" if name in side else "gone" for side in sides]
        table.add_row(name.replace("_", " "), *cells)
    out.print(table)


def holds(found: Sequence[Mapping[str, Any]], as_json: bool, *, single: bool = False) -> None:
    """Holds and their figures; with `single` the JSON is that of the only one."""
    if as_json:
        click.echo(json.dumps(found[0] if single else {"holds": found}))
        return
    if not found:
        click.echo("no holds")
        return
    table = grid(
        "hold>", "state", "role", "match", "sides", "flows>", "captured>", "kept>", "peak>",
        "released>", "strays>", "lost>", "ms>", "error",
    )  # fmt: skip
    for each in found:
        whole = ",".join([each["match"], *(f"-({other})" for other in each["except"])])
        both = len(each["sides"]) == 2
        table.add_row(
            str(each["id"]),
            each["state"],
            each["role"],
            whole,
            "both" if both else ",".join(each["sides"]),
            f"{each['flows']:,}",
            f"{each['captured_packets']:,}",
            size(each["kept_bytes"]),
            size(each["captured_bytes_peak"]),
            f"{each['released_packets']:,}",
            f"{each['stray_packets']:,}",
            f"{each['lost_packets']:,}",
            "" if each["duration_ms"] is None else f"{each['duration_ms']:,.1f}",
            each["error"] or "",
        )
    console().print(table)


def flows(found: Mapping[str, Any], as_json: bool) -> None:
    """Flow accounting."""
    if as_json:
        click.echo(json.dumps(found))
        return
    table = grid("flow", "side", "packets>", "bytes>", "idle ms>")
    for each in found["flows"]:
        idle = f"{each['idle_ms']:,.0f}"
        table.add_row(
            each["flow"], each["side"], f"{each['packets']:,}", f"{each['bytes']:,}", idle
        )
    out = console()
    out.print(table)
    if found["total"] > len(found["flows"]):
        out.print(f"{len(found['flows'])} of {found['total']:,}; --limit shows more")


def transitions(rows: Sequence[Transition], as_json: bool) -> None:
    """The transition table."""
    if as_json:
        plain = [
            {("from" if k == "from_" else k): v for k, v in asdict(row).items()} for row in rows
        ]
        click.echo(json.dumps({"transitions": plain}))
        return
    table = grid("from", "event", "to", "duty")
    for row in rows:
        table.add_row(row.from_, row.event, row.to, row.duty.replace("_", " "))
    console().print(table)


def event(found: Mapping[str, Any], at: time.struct_time) -> str:
    """One event as a line."""
    rest = " ".join(f"{k}={v}" for k, v in found.items() if k != "event" and v is not None)
    return f"{time.strftime('%H:%M:%S', at)}  {found['event']:12}  {rest}"


def size(count: float) -> str:
    """A number of bytes in three digits or so."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:,.0f} {unit}" if unit == "B" else f"{count:,.1f} {unit}"
        count /= 1024
    return f"{count:,.1f} GiB"


def _counts(found: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in found.items())
