"""Traffic that proves loss, order, duplication and delay: the typed face of the native probe.

A run is one call that ends with a report. It works in a thread of its own with the interpreter
free, so several runs go side by side in Python threads, each in its own network namespace::

    control = probe.Control()
    with ThreadPoolExecutor() as pool:
        sunk = pool.submit(probe.sink, netns="h2", control=control)
        sent = probe.send("10.0.0.2", netns="h1", flows=100, flow_rate=50, duration=5)
    assert sunk.result()["clean"]

Reports are plain dictionaries, the same objects as ``flowferry probe … --json`` prints. Times are
in ns, CLOCK_MONOTONIC, unless a name says otherwise. What counts as reordered or duplicated is
defined in ``docs/probe.md``.
"""

from __future__ import annotations

import csv
import json
import os
import struct
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypedDict, cast

from flowferry._native import Control, probe_send, probe_sink

__all__ = [
    "Control",
    "DelayReport",
    "FlowReport",
    "PerFlow",
    "ProbeError",
    "Received",
    "SendReport",
    "SinkReport",
    "Stamps",
    "TimelinePacket",
    "read_timeline",
    "send",
    "sink",
    "write_report",
]

PerFlow = Literal["auto", "all", "bad", "none"]
"""Which flows a report lists: up to 100 all, else those amiss; all; those amiss; none."""

Stamps = Literal["kernel", "user"]
"""Where receive times come from: the kernel's stack, or the program's clock."""

Progress = Callable[[int], None]
"""Called about once a second with the packets handled so far."""


class ProbeError(RuntimeError):
    """A run failed; the message says at what, and what to do."""


class DelayReport(TypedDict):
    """A distribution of delays in ns; minimum, mean and maximum are exact."""

    min: int
    mean: int
    p50: int
    p90: int
    p99: int
    p999: int
    max: int


class FlowReport(TypedDict):
    """The accounts of one flow; times are ns since the first packet of the run."""

    flow: int
    sent: int
    received: int
    lost: int
    reordered: int
    duplicated: int
    unclassified: int
    max_extent: int
    delay_ns: DelayReport | None
    longest_gap_ns: int
    longest_gap_at_ns: int
    first_ns: int | None
    last_ns: int | None


class FlowGap(TypedDict):
    """The longest time between two packets of one flow."""

    flow: int
    gap_ns: int
    gap_at_ns: int


class Received(TypedDict):
    """What a receiving side saw."""

    clean: bool
    flows: int
    flows_heard: int
    flows_lossy: int
    sent: int
    received: int
    lost: int
    reordered: int
    duplicated: int
    unclassified: int
    max_extent: int
    bytes: int
    sent_known: Literal["end", "file", "sender", "unknown"]
    sink_dropped: int
    foreign_run: int
    malformed: int
    delay_ns: DelayReport | None
    longest_gap_ns: int
    longest_gap_at_ns: int
    longest_flow_gap: FlowGap | None
    first_ns: int | None
    last_ns: int | None
    packets_per_second: float
    per_flow: list[FlowReport]


class SinkReport(Received):
    """The report of a sink."""

    role: Literal["sink", "echo"]
    run: int | None
    ended_by: Literal["end", "file", "duration", "idle", "nothing", "stopped"]
    replied: int
    reply_failed: int
    verdict: str


class SendReport(TypedDict):
    """The report of a sender."""

    role: Literal["send"]
    run: int
    ended_by: Literal["duration", "count", "stopped"]
    flows: int
    quiet_flows: int
    sent: int
    talk_sent: int
    payload_bytes: int
    frame_bytes: int
    duration_ns: int
    first_ns: int | None
    last_ns: int | None
    packets_per_second: float
    target_packets_per_second: float | None
    late_max_ns: int
    icmp_errors: int
    full_queue: int
    end_acknowledged: bool | None
    sent_per_flow: list[int]
    replies: Received | None
    verdict: str


