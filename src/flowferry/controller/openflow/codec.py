"""The OpenFlow 1.3 messages that we send and understand (specification 1.3.5, §7).

Pure: bytes in, dataclasses out, and the other way round. Written by hand, since the few messages
are less code than a dependency's import (docs/decisions/0023). What comes from a switch is checked
for its lengths before it is read; a message that is malformed raises `OpenFlowError`, and one that
we have no use for is an `Other`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from flowferry.controller.openflow import oxm
from flowferry.controller.openflow.oxm import Oxm

VERSION = 0x04
HEADER = struct.Struct("!BBHI")
#: A message's length field has 16 bits.
LONGEST = 0xFFFF

HELLO, ERROR, ECHO_REQUEST, ECHO_REPLY, EXPERIMENTER = 0, 1, 2, 3, 4
FEATURES_REQUEST, FEATURES_REPLY, SET_CONFIG = 5, 6, 9
PACKET_IN, FLOW_REMOVED, PORT_STATUS, PACKET_OUT, FLOW_MOD = 10, 11, 12, 13, 14
MULTIPART_REQUEST, MULTIPART_REPLY, BARRIER_REQUEST, BARRIER_REPLY = 18, 19, 20, 21
ROLE_REQUEST, ROLE_REPLY, SET_ASYNC = 24, 25, 28

PORT_ANY, PORT_CONTROLLER, GROUP_ANY, NO_BUFFER = 0xFFFFFFFF, 0xFFFFFFFD, 0xFFFFFFFF, 0xFFFFFFFF
ALL_TABLES = 0xFF
ADD, DELETE_STRICT = 0, 4
ONF = 0x4F4E4600
BUNDLE_CONTROL, BUNDLE_ADD = 2300, 2301
BUNDLE_OPEN, BUNDLE_OPENED, BUNDLE_COMMIT, BUNDLE_COMMITTED, BUNDLE_DISCARD = 0, 1, 4, 5, 6
#: All or nothing, and in the order of sending.
BUNDLE_FLAGS = 0b11
FLOW_STATS, PORT_DESCRIPTION = 1, 13
MORE = 1


class OpenFlowError(Exception):
    """Bytes that are no OpenFlow message of version 1.3."""


# -- entries -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Output:
    """Send by a port; to the controller with at most `length` bytes."""

    port: int
    length: int = 0


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry: outputs, or a further table, or neither (drop)."""

    table: int
    priority: int
    match: Oxm
    cookie: int
    outputs: tuple[Output, ...] = ()
    goto: int | None = None

    @property
    def key(self) -> tuple[int, int, Oxm]:
        """What makes it the same entry to a switch."""
        return (self.table, self.priority, self.match)


@dataclass(frozen=True, slots=True)
class Change:
    """Put an entry in, in place of one with the same key, or take it out."""

    entry: Entry
    remove: bool = False


def _instructions(entry: Entry) -> bytes:
    actions = b"".join(_output(each) for each in entry.outputs)
    data = b""
    if actions:
        data += struct.pack("!HH4x", 4, 8 + len(actions)) + actions
    if entry.goto is not None:
        data += struct.pack("!HHB3x", 1, 8, entry.goto)
    return data


def _output(output: Output) -> bytes:
    return struct.pack("!HHIH6x", 0, 16, output.port, output.length)


# -- messages we send --------------------------------------------------------------------------


def message(kind: int, xid: int, body: bytes = b"") -> bytes:
    """A message. Raises `OpenFlowError` when it would be longer than OpenFlow allows."""
    size = HEADER.size + len(body)
    if size > LONGEST:
        raise OpenFlowError(f"a message of {size} bytes; OpenFlow allows {LONGEST}")
    return HEADER.pack(VERSION, kind, size, xid) + body


def hello(xid: int) -> bytes:
    """Version 1.3 and nothing else."""
    return message(HELLO, xid, struct.pack("!HHI", 1, 8, 1 << VERSION))


def set_config(xid: int) -> bytes:
    """Fragments as other packets but without ports, packet-ins whole."""
    return message(SET_CONFIG, xid, struct.pack("!HH", 0, 0xFFFF))


def flow_mod(xid: int, change: Change) -> bytes:
    """Add, or delete strictly: by table, priority, match and our own cookie."""
    entry = change.entry
    command = DELETE_STRICT if change.remove else ADD
    cookie_mask = 0xFFFFFFFFFFFFFFFF if change.remove else 0
    body = struct.pack(
        "!QQBBHHHIIIH2x", entry.cookie, cookie_mask, entry.table, command, 0, 0, entry.priority,
        NO_BUFFER, PORT_ANY, GROUP_ANY, 0,
    )  # fmt: skip
    body += entry.match.encode()
    return message(FLOW_MOD, xid, body if change.remove else body + _instructions(entry))


