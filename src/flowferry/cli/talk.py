"""What the commands that talk to a controller share: how it is found, and how answers look."""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec

import click
from rich.console import Console
from rich.table import Table

from flowferry.controller import wiring
from flowferry.controller.client import Client, ControllerError
from flowferry.testbed import Testbed, TestbedError
from flowferry.testbed.testbed import DEFAULT_NAME

P = ParamSpec("P")

MATCH_HELP = """\b
A MATCH is OVS flow syntax, read from the upstream side: parts with commas
between them, or * for everything, for instance
  udp,nw_src=10.0.0.1,tp_src=24242      tcp6,tp_dst=80      ip,nw_dst=10.0.0.0/24"""


@contextmanager
def one_line() -> Iterator[None]:
    """Turn what a user can mend into one line on stderr and exit status 1."""
    try:
        yield
    except (ControllerError, TestbedError) as error:
        raise click.ClickException(str(error)) from None


def asks(command: Callable[Concatenate[Client, P], None]) -> Callable[..., None]:
    """Give a command its client, found by --controller or --name; and --json."""

    @click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
    @click.option(
        "--name", metavar="RUN", help=f"Which testbed's controller.  [default: {DEFAULT_NAME}]"
    )
    @click.option(
        "--token-file",
        envvar="FLOWFERRY_TOKEN_FILE",
        type=click.Path(dir_okay=False, path_type=Path),
        help="A file with the token that the controller wants.  [env: FLOWFERRY_TOKEN_FILE]",
    )
    @click.option(
        "--ca",
        envvar="FLOWFERRY_CA",
        type=click.Path(dir_okay=False, path_type=Path),
        metavar="FILE",
        help="Who signed the controller's certificate (PEM), over https.  [env: FLOWFERRY_CA]",
    )
    @click.option(
        "--controller",
        metavar="URL",
        help="A controller's address.  [env: FLOWFERRY_CONTROLLER]",
    )
    @wraps(command)
    def wrapped(
        controller: str | None,
        token_file: Path | None,
        ca: Path | None,
        name: str | None,
        **options: Any,
    ) -> None:
        if controller is not None and name is not None:
            raise click.UsageError("give either --controller or --name")
        with one_line():
            command(_find(controller, name, token_file, ca), **options)  # type: ignore[call-arg]

    return wrapped


def _find(url: str | None, name: str | None, token_file: Path | None, ca: Path | None) -> Client:
    if name is None:
        url = url or os.environ.get("FLOWFERRY_CONTROLLER")
    try:
        token = None if token_file is None else token_file.read_text("utf-8").strip()
    except OSError as error:
        raise ControllerError(
            f"{token_file} cannot be read ({error.strerror}); name the file with the token"
        ) from None
    return Client(
        url or wiring.url_of(Testbed.attach(name or DEFAULT_NAME)),
        token,
        ca=None if ca is None else str(ca),
    )


def show(as_json: bool, found: Mapping[str, Any], text: Callable[[], None]) -> None:
    """Print one JSON object, or what `text` prints."""
    if as_json:
        click.echo(json.dumps(found))
    else:
        text()


def table(columns: Mapping[str, str], rows: Iterable[Mapping[str, Any]], nothing: str) -> None:
    """A table of fields by their headings; `nothing` when there are no rows."""
    rows = list(rows)
    if not rows:
        click.echo(nothing)
        return
    shown = Table(*columns, box=None, pad_edge=False)
    for row in rows:
        shown.add_row(*(cell(row.get(field)) for field in columns.values()))
    Console(width=None if Console().is_terminal else 200).print(shown)


def cell(value: object) -> str:
    """A value for people."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.1f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
