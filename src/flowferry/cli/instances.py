"""`flowferry instances`."""

import json
import sys
from typing import Any

import click

from flowferry.cli.handovers import failed, say, wait_options
from flowferry.cli.talk import asks, show, table
from flowferry.controller.client import Client

COLUMNS = {
    "name": "name",
    "id": "id",
    "group": "group",
    "state": "state",
    "upstream port": "upstream_port",
    "downstream port": "downstream_port",
    "peer": "peer",
    "agent alive": "alive",
}


@click.group()
def instances() -> None:
    """The running copies of the function."""


@instances.command("list")
@asks
def list_(client: Client, as_json: bool) -> None:
    """List them."""
    found = client.instances()
    show(as_json, {"instances": found}, lambda: table(COLUMNS, found, "no instances"))


@instances.command()
@click.argument("instance", metavar="NAME")
@click.option("--id", type=click.IntRange(1), required=True, help="Its number in control frames.")
@click.option("--group", help="Which group, if there are several.")
@click.option("--upstream-port", type=click.IntRange(1), required=True, help="OpenFlow port.")
@click.option("--downstream-port", type=click.IntRange(1), required=True, help="OpenFlow port.")
@click.option("--peer", metavar="HOST:PORT", help="Where its support layer takes strays.")
@click.option("--mac", "macs", multiple=True, help="By which it may be named.")
@asks
def add(
    client: Client, /, as_json: bool, instance: str, macs: tuple[str, ...], **fields: Any
) -> None:
    """Add an instance; it serves nothing until flows are moved to it."""
    found = client.add_instance(name=instance, macs=list(macs), **fields)
    show(as_json, found, lambda: click.echo(f"instance {instance} is known"))


@instances.command()
@click.argument("instance", metavar="NAME")
@wait_options[1]
@wait_options[0]
@asks
def drain(client: Client, as_json: bool, instance: str, wait: bool, timeout: float) -> None:
    """Move everything off an instance, and let nothing new on it."""
    found = client.drain_instance(instance, wait=wait, timeout=timeout)

    if as_json:
        click.echo(json.dumps({"instance": instance, "handovers": found}))
    elif not found:
        click.echo(f"nothing leads to {instance}")
    for each in found:
        say(each, as_json)
    if any(map(failed, found)):
        sys.exit(1)


@instances.command()
@click.argument("instance", metavar="NAME")
@asks
def remove(client: Client, as_json: bool, instance: str) -> None:
    """Forget an instance that nothing leads to any more; drain it first."""
    client.remove_instance(instance)
    show(as_json, {"removed": instance}, lambda: click.echo(f"instance {instance} is forgotten"))
