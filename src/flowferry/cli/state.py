"""`flowferry state`: an instance of the state store, and what it and its cluster hold."""

import json
import secrets
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any, Concatenate, ParamSpec, get_args

import click

from flowferry import estate
from flowferry.cli import state_view as view
from flowferry.cli.state_target import Target, options_of_membership, targeted
from flowferry.estate import door
from flowferry.estate.reducers import Named

P = ParamSpec("P")

JSON_OPTION = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
REDUCERS = [*get_args(Named), "items"]


def mended(command: Callable[P, None]) -> Callable[P, None]:
    """End with one line and status 1 for whatever the store says."""

    @wraps(command)
    def run(*args: P.args, **options: P.kwargs) -> None:
        try:
            command(*args, **options)
        except (estate.OptionInvalid, estate.PatternInvalid, estate.KeyInvalid) as error:
            raise click.UsageError(str(error)) from None
        except (estate.EstateError, TypeError, OverflowError) as error:
            raise click.ClickException(str(error)) from None

    return run


@click.group()
def state() -> None:
    """Local and global state of network function instances.

    `join` runs an instance; the other commands ask one on this machine (--socket, --node, or the
    only one there is). What is global can also be asked from outside: with --peer or --backend the
    command is a member of --cluster itself for a moment.
    """


def asking(command: Callable[Concatenate[Target, P], None]) -> Callable[..., None]:
    """A command that gets the target, and `--json`."""
    return targeted(mended(JSON_OPTION(command)))


@state.command()
@asking
@options_of_membership
@click.option("--no-door", is_flag=True, help="Open no door for the other commands.")
def join(target: Target, /, no_door: bool, as_json: bool, **options: Any) -> None:
    """Be a member of a cluster, as --node, until interrupted."""
    _be_a_member(target, as_json, with_door=not no_door, **options)


@state.command()
@asking
@options_of_membership
def router(target: Target, /, as_json: bool, **options: Any) -> None:
    """Be a member, as --node, that joins sites: who cannot reach each other talks through it.

    Both sides have to reach its --listen address, or be reached as its --peer.
    """
    _be_a_member(target, as_json, with_door=False, relay=True, **options)


def _be_a_member(target: Target, as_json: bool, *, with_door: bool, **options: Any) -> None:
    with ExitStack() as stack:
        es = stack.enter_context(target.join(**options))
        place = stack.enter_context(door.serve(es, target.socket)) if with_door else None
        stopped = threading.Event()
        with _until_signal(stopped):
            view.joined(es, place, as_json)
            stopped.wait()
    view.note("left", as_json)


