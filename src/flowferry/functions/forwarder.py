"""A packet-socket forwarder: every frame from one interface to the other and back.

It reads and writes AF_PACKET sockets as libpcap programs do, and stands for every function of that
kind. With ``delay`` it is a delay line for kernels without netem; with ``faults`` it drops, doubles
and swaps packets at places told in advance; with ``seen`` it records what it handled.

``python -m flowferry.functions.forwarder A B`` runs it until SIGINT or SIGTERM and prints its
report as one JSON object. The file given by ``--stats`` appears when the sockets are open, and is
renewed on SIGUSR1 and at the end.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict, cast

import click

from flowferry._native import Control, forwarder_run

__all__ = ["Control", "FaultCounts", "ForwarderError", "ForwarderReport", "LaneCounts", "forward"]


class ForwarderError(RuntimeError):
    """The forwarder failed; the message says at what, and what to do."""


class FaultCounts(TypedDict):
    """Faults made on purpose; ``counted`` are the packets the plan was applied to."""

    counted: int
    dropped: int
    duplicated: int
    swapped: int


class LaneCounts(TypedDict):
    """What one direction did, in frames."""

    received: int
    received_bytes: int
    super_frames: int
    retagged: int
    sent: int
    socket_dropped: int
    unreadable: int
    send_retries: int
    too_long: int
    send_failed: int
    delay_dropped: int
    faults: FaultCounts


class ForwarderReport(TypedDict):
    """The report of a forwarder; ``a_to_b`` are the frames that came in at ``a``."""

    a: str
    b: str
    seconds: float
    a_to_b: LaneCounts
    b_to_a: LaneCounts


def forward(
    a: str,
    b: str,
    *,
    netns: str | None = None,
    cpu: int | None = None,
    delay: float = 0.0,
    delay_buffer: int = 64 << 20,
    faults: Sequence[str] = (),
    seen: str | os.PathLike[str] | None = None,
    stats: str | os.PathLike[str] | None = None,
    buffer: int = 64 << 20,
    control: Control | None = None,
) -> ForwarderReport:
    """Forward every frame between interfaces ``a`` and ``b`` until ``control`` says stop.

    Args:
        a: One interface.
        b: The other.
        netns: Network namespace of both, a name or a path.
        cpu: CPU to run on.
        delay: Seconds to hold every frame, in each direction, order kept.
        delay_buffer: Bytes that may be held per direction; frames beyond are dropped and counted.
        faults: Fault plans, at most one per side, for instance
            ``"drop=every:100 swap=7,19 dup=40 on=a"``; see ``docs/probe.md``.
        seen: File to record every frame in, for :func:`flowferry.functions.seen.read_seen`.
        stats: File for the report: written when ready, on request and at the end.
        buffer: Socket buffers in bytes.
        control: To stop it, to ask for a report in between, and to see that it is ready.

    Raises:
        ValueError: The request is wrong.
        ForwarderError: An interface or a socket failed.
    """
    config = {
        "a": a,
        "b": b,
        "netns": netns,
        "cpu": cpu,
        "delay": delay,
        "delay_buffer": delay_buffer,
        "faults": list(faults),
        "seen": None if seen is None else os.fspath(seen),
        "stats": None if stats is None else os.fspath(stats),
        "buffer": buffer,
    }
    try:
        report = forwarder_run(json.dumps(config), control or Control())
    except RuntimeError as error:
        raise ForwarderError(str(error)) from None
    return cast(ForwarderReport, json.loads(report))


_UNITS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "": 1e-3}


class _Duration(click.ParamType[float]):
    """Seconds from `1s`, `5ms`, `200us`; a bare number is milliseconds."""

    name = "duration"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        if isinstance(value, float):
            return value
        match = re.fullmatch(r"(\d+\.?\d*)(s|ms|us|)", str(value))
        if match is None:
            self.fail(f"{value!r} is no duration; write 5ms, 200us or 1s", param, ctx)
        return float(match[1]) * _UNITS[match[2]]


@click.command()
@click.argument("a")
@click.argument("b")
@click.option("--netns", metavar="NAME", help="Network namespace of both interfaces.")
@click.option("--cpu", type=click.IntRange(0), help="CPU to run on.")
@click.option(
    "--delay",
    "--delay-ms",
    "delay",
    type=_Duration(),
    default=0.0,
    help="Hold every frame so long: 5ms, 200us; a bare number is milliseconds.",
)
@click.option(
    "--delay-buffer",
    type=click.IntRange(1),
    default=64 << 20,
    show_default=True,
    help="Bytes that may be held per direction.",
)
@click.option("--fault", "faults", multiple=True, metavar="PLAN", help="Fault plan; repeatable.")
@click.option(
    "--seen", type=click.Path(dir_okay=False, path_type=Path), help="Record every frame here."
)
@click.option(
    "--stats", type=click.Path(dir_okay=False, path_type=Path), help="Write the report here too."
)
@click.option(
    "--buffer", type=click.IntRange(4096), default=64 << 20, help="Socket buffers, bytes."
)
def main(
    a: str,
    b: str,
    netns: str | None,
    cpu: int | None,
    delay: float,
    delay_buffer: int,
    faults: tuple[str, ...],
    seen: Path | None,
    stats: Path | None,
    buffer: int,
) -> None:
    """Forward every frame between interfaces A and B until SIGINT or SIGTERM.

    A fault plan is for instance "drop=every:100 swap=7,19 dup=40 on=a".
    """
    control = Control()
    signal.signal(signal.SIGUSR1, lambda *_: control.request_dump())
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: control.stop())
    try:
        report = forward(
            a,
            b,
            netns=netns,
            cpu=cpu,
            delay=delay,
            delay_buffer=delay_buffer,
            faults=faults,
            seen=seen,
            stats=stats,
            buffer=buffer,
            control=control,
        )
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    except ForwarderError as error:
        print(f"forwarder: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    print(json.dumps(report))


if __name__ == "__main__":
    main()
