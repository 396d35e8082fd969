"""`flowferry hsl`: run an agent, and talk to one."""

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, get_args

import click

from flowferry.cli import hsl_view as view
from flowferry.cli.hsl_adapter import adapter
from flowferry.hsl import Client, Config, HslError, endpoint, foreground, wiring
from flowferry.hsl import config as configuration
from flowferry.hsl.client import BOTH, Role, Side
from flowferry.testbed import Testbed, TestbedError
from flowferry.testbed.run import Run
from flowferry.testbed.testbed import DEFAULT_NAME

P = ParamSpec("P")
ROLES = get_args(Role)
#: Seconds an agent has for an answer, beyond what it is asked to wait for.
ANSWER = 30.0

MATCH_HELP = """\b
A MATCH is OVS flow syntax, read from the upstream side: parts with commas
between them, or * for everything.
  ip icmp tcp udp sctp ipv6 icmp6 tcp6 udp6 sctp6 arp
  nw_src nw_dst ipv6_src ipv6_dst   address, or address/prefix
  nw_proto                          protocol number
  tp_src tp_dst                     port (also tcp_src, udp_dst, ...)
  dl_src dl_dst dl_type             MACs and EtherType of frames that are not IP
  dl_vlan inner_vlan                VLAN id, or none
A FLOW is a match that names protocol, both addresses and both ports."""


