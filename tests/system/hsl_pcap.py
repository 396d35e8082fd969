"""The independent witness of the order tests: tcpdump, its files, and what they prove.

The probe counts what its own sink saw. Here nothing of ours is believed but what was *sent*: the
number of packets per flow for UDP, the list of packets that left h1 for TCP. tcpdump at the far
side says what came, and in which order; a verdict counts the differences.
"""

import re
import signal
import struct
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from flowferry.testbed.commands import Commands

Numbers = NDArray[np.uint64]
Octets = NDArray[np.uint8]

#: Ethernet, IPv4, UDP and the probe's compact header: the smallest frame a probe sends.
PROBE_SNAP = 58
#: Ethernet, IPv4, TCP with time stamps.
TCP_SNAP = 66
COMPACT_DATA = 0xF1C0


def until(
    condition: Callable[[], bool], what: str, *, seconds: float = 30.0, poll: float = 0.002
) -> None:
    """Poll until `condition()` holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(poll)


@dataclass(frozen=True)
class Counts:
    """tcpdump's own figures."""

    captured: int
    received: int
    dropped: int

    @property
    def accounted(self) -> int:
        """In the file, or never to be there."""
        return self.captured + self.dropped


def _counts(said: str) -> Counts:
    """The three figures of tcpdump, on one line (SIGUSR1) or on three (at its end)."""
    found = [int(number) for number in re.findall(r"(\d+) packets? ", said)]
    return Counts(*found[:3])  # a fourth is of the device


class Tcpdump:
    """tcpdump on a device, writing to a file; a context manager.

    Leaving the block waits until everything that the kernel had taken by then is in the file, so
    what is to be judged must have come before; `counts` is valid then. What comes for ever, as
    heartbeats do, may go on. The expression, which the kernel applies, has to say the direction:
    what `-Q` leaves out would count as received.
    """

    def __init__(
        self,
        bed: Commands,
        role: str,
        dev: str,
        path: Path,
        expression: str = "",
        *,
        snap: int = PROBE_SNAP,
        buffer_kib: int = 128 << 10,
    ) -> None:
        self.path = path
        self.counts = Counts(0, 0, 0)
        self._child: subprocess.Popen[Any] = bed.popen(
            role,
            [
                *("tcpdump", "-i", dev, "-n", "-Z", "root", "-s", str(snap)),
                *("-B", str(buffer_kib), "--time-stamp-precision=nano", "-w", str(path)),
                *expression.split(),
            ],
            stderr=subprocess.PIPE,
            text=True,
        )
        self._line("listening on")

    def _line(self, wanted: str) -> str:
        assert self._child.stderr is not None
        for line in self._child.stderr:
            if wanted in line:
                return str(line)
        raise AssertionError(f"tcpdump ended with {self._child.wait()} before it said {wanted!r}")

    def look(self) -> Counts:
        """The figures so far."""
        self._child.send_signal(signal.SIGUSR1)
        return _counts(self._line(" captured, "))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            # The kernel hands over a block when it is full or old, and counts drops as received.
            taken = self.look().received
            what = f"{taken} packets in {self.path}"
            until(lambda: self.look().accounted >= taken, what, poll=0.1)
        self._child.send_signal(signal.SIGINT)
        _, said = self._child.communicate()
        if error is None:
            self.counts = _counts(said)

    def records(self) -> "Records":
        """What was captured. Fails unless tcpdump is sure that it lost nothing."""
        assert self.counts.dropped == 0, f"tcpdump itself lost packets: {self.counts}"
        found = read(self.path)
        assert len(found) == self.counts.captured, self.counts
        return found


@dataclass(frozen=True)
class Records:
    """A capture: one row of octets per frame, zero behind its end, and the frames' true lengths."""

    rows: Octets
    lengths: NDArray[np.uint32]

    def __len__(self) -> int:
        return len(self.lengths)

    def only(self, chosen: NDArray[np.bool_]) -> "Records":
        """Those frames."""
        return Records(self.rows[chosen], self.lengths[chosen])

    def number(self, at: int, width: int) -> Numbers:
        """The big-endian number of `width` octets at `at`, in every frame."""
        value = np.zeros(len(self.rows), np.uint64)
        for column in range(at, at + width):
            value = (value << np.uint64(8)) | self.rows[:, column].astype(np.uint64)
        return value