@contextmanager
def _until_signal(stopped: threading.Event) -> Iterator[None]:
    before = {
        number: signal.signal(number, lambda *_: stopped.set())
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@state.command(name="set")
@click.argument("key")
@click.argument("value")
@click.option(
    "--type",
    "kind",
    type=click.Choice(["auto", "str", "int", "float", "bytes"]),
    default="auto",
    show_default=True,
    help="auto: int or float if it looks like one; bytes: in hex.",
)
@click.option("--ttl", type=click.FloatRange(0, min_open=True), help="Seconds until it expires.")
@asking
def set_(target: Target, key: str, value: str, kind: str, ttl: float | None, as_json: bool) -> None:
    """Write an item of an instance. VALUE - reads bytes from the standard input."""
    told = door.value_json(_value(value, kind))
    done = target.local({"do": "set", "key": key, "ttl": ttl, **told})
    view.done(f"{key} is set on {done['node']}", done, as_json)


def _value(text: str, kind: str) -> bytes | str | int | float:
    if text == "-" and kind in ("auto", "bytes"):
        return sys.stdin.buffer.read()
    makers: dict[str, Callable[[str], bytes | str | int | float]] = {
        "int": int,
        "float": float,
        "bytes": bytes.fromhex,
        "str": str,
    }
    if kind != "auto":
        try:
            return makers[kind](text)
        except ValueError:
            raise click.UsageError(f"{text!r} is no {kind}") from None
    for guess in (int, float):
        try:
            return guess(text)
        except ValueError:
            continue
    return text


@state.command()
@click.argument("key")
@click.option("--raw", is_flag=True, help="Write just the value's bytes.")
@asking
def get(target: Target, key: str, raw: bool, as_json: bool) -> None:
    """Read an item of an instance; status 1 if it has none."""
    found = target.local({"do": "get", "key": key})
    if found["item"] is None:
        raise click.ClickException(
            f"{found['node']} has no item {key!r}; 'state keys' lists its items, "
            f"'state global {key}' asks all members"
        )
    if raw:
        sys.stdout.buffer.write(view.raw(found["item"]))
    else:
        view.item(found["item"], as_json)


@state.command()
@click.argument("key")
@asking
def delete(target: Target, key: str, as_json: bool) -> None:
    """Remove an item of an instance; status 1 if it has none."""
    done = target.local({"do": "delete", "key": key})
    if not done["deleted"]:
        raise click.ClickException(f"{done['node']} has no item {key!r}; nothing was deleted")
    view.done(f"{key} is deleted on {done['node']}", done, as_json)


@state.command(context_settings={"ignore_unknown_options": True})
@click.argument("key")
@click.argument("delta", type=int, default=1)
@asking
def add(target: Target, key: str, delta: int, as_json: bool) -> None:
    """Add DELTA (1) to a counter of an instance, and print it."""
    done = target.local({"do": "add", "key": key, "delta": delta})
    view.done(str(done["value"]), done, as_json)


@state.command()
@click.argument("pattern", default="*")
@click.option("--regex", is_flag=True, help="PATTERN is a regular expression, not a glob.")
@asking
def keys(target: Target, pattern: str, regex: bool, as_json: bool) -> None:
    """List the keys of an instance that match PATTERN."""
    kind = "regex" if regex else "glob"
    view.keys(target.local({"do": "keys", "key": pattern, "pattern": kind}), as_json)


@state.command(name="global")
@click.argument("key")
@click.option(
    "--reduce",
    "reducer",
    type=click.Choice(REDUCERS),
    default="items",
    show_default=True,
    help="What becomes of the items; items: list them.",
)
@click.option("--glob", is_flag=True, help="KEY is a glob.")
@click.option("--regex", is_flag=True, help="KEY is a regular expression.")
@click.option("--cached", type=click.FloatRange(0), metavar="SECONDS", help="May be so old.")
@click.option("--snapshot", is_flag=True, help="All members as of one instant.")
@click.option("--timeout", type=click.FloatRange(0, min_open=True), help="Seconds to wait.")
@click.option("--require", default="all", show_default=True, metavar="all|quorum|N")
@asking
def global_(
    target: Target,
    key: str,
    reducer: str,
    glob: bool,
    regex: bool,
    cached: float | None,
    snapshot: bool,
    timeout: float | None,
    require: str,
    as_json: bool,
) -> None:
    """Read KEY on all members, and reduce what they hold to one value.

    Status 1 if fewer members answer than --require says; what the others say is printed all the
    same.
    """
    if glob and regex:
        raise click.UsageError("--glob or --regex, not both")
    if snapshot and cached is not None:
        raise click.UsageError("--cached or --snapshot, not both")
    least = _required(require)
    request: dict[str, Any] = {"do": "global", "key": key, "reduce": reducer, "timeout": timeout}
    request["pattern"] = "glob" if glob else "regex" if regex else None
    request["snapshot"] = snapshot
    if cached is not None:
        request["cached"] = cached
    found = target.anywhere(request)
    view.found(found, as_json)
    answered, missing = len(found["answered"]), found["missing"]
    if answered < least(answered + len(missing)):
        raise click.ClickException(
            f"no answer in time from {', '.join(missing)}; allow more --timeout, or --require fewer"
        )


def _required(text: str) -> Callable[[int], int]:
    if text == "all":
        return lambda expected: expected
    if text == "quorum":
        return lambda expected: expected // 2 + 1
    if text.isdecimal():
        return lambda expected: min(int(text), expected)
    raise click.UsageError(f"--require is all, quorum or a number, not {text!r}")


@state.command()
@asking
def members(target: Target, as_json: bool) -> None:
    """List the live members of the cluster."""
    found = target.anywhere({"do": "members"})
    found["members"] = [name for name in found["members"] if not target.is_visitor(name)]
    view.members(found, as_json)


@state.command()
@asking
def statistics(target: Target, as_json: bool) -> None:
    """Show what an instance keeps, and what it was asked."""
    view.figures(target.local({"do": "statistics"}), as_json)


@state.command()
@click.argument("flows", nargs=-1, required=True, metavar="FLOW…")
@click.option("--from", "source", required=True, metavar="NODE", help="Who has them now.")
@click.option("--move-id", type=click.IntRange(0, 2**64 - 1), help="To repeat a move safely.")
@asking
def take(
    target: Target, flows: tuple[str, ...], source: str, move_id: int | None, as_json: bool
) -> None:
    """Move all items of flows (as keys name them: flow:…) from another member to an instance."""
    chosen = secrets.randbits(63) if move_id is None else move_id
    request = {"do": "take", "flows": list(flows), "source": source, "move_id": chosen}
    done = {**target.local(request), "move_id": chosen}
    view.done(f"{done['items']} items moved from {source} to {done['node']}", done, as_json)


@state.command()
@click.argument("move_id", type=click.IntRange(0, 2**64 - 1))
@asking
def abort_take(target: Target, move_id: int, as_json: bool) -> None:
    """Give up a move to an instance that is under way: its items stay where they are.

    Status 1 if there is none, or it is too late.
    """
    done = target.local({"do": "abort_take", "move_id": move_id})
    if not done["aborted"]:
        raise click.ClickException(
            f"no move {move_id:#x} to {done['node']} can be given up: it is over, or its source "
            "decides it; 'state take' with its id tells what has become of it"
        )
    view.done(f"move {move_id:#x} to {done['node']} is given up", done, as_json)


@state.command()
@click.argument("member")
@click.option(
    "--its-process-has-ended",
    "vouched",
    is_flag=True,
    help="You have made sure of it: the host is lost, or you see no such process there.",
)
@asking
def declare_dead(target: Target, member: str, vouched: bool, as_json: bool) -> None:
    """Decide what waits at an instance for MEMBER, whose host is lost for good.

    A `take` that was cut off at the very moment of its decision leaves its items frozen until the
    other side is heard of, is restarted under its name, or its host refuses connections. Where none
    of that will ever happen, this makes the items those of the instance that is asked.

    WARNING: if the process of MEMBER still runs somewhere, both sides will own these items and
    write to them; when they hear of each other, what one of them has written since is lost.
    """
    if not vouched:
        raise click.UsageError(
            f"if {member} still runs, both sides will write the same items and one side's writes "
            "will be lost: make sure that its process has ended, then say --its-process-has-ended"
        )
    done = target.local({"do": "declare_dead", "member": member})
    moves = (
        "1 move that waited for it is"
        if done["moves"] == 1
        else (f"{done['moves']} moves that waited for it are")
    )
    view.done(f"{member} is dead to {done['node']}; {moves} decided", done, as_json)


@state.command()
@click.argument("pattern", default="*")
@click.option("--regex", is_flag=True, help="PATTERN is a regular expression, not a glob.")
@click.option("--count", type=click.IntRange(1), help="End after so many changes.")
@asking
def watch(target: Target, pattern: str, regex: bool, count: int | None, as_json: bool) -> None:
    """Print changes of matching items of all members as they happen, until interrupted.

    With --json, one object a line.
    """
    seen = 0
    try:
        for event in target.watch(pattern, "regex" if regex else "glob"):
            click.echo(json.dumps(event) if as_json else view.event(event))
            seen += 1
            if seen == count:
                return
    except KeyboardInterrupt:
        return
    raise click.ClickException("the instance has ended; start it again and watch it again")
