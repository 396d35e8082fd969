"""What `flowferry state` prints."""

import base64
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from flowferry.estate import Estate

#: Characters of a value in a table.
SHOWN = 60


def done(line: str, told: Mapping[str, Any], as_json: bool) -> None:
    """One line, or the object."""
    click.echo(json.dumps(told) if as_json else line)


def note(line: str, as_json: bool) -> None:
    """Something that happened, on stderr."""
    if not as_json:
        click.echo(line, err=True)


def joined(es: Estate, place: Path | None, as_json: bool) -> None:
    """An instance runs."""
    told = {
        "cluster": es.cluster,
        "node": es.node,
        "backend": es.backend,
        "members": es.members(),
        "socket": None if place is None else str(place),
    }
    others = [name for name in es.members() if name != es.node]
    line = f"{es.node} is a member of {es.cluster} ({es.backend})"
    line += f" with {', '.join(others)}" if others else ", alone so far"
    done(line if place is None else f"{line}; door: {place}", told, as_json)


def raw(told: Mapping[str, Any]) -> bytes:
    """A value's own bytes; numbers as text."""
    if told["type"] == "bytes":
        return base64.b64decode(told["value"])
    return str(told["value"]).encode()


def shown(told: Mapping[str, Any]) -> str:
    """A value for people."""
    if told["type"] == "none":
        return "—"
    if told["type"] == "bytes":
        value = base64.b64decode(told["value"])
        text = repr(value[:SHOWN])
        return f"{text}… ({len(value):,} bytes)" if len(value) > SHOWN else text
    text = str(told["value"])
    cut = f"{text[:SHOWN]}… ({len(text):,} characters)" if len(text) > SHOWN else text
    return cut if cut.isprintable() else repr(cut)


def item(told: Mapping[str, Any], as_json: bool) -> None:
    """One item."""
    if as_json:
        click.echo(json.dumps(told))
        return
    click.echo(shown(told))


def keys(told: Mapping[str, Any], as_json: bool) -> None:
    """Keys, one a line."""
    if as_json:
        click.echo(json.dumps(told))
        return
    for key in told["keys"]:
        click.echo(key if key.isprintable() else repr(key))


def found(told: Mapping[str, Any], as_json: bool) -> None:
    """A view: the value, or the items in a table; and who has not answered."""
    if as_json:
        click.echo(json.dumps(told))
        return
    if told["items"]:
        table = Table("key", "node", "value", "written", box=None, pad_edge=False)
        for each in told["items"]:
            table.add_row(
                Text(each["key"]), Text(each["node"]), Text(shown(each)), _when(each["written"])
            )
        Console().print(table)
    if told["reduce"] != "items":
        click.echo(shown(told))
    elif not told["items"]:
        click.echo("nobody has such an item", err=True)
    facts = [f"answered: {', '.join(told['answered'])}"]
    if told["missing"]:
        facts.append(f"missing: {', '.join(told['missing'])}")
    if told["oldest"] is not None:
        facts.append(f"at most {told['oldest'] * 1000:.1f} ms old")
    click.echo("; ".join(facts), err=True)


def members(told: Mapping[str, Any], as_json: bool) -> None:
    """Names, one a line."""
    if as_json:
        click.echo(json.dumps(told))
        return
    for name in told["members"]:
        click.echo(name)


def figures(told: Mapping[str, Any], as_json: bool) -> None:
    """Names and numbers."""
    if as_json:
        click.echo(json.dumps(told))
        return
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="dim")
    table.add_column(justify="right")
    for name, value in told.items():
        table.add_row(name.replace("_", " "), f"{value:,}" if isinstance(value, int) else value)
    Console().print(table)


def event(told: Mapping[str, Any]) -> str:
    """A change on one line."""
    what = "deleted" if told["item"] is None else shown(told["item"])
    return f"{told['node']}  {told['key']}  {what}"


def _when(written: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(written)) + f".{int(written * 1000) % 1000:03}"