def packet_out(xid: int, port: int, frame: bytes) -> bytes:
    """Send a frame by a port."""
    actions = _output(Output(port))
    head = struct.pack("!IIH6x", NO_BUFFER, PORT_CONTROLLER, len(actions))
    return message(PACKET_OUT, xid, head + actions + frame)


def flow_stats(xid: int, cookie: int, mask: int) -> bytes:
    """Ask for all entries whose cookie equals `cookie` in the bits of `mask`."""
    body = struct.pack("!HH4x", FLOW_STATS, 0)
    body += struct.pack("!B3xII4xQQ", ALL_TABLES, PORT_ANY, GROUP_ANY, cookie, mask)
    return message(MULTIPART_REQUEST, xid, body + Oxm().encode())


def bundle_control(xid: int, bundle: int, kind: int) -> bytes:
    """Open, commit or discard a bundle (ONF extension 230, as Open vSwitch has it for 1.3)."""
    body = struct.pack("!IIIHH", ONF, BUNDLE_CONTROL, bundle, kind, BUNDLE_FLAGS)
    return message(EXPERIMENTER, xid, body)


def bundle_add(xid: int, bundle: int, inner: bytes) -> bytes:
    """Put a message into a bundle; it has the same xid."""
    body = struct.pack("!IIIHH", ONF, BUNDLE_ADD, bundle, 0, BUNDLE_FLAGS)
    return message(EXPERIMENTER, xid, body + inner)


# -- messages we understand --------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Received:
    """Any message: its transaction id."""

    xid: int


@dataclass(frozen=True, slots=True)
class Hello(Received):
    """The peer's highest version, and all of them where it says so."""

    version: int
    #: Bit v for version v; 0 when the peer sent no bitmap.
    bitmap: int

    def speaks(self, version: int) -> bool:
        """Whether `version` can be negotiated (§6.3.1)."""
        return bool(self.bitmap >> version & 1) if self.bitmap else self.version >= version


@dataclass(frozen=True, slots=True)
class Error(Received):
    """A request that the switch refused."""

    kind: int
    code: int
    data: bytes

    def __str__(self) -> str:
        """In words, where we know them."""
        name = _ERRORS.get(self.kind, f"error type {self.kind}")
        code = _CODES.get((self.kind, self.code), f"code {self.code}")
        return f"{name}: {code}"