class MatchType(click.ParamType[str]):
    """A match; what is none is wrong usage and never reaches the agent."""

    name = "match"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> str:
        """The match as it stands."""
        try:
            return endpoint.check_match(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


MATCH = MatchType()


@contextmanager
def one_line() -> Iterator[None]:
    """Turn what a user can mend into one line on stderr and exit status 1."""
    try:
        yield
    except (HslError, TestbedError, configuration.ConfigError) as error:
        raise click.ClickException(str(error)) from None


json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


def asks(command: Callable[Concatenate[Client, P], None]) -> Callable[..., None]:
    """Give a command its client, found by --socket, or by --name and --instance; and --json."""

    @json_option
    @click.option("--instance", metavar="NAME", help="Which instance, if there are several.")
    @click.option("--name", metavar="RUN", help=f"Which testbed.  [default: {DEFAULT_NAME}]")
    @click.option(
        "--socket",
        metavar="PATH",
        type=click.Path(readable=False, path_type=Path),  # who may not is told by the client
        help="The agent's socket, if it belongs to no testbed.",
    )
    @wraps(command)
    def wrapped(
        socket: Path | None, name: str | None, instance: str | None, **options: Any
    ) -> None:
        if socket is not None and (name is not None or instance is not None):
            raise click.UsageError("--socket stands alone, without --name and --instance")
        with one_line():
            path = socket or _find(name or DEFAULT_NAME, instance)
            with Client(path, timeout=options.get("timeout", 0.0) + ANSWER) as client:
                command(client, **options)  # type: ignore[call-arg]

    return wrapped


def stray_has_peer(command: Callable[..., None]) -> Callable[..., None]:
    """Refuse a role and a --peer that do not belong together, before an agent is asked."""

    @wraps(command)
    def wrapped(**options: Any) -> None:
        if (options["role"] == "stray") != (options["peer"] is not None):
            raise click.UsageError("the role stray and --peer go together")
        command(**options)

    return wrapped


def _find(name: str, instance: str | None) -> Path:
    """The socket of a run's agent; `instance` may be left out when there is only one agent."""
    directory = Run.reopen(name).directory
    if instance is not None:
        return wiring.socket_of(directory, instance)
    found = wiring.sockets_in(directory)
    if len(found) == 1:
        return next(iter(found.values()))
    if not found:
        raise HslError(
            f"no agent runs in testbed {name}; start one with 'flowferry hsl run --name {name}'"
        )
    raise HslError(
        f"testbed {name} has several agents; choose --instance {', '.join(sorted(found))}"
    )


@click.group()
def hsl() -> None:
    """The handover support layer: run an agent in front of an instance, and talk to it."""


@hsl.command()
@click.option(
    "--config",
    "file",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="YAML; 'flowferry hsl schema' prints its schema.",
)
@click.option("--name", metavar="RUN", help="Instead: run it for an instance of this testbed.")
@click.option("--instance", metavar="NAME", help="Which instance, if there are several.")
@click.option("--check", is_flag=True, help="Only check the configuration.")
@json_option
def run(
    file: Path | None, name: str | None, instance: str | None, check: bool, as_json: bool
) -> None:
    """Run an agent until SIGTERM, Ctrl-C or 'flowferry hsl stop'; its last status is printed."""
    if (file is None) == (name is None and instance is None):
        raise click.UsageError("give --config FILE, or --name RUN and --instance NAME of a testbed")
    with one_line():
        config = _read(file, check) if file else _wire(name or DEFAULT_NAME, instance)
        if check:
            view.answer(as_json, {"file": str(file), "ok": True}, f"{file or name}: ok")
            return
        if os.geteuid() != 0:
            raise HslError("this needs root; run it as root (sudo)")
        if not as_json:
            click.echo(f"agent of {config.instance.name} on {config.socket}", err=True)
        status = foreground.run(config)
    view.status(status, as_json)


def _read(file: Path, every_problem: bool) -> Config:
    try:
        return configuration.load(file)
    except configuration.ConfigError as error:
        if every_problem:
            for problem in error.problems[:-1]:
                click.echo(f"Error: {problem}", err=True)
            raise click.ClickException(str(error.problems[-1])) from None
        raise


def _wire(name: str, instance: str | None) -> Config:
    return wiring.config_for(Testbed.attach(name), instance)


@hsl.command()
def schema() -> None:
    """Print the JSON schema of the configuration file."""
    click.echo(json.dumps(configuration.schema(), indent=2))


@hsl.command()
@click.option("--handovers", is_flag=True, help="What can happen to a part of a handover.")
@click.option("--dot", is_flag=True, help="As a Graphviz graph.")
@json_option
def table(handovers: bool, dot: bool, as_json: bool) -> None:
    """Print the transition table: what can happen to a flow on one side."""
    if dot and handovers:
        click.echo(endpoint.handover_transitions_as_dot(), nl=False)
    elif dot:
        click.echo(endpoint.transitions_as_dot(), nl=False)
    else:
        rows = endpoint.handover_transitions() if handovers else endpoint.transitions()
        view.transitions(rows, as_json)


@hsl.command()
@asks
def status(client: Client, as_json: bool) -> None:
    """Show everything at a glance: buffer, flows, holds, counters, losses."""
    view.status(client.status(), as_json)


@hsl.command(epilog=MATCH_HELP)
@click.argument("match", type=MATCH)
@click.option(
    "--except", "except_", type=MATCH, multiple=True, metavar="MATCH", help="Leave these alone."
)
@click.option(
    "--side",
    type=click.Choice([*BOTH, "both"]),
    default="both",
    show_default=True,
    help="Where packets arrive that are held.",
)
@click.option(
    "--role",
    type=click.Choice(ROLES),
    default="capture",
    show_default=True,
    help="Keep packets; keep those of flows not served here; send them to --peer.",
)
@click.option("--peer", metavar="HOST:PORT", help="The agent that strays go to.")
@click.option("--id", "id_", type=click.IntRange(1), metavar="N", help="Name the hold.")
@stray_has_peer
@asks
def hold(
    client: Client,
    match: str,
    except_: tuple[str, ...],
    side: str,
    role: Role,
    peer: str | None,
    id_: int | None,
    as_json: bool,
) -> None:
    """Hold the packets of every flow that matches, until it is released."""
    sides = BOTH if side == "both" else _side(side)
    made = client.hold(match, role=role, hold=id_, except_=except_, sides=sides, peer=peer)
    text = f"hold {made} is in force; let it go with 'flowferry hsl release {made}'"
    view.answer(as_json, {"id": made}, text)


def _side(name: str) -> tuple[Side, ...]:
    return tuple(side for side in BOTH if side == name)


id_argument = click.argument("id_", metavar="ID", type=click.IntRange(1))


@hsl.command()
@id_argument
@click.option("--flow", type=MATCH, metavar="FLOW", help="Only this flow of the hold.")
@asks
def release(client: Client, id_: int, flow: str | None, as_json: bool) -> None:
    """Let the packets of a hold go, in order."""
    client.release(id_, flow)
    what = f"hold {id_}" if flow is None else f"{flow} of hold {id_}"
    view.answer(as_json, {"id": id_, "flow": flow}, f"{what} is being released")


@hsl.command()
@id_argument
@click.option("--why", metavar="TEXT", help="What the hold's 'error' is to say.")
@asks
def abort(client: Client, id_: int, why: str | None, as_json: bool) -> None:
    """Let the packets of a hold go, in order, and call it aborted."""
    client.abort(id_, why)
    view.answer(as_json, {"id": id_}, f"hold {id_} is being aborted")


@hsl.command()
@id_argument
@click.argument("role", type=click.Choice(ROLES))
@click.option("--peer", metavar="HOST:PORT", help="The agent that strays go to.")
@stray_has_peer
@asks
def turn(client: Client, id_: int, role: Role, peer: str | None, as_json: bool) -> None:
    """Give a hold another role: what a handover that is called off needs."""
    client.turn(id_, role, peer=peer)
    view.answer(as_json, {"id": id_, "role": role}, f"hold {id_} is a {role} hold now")


@hsl.command()
@id_argument
@click.option(
    "--timeout", type=click.FloatRange(0), default=10.0, show_default=True, help="Seconds."
)
@asks
def wait(client: Client, id_: int, timeout: float, as_json: bool) -> None:
    """Wait until a hold has ended, and show its figures; exit status 1 if it was aborted."""
    ended = client.wait(id_, timeout)
    view.holds([ended], as_json, single=True)
    if ended["state"] != "done":
        raise click.ClickException(f"hold {id_} was aborted: {ended['error']}")


@hsl.command()
@asks
def holds(client: Client, as_json: bool) -> None:
    """List all holds, those that have ended included."""
    view.holds(client.holds(), as_json)


@hsl.command()
@asks
def forget(client: Client, as_json: bool) -> None:
    """Forget the holds that have ended."""
    client.forget_ended()
    view.answer(as_json, {}, "forgotten")


@hsl.command()
@click.option("--limit", type=click.IntRange(1), default=1000, show_default=True)
@asks
def flows(client: Client, limit: int, as_json: bool) -> None:
    """List the flows that have gone on to the function, busiest first."""
    view.flows(client.call("flows", limit=limit), as_json)


@hsl.command(epilog=MATCH_HELP)
@click.argument("flow", type=MATCH)
@asks
def disown(client: Client, flow: str, as_json: bool) -> None:
    """Forget that a flow was served here."""
    client.disown(flow)
    view.answer(as_json, {"flow": flow}, f"{flow} is not ours any more")


@hsl.command(epilog=MATCH_HELP)
@click.argument("upstream", type=MATCH)
@click.argument("downstream", type=MATCH)
@asks
def alias(client: Client, upstream: str, downstream: str, as_json: bool) -> None:
    """Say that flow UPSTREAM has the headers DOWNSTREAM on the other side (NAT)."""
    client.alias(upstream, downstream)
    found = {"upstream": upstream, "downstream": downstream}
    view.answer(as_json, found, f"{upstream} is {downstream} downstream")


@hsl.command(epilog=MATCH_HELP)
@click.argument("upstream", type=MATCH)
@asks
def unalias(client: Client, upstream: str, as_json: bool) -> None:
    """Take an alias back."""
    client.unalias(upstream)
    view.answer(as_json, {"upstream": upstream}, f"{upstream} is the same on both sides")


@hsl.command()
@click.argument("side", type=click.Choice(BOTH))
@asks
def flush(client: Client, side: Side, as_json: bool) -> None:
    """Wait until all that was queued on every CPU has come through."""
    done = client.flush(side)
    text = f"{side}: {done['cpus']} CPUs' queues came through in {done['duration_us']:,.0f} µs"
    view.answer(as_json, done, text)


@hsl.command()
@asks
def events(client: Client, as_json: bool) -> None:
    """Print every event as it happens, one a line, until Ctrl-C."""
    try:
        for event in client.events():
            click.echo(json.dumps(event) if as_json else view.event(event, time.localtime()))
    except KeyboardInterrupt:
        return


@hsl.command()
@click.option("--detach", is_flag=True, help="Also take the programs off the interfaces.")
@asks
def stop(client: Client, detach: bool, as_json: bool) -> None:
    """Have everything released in order and the agent end."""
    client.stop(detach=detach)
    client.await_end()
    left = "with its programs" if detach else "its programs stay and let everything pass"
    view.answer(as_json, {"detach": detach}, f"the agent has ended, {left}")


hsl.add_command(adapter)
