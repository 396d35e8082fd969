"""`flowferry rules`."""

import click

from flowferry.cli.handovers import tell, wait_options
from flowferry.cli.talk import MATCH_HELP, asks, show, table
from flowferry.controller.client import Client

COLUMNS = {
    "id": "id",
    "group": "group",
    "priority": "priority",
    "match": "match",
    "to": "to",
    "one way": "one_way",
}


@click.group()
def rules() -> None:
    """Which flows go through which instance."""


@rules.command("list")
@asks
def list_(client: Client, as_json: bool) -> None:
    """List all rules, highest first."""
    found = client.rules()
    show(as_json, {"rules": found}, lambda: table(COLUMNS, found, "no rules"))


@rules.command(epilog=MATCH_HELP)
@click.option("--match", required=True, help="Which flows.")
@click.option("--to", required=True, metavar="INSTANCE|MAC|PORT", help="Where to.")
@click.option("--priority", type=click.IntRange(1, 16_000), help="Higher ones win.")
@click.option("--one-way", is_flag=True, help="Only the way from upstream.")
@click.option("--group", help="Which group, if that is not clear.")
@wait_options[1]
@wait_options[0]
@asks
def add(
    client: Client,
    as_json: bool,
    match: str,
    to: str,
    priority: int | None,
    one_way: bool,
    group: str | None,
    wait: bool,
    timeout: float,
) -> None:
    """Add a rule; the flows that it claims move."""
    done = client.add_rule(
        match, to, priority=priority, one_way=one_way, group=group, wait=wait, timeout=timeout
    )
    tell(done, as_json)


@rules.command()
@click.argument("number", metavar="ID", type=int)
@wait_options[1]
@wait_options[0]
@asks
def remove(client: Client, as_json: bool, number: int, wait: bool, timeout: float) -> None:
    """Remove a rule; its flows move to where the next lower rules say."""
    tell(client.remove_rule(number, wait=wait, timeout=timeout), as_json)
