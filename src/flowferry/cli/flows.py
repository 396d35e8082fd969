"""`flowferry flows`."""

import click

from flowferry.cli.talk import MATCH_HELP, asks, show, table
from flowferry.controller.client import Client

COLUMNS = {"flow": "flow", "instance": "instance"}


@click.group()
def flows() -> None:
    """The flows that instances serve."""


@flows.command("list")
@click.option("--limit", type=click.IntRange(1), default=1000, show_default=True, help="How many.")
@asks
def list_(client: Client, as_json: bool, limit: int) -> None:
    """List flows with who serves each."""
    found = client.flows(limit)

    def text() -> None:
        table(COLUMNS, found["flows"], "no flows")
        if found["total"] > len(found["flows"]):
            click.echo(f"{len(found['flows']):,} of {found['total']:,}; --limit shows more")

    show(as_json, found, text)


@flows.command(epilog=MATCH_HELP)
@click.argument("flow")
@asks
def where(client: Client, as_json: bool, flow: str) -> None:
    """Tell which instance serves FLOW, a match that names both ends, and by which rule."""
    found = client.where(flow)
    rule = "no rule, the group's default" if not found["rule"] else f"rule {found['rule']}"
    show(as_json, found, lambda: click.echo(f"{found['instance']} ({rule})"))
