"""The values of control messages: enums by number, dataclasses for fields, and the message."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from ipaddress import IPv4Address, IPv6Address
from typing import Generic, TypeVar

from flowferry._native import WireUnsendableError as UnsendableError

ETHERTYPE = 0x821C
"""EtherType of control frames (SHarP §3.4)."""
CONTROLLER = 0
"""Instance id of the controller."""
DEFAULT_MTU = 1500
"""Bytes after the EtherType that any Ethernet carries."""

Address = IPv4Address | IPv6Address
T = TypeVar("T")


class Command(IntEnum):
    """What a control frame asks or reports; docs/wire.md says which fields each needs."""

    PREPARE = 0x01
    START_HO = 0x02
    FREEZE = 0x03
    MARKER = 0x04
    RELEASE = 0x05
    COMMIT = 0x06
    ABORT = 0x07
    QUERY = 0x08
    ACK = 0x20
    NACK = 0x21
    SEEN = 0x22
    FENCED = 0x23
    IMPORTED = 0x24
    RELEASED = 0x25
    ABORTED = 0x26
    STATUS = 0x27
    DRAIN = 0x40
    FLUSH = 0x41
    TEST = 0x42


class Flags(IntFlag):
    """Bits that colour a command."""

    NONE = 0
    RETRY = 0x0001
    """The sender repeats a request that was not answered, under a new sequence number."""
    BOTH_SIDES = 0x0002
    """The same message comes on both sides; answer when both have arrived (SHarP §3.7)."""
    DRAIN_UNPROVEN = 0x0004
    """A quiet time, not a mark, ended the drain."""
    UNFENCED = 0x0008
    """The settling time, not a marker, ended the fence."""
    STATE_LOST = 0x0010
    """Flows were released without the state that belongs to them."""
    TURNED = 0x0020
    """Switches have turned: giving up means to hand the flows back."""


class Side(IntEnum):
    """Which of an instance's two interfaces."""

    UPSTREAM = 1
    DOWNSTREAM = 2


class Counter(IntEnum):
    """A figure in a report."""

    FLOWS = 1
    CAPTURED_PACKETS = 2
    CAPTURED_BYTES_PEAK = 3
    STRAY_PACKETS = 4
    RELEASED_PACKETS = 5
    LOST_PACKETS = 6
    DISCARDED_PACKETS = 7
    OUTSTANDING_PACKETS = 8
    BUFFER_BYTES = 9
    BUFFER_LIMIT_BYTES = 10
    REJECTED_FRAMES = 11
    MARKERS = 12
    FENCE_US = 13


class Reason(IntEnum):
    """Why something was not done."""

    OTHER = 0
    UNSUPPORTED = 1
    UNKNOWN_HANDOVER = 2
    WRONG_STATE = 3
    BUFFER_PRESSURE = 4
    CAPTURE_FAILED = 5
    EXPORT_FAILED = 6
    IMPORT_FAILED = 7
    PEER_UNREACHABLE = 8
    DEADLINE_PASSED = 9
    WRONG_EPOCH = 10
    REQUESTED = 11


@dataclass(frozen=True, slots=True)
class Masked(Generic[T]):
    """A value of which the bits set in ``mask`` are compared.

    ``value`` has no bit outside ``mask``, and ``mask`` is not empty: a field that is not compared
    is left out of the match.
    """

    value: T
    mask: T


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """A rule's match, read from the upstream side; ``Match()`` matches everything.

    Ports need protocol 6, 17 or 132, a protocol needs a family. VLANs are in OpenFlow's form: 13
    bits, 0x1000 for "tagged", the rest the id; value 0 with mask 0x1fff is "untagged".
    """

    family: int | None = None
    """4, 6, or ``None`` for everything, also what is not IP."""
    protocol: int | None = None
    source: Masked[IPv4Address] | Masked[IPv6Address] | None = None
    destination: Masked[IPv4Address] | Masked[IPv6Address] | None = None
    source_port: Masked[int] | None = None
    destination_port: Masked[int] | None = None
    outer_vlan: Masked[int] | None = None
    inner_vlan: Masked[int] | None = None


@dataclass(frozen=True, slots=True)
class Flow:
    """An IP flow in its canonical form: the smaller end stands first, whichever was given first."""

    protocol: int
    low: tuple[Address, int]
    high: tuple[Address, int]
    vlans: tuple[int, ...] = ()
    """At most two ids, outer first."""

    def __post_init__(self) -> None:
        """Put the smaller end first.

        Raises:
            UnsendableError: when one end is IPv4 and the other IPv6.
        """
        if self.low[0].version != self.high[0].version:
            raise UnsendableError(f"{self.low[0]} and {self.high[0]} are of different IP versions")
        low, high = sorted((self.low, self.high), key=lambda end: (int(end[0]), end[1]))
        object.__setattr__(self, "low", low)
        object.__setattr__(self, "high", high)


@dataclass(frozen=True, slots=True)
class LinkFlow:
    """A flow without IP, keyed by its Ethernet addresses (6 bytes each), the smaller one first."""

    ethertype: int
    low: bytes
    high: bytes
    vlans: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Put the smaller address first."""
        low, high = sorted((self.low, self.high))
        object.__setattr__(self, "low", low)
        object.__setattr__(self, "high", high)


@dataclass(frozen=True, slots=True)
class Peer:
    """Where an instance's ordered stream listens."""

    instance: int
    address: Address
    port: int


@dataclass(frozen=True, slots=True)
class Part:
    """Place of a message among those that carry one list.

    ``list`` rises whenever the contents change, so that parts of two lists are never joined.
    """

    list: int
    part: int
    parts: int


@dataclass(frozen=True, slots=True)
class InReplyTo:
    """The request that a message answers."""

    command: Command
    sequence: int


@dataclass(frozen=True, slots=True)
class Report:
    """A reason for programs and a line for people (512 bytes of UTF-8 at most)."""

    reason: Reason
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A control message; a field that is ``None``, or an empty tuple by default, is absent."""

    command: Command
    to: int = CONTROLLER
    """Instance id of the addressee."""
    handover: int = 0
    """0 for none."""
    flags: Flags = Flags.NONE
    sender: int = CONTROLLER
    """Set by a :class:`Sealer`, like ``boot`` and ``sequence``."""
    boot: int = 0
    sequence: int = 0

    match: Match | None = None
    downstream_match: Match | None = None
    """The match on the downstream side where it is not the mirror (address translation)."""
    overriding: tuple[Match, ...] | None = None
    """Matches of higher rules, whose flows this handover leaves alone."""
    priority: int | None = None
    """The rule's priority r (SHarP §3.3)."""
    sources: tuple[int, ...] = ()
    destination: int | None = None
    peers: tuple[Peer, ...] = ()
    flows: tuple[Flow | LinkFlow, ...] | None = None
    side: Side | None = None
    """``None`` means both."""
    counts: Mapping[Counter, int] | None = None
    error: Report | None = None
    deadline_ms: int | None = None
    """Time from receipt in which the command must be done."""
    settling_ms: int | None = None
    """Time after which agents finish by themselves."""
    strategy: str | None = None
    epoch: int | None = None
    """Run of the addressed or reporting agent."""
    part: Part | None = None
    in_reply_to: InReplyTo | None = None
    round: int | None = None
    """Number of a marker, flush, drain or test round."""
    cpu: int | None = None
    name: str | None = None
    """Name of the reporting instance."""
    step: str | None = None
    """Where the handover is at the reporting agent, in a word (docs/hsl.md)."""
