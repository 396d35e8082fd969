"""`flowferry move` and `flowferry handovers`."""

import json
import sys
from typing import Any

import click

from flowferry.cli.talk import MATCH_HELP, asks, show, table
from flowferry.controller.client import OVER, Client

COLUMNS = {
    "id": "id",
    "state": "state",
    "strategy": "strategy",
    "match": "match",
    "to": "to",
    "flows": "flows",
    "duration ms": "duration_ms",
    "fence ms": "fence_ms",
    "captured": "captured_packets",
    "strays": "stray_packets",
    "lost": "lost_packets",
    "error": "error",
}
#: What each flag means for whoever asked for the handover.
FLAGS = {
    "unfenced": "the settling time, not a marker, ended a fence, so order is not proven",
    "drain_unproven": "a quiet time, not a mark, ended a drain, so packets may still have come",
    "state_lost": "flows went on without the state that belongs to them",
}
wait_options = (
    click.option("--wait", is_flag=True, help="Return when it is over; status 1 if not done."),
    click.option(
        "--timeout", type=click.FloatRange(0), default=60.0, show_default=True, help="Seconds."
    ),
)


@click.command(epilog=MATCH_HELP)
@click.option("--match", required=True, help="Which flows.")
@click.option("--to", required=True, metavar="INSTANCE|MAC|PORT", help="Where to.")
@click.option("--priority", type=click.IntRange(1, 16_000), help="Of the rule; higher ones win.")
@click.option("--strategy", help="How; the controller's own choice if not given.")
@click.option("--one-way", is_flag=True, help="Only the way from upstream.")
@click.option("--settling", type=click.IntRange(1), help="Milliseconds; see docs/direct.md.")
@click.option("--group", help="Which group, if that is not clear.")
@wait_options[1]
@wait_options[0]
@asks
def move(
    client: Client, /, as_json: bool, settling: int | None, wait: bool, timeout: float, **what: Any
) -> None:
    """Move all flows that match to an instance, while they flow."""
    done = client.move(
        what.pop("match"), what.pop("to"), settling_ms=settling, wait=wait, timeout=timeout, **what
    )
    tell(done, as_json)


def tell(handover: dict[str, Any], as_json: bool) -> None:
    """One handover in a line; status 1 if it is over and not done."""
    if as_json:
        click.echo(json.dumps(handover))
    say(handover, as_json)
    if failed(handover):
        sys.exit(1)


def failed(handover: dict[str, Any]) -> bool:
    """Over, and not as asked."""
    return handover["state"] in OVER and handover["state"] != "done"


def say(handover: dict[str, Any], as_json: bool) -> None:
    """Its line: what went well on stdout, unless JSON stands there; what failed on stderr."""
    if failed(handover):
        click.echo(line(handover), err=True)
    elif not as_json:
        click.echo(line(handover))


def line(it: dict[str, Any]) -> str:
    """A handover for people.

    >>> line({"id": 7, "state": "turning"})
    "handover 7 is turning; 'flowferry handovers show 7' tells more"
    """
    if it["state"] not in OVER:
        more = f"'flowferry handovers show {it['id']}' tells more"
        return f"handover {it['id']} is {it['state']}; {more}"
    but = "".join(f"; {flag}: {FLAGS.get(flag, 'flagged')}" for flag in it.get("flags", ()))
    if it["state"] != "done":
        return f"handover {it['id']} {it['state']}: {it['error']}{but}"
    if it["error"]:
        but += f"; {it['error']}"
    if not it["flows"] and not it["captured_packets"]:
        return f"handover {it['id']} done: no flow had to move{but}"
    fence = "" if it["fence_ms"] is None else f", fenced within {it['fence_ms']:.1f} ms"
    return (
        f"handover {it['id']} done: {it['flows']:,} flows{fence}; "
        f"{it['captured_packets']:,} packets captured, {it['stray_packets']:,} strays, "
        f"{it['lost_packets']:,} lost{but}"
    )


@click.group()
def handovers() -> None:
    """Handovers under way and over."""


@handovers.command("list")
@asks
def list_(client: Client, as_json: bool) -> None:
    """List them, the latest first."""
    found = client.handovers()
    show(as_json, {"handovers": found}, lambda: table(COLUMNS, found, "no handovers yet"))


@handovers.command("show")
@click.argument("number", metavar="ID", type=int)
@wait_options[1]
@click.option("--wait", is_flag=True, help="When it is over.")
@asks
def show_(client: Client, as_json: bool, number: int, wait: bool, timeout: float) -> None:
    """Show one with its timeline."""
    found = client.wait(number, timeout) if wait else client.handover(number)
    show(as_json, found, lambda: _print(found))


def _print(found: dict[str, Any]) -> None:
    click.echo(line(found))
    for part in found.get("parts", ()):
        click.echo(
            f"  part {part['number']}: {part['match']} from {part['source']} to "
            f"{part['destination']}: {part['state']}"
        )
    for moment in found.get("timeline", ()):
        click.echo(f"  {moment['at_ms']:10.3f} ms  {moment['text']}")


@handovers.command()
@click.argument("number", metavar="ID", type=int)
@asks
def abort(client: Client, as_json: bool, number: int) -> None:
    """Call one off: its flows go back, in order. Fails when it is too late for that."""
    found = client.abort(number)
    show(as_json, found, lambda: click.echo(line(found)))