def _run(
    job: Callable[[str, Control, Progress | None], str],
    config: dict[str, Any],
    control: Control | None,
    progress: Progress | None,
) -> Any:
    try:
        return json.loads(job(json.dumps(config), control or Control(), progress))
    except RuntimeError as error:
        raise ProbeError(str(error)) from None


def send(
    to: str,
    *,
    port: int = 7000,
    ports: int | None = None,
    source: Sequence[str] = (),
    source_port: int = 20000,
    flows: int = 1,
    rate: float | None = None,
    flow_rate: float | None = None,
    quiet: float = 0.0,
    quiet_rate: float = 1.0,
    frame: int | None = None,
    payload: int | None = None,
    duration: float | None = None,
    count: int | None = None,
    threads: int = 1,
    burst: int | None = None,
    segments: int = 1,
    echo: bool = False,
    handshake: float | None = 5.0,
    end: float | None = 3.0,
    linger: float = 1.0,
    run: int | None = None,
    buffer: int = 8 << 20,
    stamps: Stamps = "kernel",
    timeline: str | os.PathLike[str] | None = None,
    timeline_ms: float | None = None,
    per_flow: PerFlow = "auto",
    netns: str | None = None,
    cpu: int | None = None,
    control: Control | None = None,
    progress: Progress | None = None,
) -> SendReport:
    """Send numbered packets on ``flows`` flows and report what was sent (and, echoed, came back).

    Args:
        to: IPv4 or IPv6 address of the sink.
        port: First destination port.
        ports: Destination ports to use; by default one per flow, at most 64 (what a sink binds).
        source: Addresses to send from; by default the one the route gives.
        source_port: First source port. Flow ``f`` has source ``f // ports``, destination port
            ``port + f % ports``.
        flows: Number of flows.
        rate: Packets per second of all flows together. Quiet flows are apart.
        flow_rate: Packets per second of each flow. With neither, as fast as possible.
        quiet: Share of the flows (0 to 1) that send at ``quiet_rate`` only; the highest numbers.
        quiet_rate: Packets per second of each quiet flow.
        frame: Ethernet frame size in bytes without FCS, from 58 (IPv4) or 78 (IPv6).
        payload: UDP payload in bytes, from 16, instead of ``frame``; 64 by default.
        duration: Seconds to send; 10 if ``count`` is not given either.
        count: Packets per flow.
        threads: Threads to send from, each its share of the flows.
        burst: Packets in a row per flow.
        segments: Packets per message that the kernel cuts apart (UDP_SEGMENT); a path with
            offloads sees them uncut.
        echo: Count what comes back, as round trips.
        handshake: Seconds to wait for the sink's first answer; None sends unasked.
        end: Seconds to wait until the sink confirms the sent counts; None does not tell them.
        linger: Seconds to wait for replies that are missing.
        run: Run number; random by default.
        buffer: Socket buffers in bytes.
        stamps: Where receive times of replies come from.
        timeline: File for a timeline of the replies, see :func:`sink`.
        timeline_ms: Rows of the timeline per so many milliseconds.
        per_flow: Flows that the report of the replies lists.
        netns: Network namespace, a name or a path.
        cpu: CPU to run on.
        control: To stop the run, and to see how far it is.
        progress: Called about once a second with the packets sent.

    Raises:
        ValueError: The request is wrong.
        ProbeError: The run failed.
    """
    config = {
        "to": to,
        "port": port,
        "ports": ports,
        "from": list(source),
        "source_port": source_port,
        "flows": flows,
        "rate": rate,
        "flow_rate": flow_rate,
        "quiet": quiet,
        "quiet_rate": quiet_rate,
        "frame": frame,
        "payload": payload,
        "duration": duration,
        "count": count,
        "threads": threads,
        "burst": burst,
        "segments": segments,
        "echo": echo,
        "handshake": handshake,
        "end": end,
        "linger": linger,
        "run": run,
        "buffer": buffer,
        "stamps": stamps,
        "timeline": None if timeline is None else os.fspath(timeline),
        "timeline_ms": timeline_ms,
        "per_flow": per_flow,
        "netns": netns,
        "cpu": cpu,
    }
    return cast(SendReport, _run(probe_send, config, control, progress))


