"""Reading the record a forwarder keeps of every frame it handled."""

from __future__ import annotations

import os
import struct
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

_RECORD = struct.Struct("<QQIIIBBH")
_KINDS: tuple[Literal["other", "data", "reply", "control"], ...] = (
    "other",
    "data",
    "reply",
    "control",
)


class SeenFrame(NamedTuple):
    """One frame, or one probe packet of a super-frame."""

    at_ns: int
    """When it came in, CLOCK_MONOTONIC."""
    side: Literal["a", "b"]
    """Where it came in."""
    kind: Literal["other", "data", "reply", "control"]
    """Probe data, a reply, the probe's greeting or END, or anything else."""
    run: int
    """Run of a probe packet (its low 16 bits if the packet is compact)."""
    flow: int
    """Flow of a probe packet."""
    seq: int
    """Sequence number of a probe packet (low 32 bits if compact); for other frames a digest."""
    length: int
    """Length of the frame in bytes, VLAN tags included."""


def read_seen(path: str | os.PathLike[str]) -> Iterator[SeenFrame]:
    """Read the records; each side's are in order of arrival."""
    for at, seq, flow, run, length, side, kind, _ in _RECORD.iter_unpack(Path(path).read_bytes()):
        yield SeenFrame(at, "b" if side else "a", _KINDS[kind], run, flow, seq, length)


def count_probe_packets(path: str | os.PathLike[str]) -> Counter[tuple[str, int, int]]:
    """How often each (side, flow, sequence number) of probe data and replies was seen."""
    frames = (frame for frame in read_seen(path) if frame.kind in ("data", "reply"))
    return Counter((frame.side, frame.flow, frame.seq) for frame in frames)