def read(path: Path) -> Records:
    """Read a pcap file. Fast when all frames were cut to one length, right in any case."""
    data = np.fromfile(path, np.uint8)
    magic, *_, snap, _ = struct.unpack("<IHHiIII", data[:24].tobytes())
    assert magic in (0xA1B2C3D4, 0xA1B23C4D), f"{path} is no pcap file of this machine"
    body = data[24:]
    if not len(body):
        return Records(np.zeros((0, snap), np.uint8), np.zeros(0, np.uint32))
    stride = 16 + int.from_bytes(body[8:12].tobytes(), "little")
    if len(body) % stride == 0:
        table = body.reshape(-1, stride)
        heads = table[:, :16].copy().view("<u4")
        if bool((heads[:, 2] == stride - 16).all()):
            return Records(table[:, 16:], heads[:, 3].copy())
    return _walk(body)


def _walk(body: Octets) -> Records:
    raw = body.tobytes()
    at, starts, kept, lengths = 0, [], [], []
    while at < len(raw):
        caught, length = struct.unpack_from("<II", raw, at + 8)
        starts.append(at + 16)
        kept.append(caught)
        lengths.append(length)
        at += 16 + caught
    rows = np.zeros((len(starts), max(kept)), np.uint8)
    for row, start, count in zip(rows, starts, kept, strict=True):
        row[:count] = body[start : start + count]
    return Records(rows, np.array(lengths, np.uint32))


@dataclass(frozen=True)
class Verdict:
    """What came, against what was sent. All zero but `packets`: clean."""

    packets: int
    lost: int
    doubled: int
    reordered: int
    #: Came, but was never sent.
    unknown: int

    @property
    def clean(self) -> bool:
        """Each packet once, in order, and nothing else."""
        return not (self.lost or self.doubled or self.reordered or self.unknown)


def judge(flows: Numbers, numbers: Numbers, sent: Sequence[int]) -> Verdict:
    """Compare arrivals (flow and number of each) with the packets 0 … sent[f]-1 of each flow f.

    A packet is reordered when one with a higher number of its flow came before it; copies after
    the first are doubled and nothing else.
    """
    counts = np.array(sent, np.uint64)
    known = flows < len(counts)
    known[known] = numbers[known] < counts[flows[known].astype(np.int64)]
    places = (flows[known] << np.uint64(40)) | numbers[known]
    _, first = np.unique(places, return_index=True)
    arrivals = places[np.sort(first)]
    arrivals = arrivals[np.argsort(arrivals >> np.uint64(40), kind="stable")]
    late = arrivals < np.maximum.accumulate(arrivals)
    return Verdict(
        packets=len(flows),
        lost=int(counts.sum()) - len(first),
        doubled=len(places) - len(first),
        reordered=int(late.sum()),
        unknown=int((~known).sum()),
    )


def judge_probe(records: Records, run: int, sent: Sequence[int]) -> Verdict:
    """Judge the data packets of a probe run over IPv4 (untagged, compact headers)."""
    data = records.only(
        (records.number(42, 2) == COMPACT_DATA) & (records.number(44, 2) == run & 0xFFFF)
    )
    return judge(data.number(46, 3), data.number(49, 4), sent)


def tcp_packets(records: Records, port: int, *, to: bool) -> Numbers:
    """Identity of each packet to (or from) a TCP port, in order: stream numbers, IP id, length.

    Of a stream one way only the one or the other number grows, the IP id comes round soon.
    """
    tcp = records.only(
        (records.number(12, 2) == 0x0800)
        & (records.number(23, 1) == 6)
        & (records.number(36 if to else 34, 2) == port)
    )
    return (
        ((tcp.number(38, 4) + tcp.number(42, 4)) << np.uint64(32))
        | (tcp.number(18, 2) << np.uint64(16))
        | tcp.number(16, 2)
    )


def judge_copies(left: Numbers, came: Numbers) -> Verdict:
    """Judge the packets that came against the list of those that left, by identity."""
    identities, numbers = np.unique(left, return_index=True)
    assert len(identities) == len(left), "packets that left are not told apart by their headers"
    at = np.minimum(np.searchsorted(identities, came), len(identities) - 1)
    found = identities[at] == came
    order = np.where(found, numbers[at], len(left)).astype(np.uint64)
    return judge(np.zeros(len(came), np.uint64), order, [len(left)])