_ERRORS = {
    0: "hello failed", 1: "bad request", 2: "bad action", 3: "bad instruction", 4: "bad match",
    5: "flow-mod failed", 13: "table feature", 17: "bundle failed", 0xFFFF: "experimenter error",
}  # fmt: skip
_CODES = {
    (1, 3): "unknown experimenter", (1, 5): "not permitted", (1, 6): "bad length",
    (2, 4): "bad output port", (5, 1): "the table is full", (5, 2): "no such table",
    (5, 3): "entries overlap", (5, 4): "not permitted", (5, 0): "unknown",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Echo(Received):
    """An echo request (to be answered) or its reply."""

    request: bool
    data: bytes


@dataclass(frozen=True, slots=True)
class Features(Received):
    """Who the switch is."""

    dpid: int
    tables: int
    auxiliary: int


@dataclass(frozen=True, slots=True)
class Barrier(Received):
    """All before it was processed (not: is in force, docs/controller.md)."""


@dataclass(frozen=True, slots=True)
class PacketIn(Received):
    """A frame sent to the controller."""

    port: int
    cookie: int
    table: int
    #: Bytes of the frame at the switch; `frame` may have fewer.
    length: int
    frame: bytes


@dataclass(frozen=True, slots=True)
class BundleReply(Received):
    """A step of a bundle was taken."""

    bundle: int
    kind: int


@dataclass(frozen=True, slots=True)
class EntryStats:
    """An entry as the switch has it; `None` stands for what we never write."""

    entry: Entry | None
    cookie: int
    table: int
    priority: int
    packets: int
    bytes: int


@dataclass(frozen=True, slots=True)
class FlowStats(Received):
    """Part of the answer to `flow_stats`."""

    entries: tuple[EntryStats, ...]
    more: bool


@dataclass(frozen=True, slots=True)
class Other(Received):
    """A message that nobody here waits for."""

    kind: int


def frame_length(head: bytes) -> int:
    """Length of the message that begins with these 8 bytes. Raises `OpenFlowError`."""
    _, _, size, _ = HEADER.unpack(head)
    if size < HEADER.size:
        raise OpenFlowError(f"a message that says it has {size} bytes")
    return int(size)


def decode(data: bytes) -> Received:
    """Read one whole message. Raises `OpenFlowError`."""
    if len(data) < HEADER.size:
        raise OpenFlowError(f"{len(data)} bytes are no message")
    version, kind, size, xid = HEADER.unpack_from(data)
    if size != len(data):
        raise OpenFlowError(f"a message that says it has {size} bytes and has {len(data)}")
    if kind == HELLO:
        return Hello(xid, version, _bitmap(data[8:]))
    if version != VERSION:
        raise OpenFlowError(f"version {version:#x}; OpenFlow 1.3 ({VERSION:#x}) is spoken here")
    try:
        return _decode_body(kind, xid, data[8:])
    except (struct.error, ValueError) as error:
        raise OpenFlowError(f"malformed message of type {kind}: {error}") from None


def _bitmap(elements: bytes) -> int:
    while len(elements) >= 8:
        kind, size = struct.unpack_from("!HH", elements)
        if kind == 1 and size >= 8:
            return int(struct.unpack_from("!I", elements, 4)[0])
        if size < 4:
            break
        elements = elements[size + -size % 8 :]
    return 0


def _decode_body(kind: int, xid: int, body: bytes) -> Received:
    match kind:
        case 1:
            reason, code = struct.unpack_from("!HH", body)
            return Error(xid, reason, code, body[4:])
        case 2 | 3:
            return Echo(xid, kind == ECHO_REQUEST, body)
        case 6:
            dpid, _, tables, auxiliary = struct.unpack_from("!QIBB", body)
            return Features(xid, dpid, tables, auxiliary)
        case 10:
            return _packet_in(xid, body)
        case 19:
            return _multipart(xid, body)
        case 21:
            return Barrier(xid)
        case 4:
            experimenter, what = struct.unpack_from("!II", body)
            if (experimenter, what) == (ONF, BUNDLE_CONTROL):
                bundle, step = struct.unpack_from("!IH", body, 8)
                return BundleReply(xid, bundle, step)
    return Other(xid, kind)


def _packet_in(xid: int, body: bytes) -> Received:
    _, length, _, table, cookie = struct.unpack_from("!IHBBQ", body)
    # Open vSwitch adds fields of its own; only the port is of interest.
    size = struct.unpack_from("!HH", body, 16)[1]
    end = 16 + size + -size % 8
    port, at = None, 20
    while at + 4 <= 16 + size:
        group, head, width = struct.unpack_from("!HBB", body, at)
        if group == oxm.BASIC and head >> 1 == oxm.IN_PORT and width == 4:
            port = struct.unpack_from("!I", body, at + 4)[0]
        at += 4 + width
    if port is None or end + 2 > len(body):
        raise ValueError("a packet-in without its port or frame")
    return PacketIn(xid, port, cookie, table, length, body[end + 2 :])


def _multipart(xid: int, body: bytes) -> Received:
    kind, flags = struct.unpack_from("!HH", body)
    if kind != FLOW_STATS:
        return Other(xid, MULTIPART_REPLY)
    return FlowStats(xid, tuple(_entries(body[8:])), bool(flags & MORE))


_STATS = struct.Struct("!HBxIIHHHH4xQQQ")


def _entries(data: bytes) -> Iterator[EntryStats]:
    while data:
        size, table, _, _, priority, _, _, _, cookie, packets, octets = _STATS.unpack_from(data)
        if not _STATS.size <= size <= len(data):
            raise ValueError(f"an entry of {size} bytes in {len(data)}")
        rest = data[_STATS.size : size]
        try:
            found, used = oxm.decode(rest)
            outputs, goto = _read_instructions(rest[used:])
            entry = Entry(table, priority, found, cookie, outputs, goto)
        except oxm.UnknownFieldError:
            entry = None
        yield EntryStats(entry, cookie, table, priority, packets, octets)
        data = data[size:]


def _read_instructions(data: bytes) -> tuple[tuple[Output, ...], int | None]:
    outputs: list[Output] = []
    goto = None
    for kind, body in _sized(data, "instruction"):
        if kind == 1:
            goto = body[0]
        elif kind == 4:
            for action, content in _sized(body[4:], "action"):
                if action != 0:
                    raise oxm.UnknownFieldError(f"action {action} is not ours")
                outputs.append(Output(*struct.unpack_from("!IH", content)))
        else:
            raise oxm.UnknownFieldError(f"instruction {kind} is not ours")
    return tuple(outputs), goto


def _sized(data: bytes, what: str) -> Iterator[tuple[int, bytes]]:
    """Type and contents of elements that begin with a type and a length of 16 bits."""
    while data:
        kind, size = struct.unpack_from("!HH", data)
        if not 8 <= size <= len(data):
            raise ValueError(f"an {what} of {size} bytes in {len(data)}")
        yield kind, data[4:size]
        data = data[size:]