def sink(
    *,
    address: str | None = None,
    port: int = 7000,
    ports: int = 64,
    echo: bool = False,
    run: int | None = None,
    duration: float | None = None,
    wait: float | None = 60.0,
    idle: float = 30.0,
    linger: float = 1.0,
    buffer: int = 64 << 20,
    stamps: Stamps = "kernel",
    sent: str | os.PathLike[str] | None = None,
    timeline: str | os.PathLike[str] | None = None,
    timeline_ms: float | None = None,
    per_flow: PerFlow = "auto",
    netns: str | None = None,
    cpu: int | None = None,
    control: Control | None = None,
    progress: Progress | None = None,
) -> SinkReport:
    """Count what arrives until the sender has said what it sent, and report.

    Args:
        address: Address to bind; by default all, of both families.
        port: First port to bind.
        ports: Ports to bind from there on.
        echo: Send every packet back.
        run: Count this run; by default the first that comes.
        duration: Seconds after which to end in any case.
        wait: Seconds after which to give up if nothing came; None waits for ever.
        idle: Seconds without a packet after which to end.
        linger: Seconds to wait for packets that are missing once the sent counts are known.
        buffer: Receive buffer per port in bytes.
        stamps: Where receive times come from.
        sent: A sender's report (:func:`write_report`) to read the sent counts from, once there.
        timeline: File to record arrivals in: CSV if it ends in ``.csv``, else binary records for
            :func:`read_timeline`.
        timeline_ms: Instead of packets, CSV rows per so many milliseconds.
        per_flow: Flows that the report lists.
        netns: Network namespace, a name or a path.
        cpu: CPU to run on.
        control: To stop the run, and to see that it is ready and how far it is.
        progress: Called about once a second with the packets received.

    Raises:
        ValueError: The request is wrong.
        ProbeError: The run failed.
    """
    config = {
        "address": address,
        "port": port,
        "ports": ports,
        "echo": echo,
        "run": run,
        "duration": duration,
        "wait": wait,
        "idle": idle,
        "linger": linger,
        "buffer": buffer,
        "stamps": stamps,
        "sent": None if sent is None else os.fspath(sent),
        "timeline": None if timeline is None else os.fspath(timeline),
        "timeline_ms": timeline_ms,
        "per_flow": per_flow,
        "netns": netns,
        "cpu": cpu,
    }
    return cast(SinkReport, _run(probe_sink, config, control, progress))


def write_report(path: str | os.PathLike[str], report: SendReport | SinkReport) -> None:
    """Write a report to a file that is there whole or not at all: a sink may be waiting for it."""
    target = Path(path)
    with tempfile.NamedTemporaryFile("w", dir=target.parent, delete=False) as file:
        json.dump(report, file)
        file.write("\n")
    Path(file.name).chmod(0o644)
    Path(file.name).rename(target)


class TimelinePacket(NamedTuple):
    """One arrival of a timeline."""

    flow: int
    arrival: Literal["in order", "reordered", "duplicate", "unclassified"]
    seq: int
    sent_ns: int
    received_ns: int


_ARRIVALS: tuple[Literal["in order", "reordered", "duplicate", "unclassified"], ...] = (
    "in order",
    "reordered",
    "duplicate",
    "unclassified",
)
_RECORD = struct.Struct("<IIQQQ")


def read_timeline(path: str | os.PathLike[str]) -> Iterator[TimelinePacket]:
    """Read a timeline of packets, binary or CSV, in the order of reading."""
    source = Path(path)
    if source.suffix == ".csv":
        with source.open(newline="") as file:
            for row in csv.DictReader(file):
                yield TimelinePacket(
                    int(row["flow"]),
                    _ARRIVALS[int(row["class"])],
                    int(row["seq"]),
                    int(row["sent_ns"]),
                    int(row["received_ns"]),
                )
        return
    for flow, kind, seq, sent, received in _RECORD.iter_unpack(source.read_bytes()):
        yield TimelinePacket(flow, _ARRIVALS[kind], seq, sent, received)
