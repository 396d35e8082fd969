"""`flowferry testbed`: up, status, down."""

import json
import subprocess
import time
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import click
from rich.console import Console
from rich.table import Table

from flowferry.controller import ControllerError, Platform
from flowferry.hsl import HslError
from flowferry.hsl.wiring import TAPPING
from flowferry.testbed import Testbed, TestbedError, preflight
from flowferry.testbed.functions import FUNCTIONS
from flowferry.testbed.run import Run, names
from flowferry.testbed.testbed import DEFAULT_NAME
from flowferry.testbed.topology import MAX_INSTANCES, PORT_TYPES, Description

P = ParamSpec("P")
R = TypeVar("R")


def one_line(command: Callable[P, R]) -> Callable[P, R]:
    """Turn what a user can mend into one line on stderr and exit status 1."""

    @wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except TestbedError as error:
            raise click.ClickException(str(error)) from None
        except (OSError, subprocess.CalledProcessError) as error:
            raise click.ClickException(
                f"{error}; check the machine with 'flowferry doctor'"
            ) from error

    return wrapped


name_option = click.option(
    "--name", default=DEFAULT_NAME, show_default=True, help="Which testbed.", metavar="RUN"
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


@click.group()
def testbed() -> None:
    """Two hosts, two switches and N instances on this machine, in namespaces of their own."""


@testbed.command()
@name_option
@click.option(
    "--instances",
    type=click.IntRange(1, MAX_INSTANCES),
    default=2,
    show_default=True,
    help="How many.",
    metavar="N",
)
@click.option(
    "--function",
    type=click.Choice(sorted(FUNCTIONS)),
    default="bridge",
    show_default=True,
    help="What the instances run.",
)
@click.option("--mtu", default=1500, show_default=True, help="Of the hosts' devices, bytes.")
@click.option(
    "--ports",
    type=click.Choice(PORT_TYPES),
    default="system",
    show_default=True,
    help="How the switches take their ports.",
)
@click.option("--cpu-share", type=float, help="CPUs per instance (0.25: a quarter of one).")
@click.option("--rate", type=float, help="Mbit/s of every data link, each direction.")
@click.option(
    "--delay", type=float, default=0.0, help="Milliseconds added on each host's link, one way."
)
@click.option("--steering/--no-steering", help="Receive packet steering over all CPUs.")
@click.option("--tls", is_flag=True, help="Certificates for all, and TLS between all.")
@click.option(
    "--controller/--no-controller",
    default=True,
    show_default=True,
    help="Agents before the instances and a controller of the switches; without: static entries.",
)
@json_option
@one_line
def up(name: str, controller: bool, as_json: bool, **options: Any) -> None:
    """Build a testbed and leave it running; if that fails, nothing is left."""
    began = time.monotonic()
    bed = Testbed(name, **options)
    preflight.require()
    if controller and options["function"] in TAPPING:
        raise TestbedError(
            f"no handover support layer can stand before {options['function']}",
            "add --no-controller, or take another --function",
        )
    if options["tls"] and not controller:
        raise TestbedError("nothing would use certificates", "leave out --no-controller or --tls")
    description = bed.up(detach=True)
    if controller:
        description = _lead(bed)
    if as_json:
        click.echo(json.dumps(description.as_json()))
        return
    count = len(description.instances)
    click.echo(
        f"testbed {name} is up: h1 - ingress - {count} x {options['function']} - egress - h2"
        f" ({time.monotonic() - began:.1f} s)"
    )
    h1, h2 = description.hosts["h1"], description.hosts["h2"]
    if description.controller is not None:
        click.echo(f"controller: {description.controller}")
        click.echo(f"try:  flowferry move --name {name} --match udp --to i{count} --wait")
    click.echo(f"try:  ip netns exec {h1.namespace} iperf3 -c {h2.ip4}")
    click.echo(f"  on  ip netns exec {h2.namespace} iperf3 -s")


@testbed.command()
@click.option("--name", help="Which testbed; all of them if not given.", metavar="RUN")
@json_option
@one_line
def status(name: str | None, as_json: bool) -> None:
    """Show what is up, with the counters of entries and ports."""
    if name is not None:
        found = _status(Testbed.attach(name))
        if as_json:
            click.echo(json.dumps(found))
        else:
            _print_status(found)
        return
    states = {one: _state(Run.reopen(one)) for one in names()}
    if as_json:
        click.echo(json.dumps({"testbeds": states}))
    elif not states:
        click.echo("no testbed is up")
    else:
        table = Table("testbed", "state", box=None, pad_edge=False)
        for one, state in states.items():
            table.add_row(one, state)
        Console().print(table)


@testbed.command()
@name_option
@click.option("--crashed", is_flag=True, help="All whose maker died before they were complete.")
@json_option
@one_line
def down(name: str, crashed: bool, as_json: bool) -> None:
    """Take a testbed down, whole or in remains; nothing happens if there is none."""
    wanted = [one for one in names() if (Run.reopen(one).crashed() if crashed else one == name)]
    for one in wanted:
        Run.reopen(one).undo()
    if as_json:
        click.echo(json.dumps({"removed": wanted}))
    elif wanted:
        click.echo(f"removed: {', '.join(wanted)}")
    else:
        click.echo("nothing to remove")


def _lead(bed: Testbed) -> Description:
    """Start agents and controller, to be ended by `down`; without them, nothing stays."""
    try:
        Platform(bed, detached=True).up()
    except (HslError, ControllerError) as error:
        bed.down()
        raise click.ClickException(str(error)) from None
    except BaseException:
        bed.down()
        raise
    return bed.description


def _state(run: Run) -> str:
    if run.crashed():
        return f"remains of a crash; remove with 'flowferry testbed down --name {run.name}'"
    return "up" if run.is_complete() else "being built"


def _status(bed: Testbed) -> dict[str, Any]:
    description = bed.description.as_json()
    description["processes"] = [
        {"pid": pid, "argv": argv, "alive": alive} for pid, argv, alive in bed.owner.daemons()
    ]
    for name, switch in bed.switches.items():
        counters = bed.ovs_of(name).port_counters(switch)
        description["switches"][name]["counters"] = {
            port: vars(values) for port, values in counters.items()
        }
        description["switches"][name]["entries"] = bed.ovs_of(name).dump_entries(name)
    return description


def _print_status(found: dict[str, Any]) -> None:
    console = Console()
    console.print(f"testbed {found['name']}, {len(found['instances'])} instances")
    for switch in found["switches"].values():
        table = Table(
            "port", "no", "rx packets", "rx drop", "tx packets", "tx drop",
            title=f"{switch['name']} switch", title_justify="left", box=None, pad_edge=False,
        )  # fmt: skip
        for port, number in switch["ports"].items():
            c = switch["counters"].get(port, {})
            cells = [c.get(k) for k in ("rx_packets", "rx_drop", "tx_packets", "tx_drop")]
            table.add_row(port, str(number), *("-" if v is None else str(v) for v in cells))
        console.print(table)
        for entry in switch["entries"]:
            console.print(f"  {entry}", highlight=False, soft_wrap=True)
    for process in found["processes"]:
        if not process["alive"]:
            console.print(f"[red]ended:[/] {' '.join(process['argv'])} (pid {process['pid']})")
