"""`flowferry controller`: the daemon, its configuration's schema, and what it says of itself."""

import json
import sys
from pathlib import Path

import click

from flowferry.cli.talk import asks, show
from flowferry.controller import config as configuration
from flowferry.controller.client import Client
from flowferry.hsl.config import ConfigError


class _Group(click.Group):
    """`flowferry controller --config FILE` is `flowferry controller run --config FILE`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0].split("=")[0] in ("--config", "--check"):
            args = ["run", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_Group)
def controller() -> None:
    """The controller of the switches: it moves flows between instances."""


@controller.command()
@click.option(
    "--config",
    "file",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    help="A YAML file; docs/controller.md describes it.",
)
@click.option("--check", is_flag=True, help="Only check the file, and list all problems.")
@click.option("--json", "as_json", is_flag=True, help="With --check: print one JSON object.")
def run(file: Path, check: bool, as_json: bool) -> None:
    """Run in the foreground until SIGTERM or Ctrl-C; says `ready` on stderr."""
    try:
        found = configuration.load(file)
    except ConfigError as error:
        if not check:
            raise click.ClickException(str(error)) from None
        for problem in error.problems:
            click.echo(str(problem), err=True)
        if as_json:
            problems = [str(problem) for problem in error.problems]
            click.echo(json.dumps({"file": str(file), "ok": False, "problems": problems}))
        sys.exit(1)
    if check:
        answer = {"file": str(file), "ok": True}
        show(as_json, answer, lambda: click.echo(f"{file} is fine"))
        return
    from flowferry.controller import foreground  # the daemon's libraries take a second to load

    sys.exit(foreground.run(found))


@controller.command()
def schema() -> None:
    """Print the configuration's JSON schema."""
    click.echo(json.dumps(configuration.schema(), indent=2))


@controller.command()
@asks
def status(client: Client, as_json: bool) -> None:
    """Show what a running controller knows."""
    found = client.status()
    switches = client.switches()

    def text() -> None:
        click.echo(f"{found['name']} {found['version']} on {client.url}")
        for name in ("groups", "instances", "rules", "handovers"):
            if name in found:
                click.echo(f"  {found[name]} {name}")
        for switch in switches:
            state = "connected" if switch["connected"] else "away"
            click.echo(f"  switch {switch.get('name') or switch['dpid']}: {state}")

    show(as_json, {**found, "switches": switches}, text)


@controller.command()
@asks
def events(client: Client, as_json: bool) -> None:
    """Print every event as it happens, one a line, until Ctrl-C."""
    try:
        for event in client.events():
            click.echo(json.dumps(event))
    except KeyboardInterrupt:
        return
