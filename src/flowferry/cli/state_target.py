"""Whom a command of `flowferry state` asks: an instance at its door, or a cluster from within."""

import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import click

from flowferry import estate
from flowferry.estate import Estate, Tls, door

Command = TypeVar("Command", bound=Callable[..., Any])

#: What the names of members for a moment begin with.
VISITOR = "flowferry-state-"
DEFAULT_CLUSTER = "default"


def options_of_membership(command: Command) -> Command:
    """The options of `join` that say how to be a member."""
    for option in reversed(
        [
            click.option("--listen", metavar="HOST:PORT", help="Address to be reached at."),
            click.option("--scouting", is_flag=True, help="Find members by multicast, too."),
            click.option("--memory-limit", type=click.IntRange(1), help="Bytes for items."),
            click.option(
                "--failure-after",
                type=float,
                default=1.0,
                show_default=True,
                help="Seconds of silence after which a member has failed.",
            ),
        ]
    ):
        command = option(command)
    return command


def targeted(command: Callable[..., None]) -> Callable[..., None]:
    """A command with the options that say whom to ask; gets them as its first argument."""

    @wraps(command)
    def run(
        *args: Any,
        socket: Path | None,
        node: str | None,
        cluster: str | None,
        peers: tuple[str, ...],
        backend: str | None,
        tls_ca: str | None,
        tls_certificate: str | None,
        tls_key: str | None,
        **options: Any,
    ) -> None:
        tls = None
        if tls_ca or tls_certificate or tls_key:
            if not (tls_ca and tls_certificate and tls_key):
                raise click.UsageError("--tls-ca, --tls-certificate and --tls-key go together")
            tls = Tls(tls_ca, tls_certificate, tls_key)
        command(Target(socket, node, cluster, peers, backend, tls), *args, **options)

    for option in reversed(
        [
            click.option(
                "--socket", type=click.Path(path_type=Path), help="The door of an instance."
            ),
            click.option("--node", help="The name of an instance on this machine."),
            click.option("--cluster", help=f"The cluster.  [default: {DEFAULT_CLUSTER}]"),
            click.option(
                "--peer", "peers", multiple=True, metavar="HOST:PORT", help="A member; repeatable."
            ),
            click.option(
                "--backend", metavar="URL", help="local, p2p, redis://…, redis+cluster://…"
            ),
            click.option("--tls-ca", type=click.Path(exists=True), help="Who is believed (PEM)."),
            click.option("--tls-certificate", type=click.Path(exists=True), help="Who this is."),
            click.option("--tls-key", type=click.Path(exists=True), help="The key to it."),
        ]
    ):
        run = option(run)
    return run


@dataclass(frozen=True)
class Target:
    """The options that all commands have."""

    socket: Path | None
    node: str | None
    cluster: str | None
    peers: tuple[str, ...]
    backend: str | None
    tls: Tls | None

    def join(self, *, name: str | None = None, listen: str | None = None, **options: Any) -> Estate:
        """Open an estate as the options say."""
        node = name or self.node
        if node is None:
            raise click.UsageError("--node is missing: the name of this instance")
        return estate.open(
            cluster=self.cluster or DEFAULT_CLUSTER,
            node=node,
            backend=self.backend or "p2p",
            peers=self.peers,
            listen=listen or (),
            tls=self.tls,
            **options,
        )

    def local(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Ask an instance about its own items."""
        if self._outside:
            raise click.UsageError(
                "an instance's own items are asked for at the instance: use --socket or --node, "
                "or 'state global' for what all have"
            )
        with closing(door.Client(self._door())) as client:
            return client.ask(request)

    def anywhere(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Ask an instance, or be a member for a moment."""
        if not self._outside:
            return self.local(request)
        with self._visit() as es:
            return door.answer(es, request)

    def watch(self, key: str, pattern: str) -> Iterator[dict[str, Any]]:
        """Changes, until the instance ends."""
        if not self._outside:
            with closing(door.Client(self._door())) as client:
                yield from client.watch(key, pattern)
            return
        with self._visit() as es:
            kind = "regex" if pattern == "regex" else "glob"
            for event in es.watch(key, pattern=kind):  # type: ignore[arg-type]
                yield door.event_json(event)

    def is_visitor(self, name: str) -> bool:
        """Whether a member is there for a command only."""
        return name.startswith(VISITOR)

    @property
    def _outside(self) -> bool:
        return bool(self.peers or self.backend)

    def _visit(self) -> Estate:
        return self.join(name=f"{VISITOR}{os.getpid()}-{secrets.token_hex(4)}")

    def _door(self) -> Path:
        if self.socket is not None:
            return self.socket
        found = [
            (cluster, node, path)
            for cluster, node, path in door.doors()
            if self.node in (None, node) and self.cluster in (None, cluster)
        ]
        if len(found) == 1:
            return found[0][2]
        if not found:
            wanted = f"instance {self.node!r}" if self.node else "instance"
            raise click.ClickException(
                f"there is no {wanted} on this machine that has a door; "
                "start one with 'flowferry state join --node NAME'"
            )
        names = ", ".join(f"{node} of {cluster}" for cluster, node, _ in found)
        raise click.ClickException(f"which instance? There are {names}; say --node or --cluster")
