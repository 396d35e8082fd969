"""Rust and Python agree on the golden frames, and errors read well from Python."""

from __future__ import annotations

import doctest
import re
from collections.abc import Callable
from dataclasses import replace
from enum import IntEnum
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowferry import _native, wire
from flowferry.wire import (
    Command,
    Counter,
    Flags,
    Flow,
    InReplyTo,
    KeyRing,
    LinkFlow,
    Masked,
    Match,
    Message,
    Opener,
    Part,
    Peer,
    Reason,
    Report,
    Sealer,
    Side,
)

GOLDEN = Path(__file__).parents[2] / "crates/wire/tests/golden"
NAMES = sorted(path.stem for path in GOLDEN.glob("*.hex"))
SECRET = bytes(range(32))
KEY_ID = 7
BOOT = 1_700_000_000_000
HANDOVER = 0x1122334455667788
CONTROLLER_MAC = bytes.fromhex("02ff00000000")


def mac(instance: int) -> bytes:
    return bytes([2, 0, 0, 0, 0, instance]) if instance else CONTROLLER_MAC


def golden(name: str) -> bytes:
    lines = (GOLDEN / f"{name}.hex").read_text().splitlines()
    return bytes.fromhex("".join(line.split("#")[0] for line in lines))


def v6(last: int) -> IPv6Address:
    return IPv6Address(f"2001:db8::{last:x}")


UDP = Match(
    family=4,
    protocol=17,
    source=Masked(IPv4Address("10.0.0.1"), IPv4Address("255.255.255.255")),
    source_port=Masked(24242, 0xFFFF),
)
NET = Masked(v6(0), IPv6Address("ffff:ffff:ffff:ffff::"))
FULL = Match(
    family=6,
    protocol=6,
    source=NET,
    destination=NET,
    source_port=Masked(0x8000, 0x8000),
    destination_port=Masked(443, 0xFFFF),
    outer_vlan=Masked(0x1000 | 100, 0x1FFF),
    inner_vlan=Masked(0, 0x1FFF),
)
HOST1, HOST2 = IPv4Address("10.0.0.1"), IPv4Address("10.0.0.2")
FLOWS = (
    Flow(17, (HOST2, 53), (HOST1, 24242)),
    Flow(1, (HOST1, 0), (HOST2, 0), (100,)),
    Flow(6, (v6(2), 443), (v6(1), 50000), (100, 200)),
    LinkFlow(0x88CC, mac(2), mac(1), (100,)),
)


def down(command: Command, to: int, **fields: Any) -> Message:
    return replace(Message(command=command, to=to, handover=HANDOVER), **fields)


def up(command: Command, sender: int, **fields: Any) -> Message:
    return replace(Message(command=command, sender=sender, handover=HANDOVER), **fields)


def local(command: Command, own: int, **fields: Any) -> Message:
    return down(command, own, sender=own, **fields)


# What crates/wire/tests/wire/samples.rs builds, in the order of the sequence numbers.
MESSAGES = {
    "prepare": down(
        Command.PREPARE,
        2,
        match=UDP,
        overriding=(FULL,),
        priority=7,
        sources=(1, 3),
        destination=2,
        peers=(Peer(1, IPv4Address("192.0.2.1"), 7700), Peer(3, v6(3), 7700)),
        deadline_ms=500,
        settling_ms=15000,
        strategy="direct",
        epoch=4,
    ),
    "prepare_all": down(
        Command.PREPARE,
        1,
        flags=Flags.RETRY,
        match=Match(),
        downstream_match=Match(family=4),
        priority=0,
        sources=(1,),
        destination=2,
        deadline_ms=500,
        strategy="direct",
    ),
    "start_ho": down(
        Command.START_HO,
        2,
        flags=Flags.BOTH_SIDES,
        match=FULL,
        priority=3,
        sources=(1,),
        destination=2,
        flows=FLOWS,
    ),
    "freeze": down(Command.FREEZE, 1, deadline_ms=2000),
    "marker": down(Command.MARKER, 1, side=Side.UPSTREAM, round=1),
    "release": down(Command.RELEASE, 2, side=Side.DOWNSTREAM),
    "commit": down(Command.COMMIT, 1),
    "abort": down(Command.ABORT, 2, error=Report(Reason.REQUESTED, "aborted by the operator")),
    "query": Message(command=Command.QUERY, to=1),
    "ack": up(
        Command.ACK, 1, flows=FLOWS, part=Part(5, 0, 2), in_reply_to=InReplyTo(Command.PREPARE, 1)
    ),
    "nack": up(
        Command.NACK,
        2,
        error=Report(
            Reason.CAPTURE_FAILED,
            "no TAP on side upstream \N{EN DASH} load the tun module",
        ),
        in_reply_to=InReplyTo(Command.PREPARE, 0),
    ),
    "seen": up(Command.SEEN, 2, flows=FLOWS[:1], side=Side.UPSTREAM, round=1),
    "fenced": up(Command.FENCED, 1, flags=Flags.UNFENCED, side=Side.UPSTREAM, round=1),
    "imported": up(Command.IMPORTED, 2),
    "released": up(
        Command.RELEASED,
        2,
        flags=Flags.STATE_LOST | Flags.DRAIN_UNPROVEN,
        counts={
            Counter.FLOWS: 4,
            Counter.CAPTURED_PACKETS: 1000,
            Counter.CAPTURED_BYTES_PEAK: 1_500_000,
            Counter.STRAY_PACKETS: 32,
            Counter.RELEASED_PACKETS: 999,
            Counter.LOST_PACKETS: 1,
            Counter.MARKERS: 6,
            Counter.FENCE_US: 750,
        },
    ),
    "aborted": up(Command.ABORTED, 2, counts={Counter.LOST_PACKETS: 0}),
    "status": up(
        Command.STATUS,
        1,
        counts={
            Counter.DISCARDED_PACKETS: 2,
            Counter.OUTSTANDING_PACKETS: 3,
            Counter.BUFFER_BYTES: 4,
            Counter.BUFFER_LIMIT_BYTES: 2**64 - 1,
            Counter.REJECTED_FRAMES: 5,
        },
        epoch=4,
        name="nat-1",
        step="exported",
    ),
    "drain": local(Command.DRAIN, 1, round=1),
    "flush": local(Command.FLUSH, 2, round=9, cpu=1),
    "test": local(Command.TEST, 0, round=2),
    "abort_turned": down(
        Command.ABORT,
        1,
        flags=Flags.TURNED,
        error=Report(Reason.BUFFER_PRESSURE, "the buffer was half full"),
    ),
}
STAMPED = {
    name: replace(message, boot=BOOT, sequence=sequence)
    for sequence, (name, message) in enumerate(MESSAGES.items())
}


def sealed(message: Message, keys: KeyRing) -> bytes:
    """Seal as the sender that has come as far as the message's sequence number."""
    sealer = Sealer(keys, sender=message.sender, boot=message.boot)
    for _ in range(message.sequence + 1):
        frame, sent = sealer.seal(message, destination=mac(message.to), source=mac(message.sender))
    assert sent == message
    return frame


def query(to: int = 4) -> Message:
    return Message(command=Command.QUERY, to=to)


@pytest.fixture
def keys() -> KeyRing:
    return KeyRing(KEY_ID, SECRET)


def test_every_golden_frame_has_a_message() -> None:
    assert sorted(STAMPED) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_python_writes_the_golden_frame(name: str, keys: KeyRing) -> None:
    assert sealed(STAMPED[name], keys) == golden(name)


@pytest.mark.parametrize("name", NAMES)
def test_python_reads_the_golden_frame(name: str, keys: KeyRing) -> None:
    message = STAMPED[name]
    assert wire.decode(golden(name)) == message
    assert Opener(keys, own=message.to).open(golden(name)) == message


@pytest.mark.parametrize("name", NAMES)
def test_encode_differs_from_the_golden_frame_in_the_tag_only(name: str) -> None:
    message = STAMPED[name]
    frame = wire.encode(
        message, destination=mac(message.to), source=mac(message.sender), key_id=KEY_ID
    )
    assert frame == golden(name)[:-16] + bytes(16)


def test_python_and_rust_name_the_same_numbers() -> None:
    def names(enum: type[IntEnum]) -> dict[str, int]:
        return {member.name.lower(): member.value for member in enum}

    tables = _native.wire_tables()
    assert tables["command"] == names(Command)
    assert tables["counter"] == names(Counter)
    assert tables["reason"] == names(Reason)
    assert tables["side"] == names(Side)
    assert tables["flag"] == {
        str(flag.name).lower(): flag.value for flag in Flags if flag is not Flags.NONE
    }


def test_every_truncated_frame_is_malformed(keys: KeyRing) -> None:
    frame = golden("start_ho")
    opener = Opener(keys, own=2)
    for length in range(len(frame)):
        with pytest.raises(wire.MalformedError, match="capture it whole"):
            wire.decode(frame[:length])
        with pytest.raises(wire.RejectedError) as caught:
            opener.open(frame[:length])
        assert caught.value.reason == "malformed"
    assert opener.rejected["malformed"] == len(frame)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_malformed(data: bytes) -> None:
    frame = golden("query")[:14] + data
    try:
        message = wire.decode(frame)
    except wire.MalformedError:
        return
    assert message.command in Command


def test_every_rejection_has_its_reason_and_its_counter(keys: KeyRing) -> None:
    keys.add(8, b"8" * 32)
    theirs = KeyRing(8, b"8" * 32)
    frame, _ = Sealer(theirs, sender=1, boot=5).seal(query(), destination=mac(4), source=mac(1))
    forged = frame[:-1] + bytes([frame[-1] ^ 1])
    old, _ = Sealer(theirs, sender=1, boot=4).seal(query(), destination=mac(4), source=mac(1))
    unknown, _ = Sealer(KeyRing(9, b"9" * 32), sender=1, boot=5).seal(
        query(), destination=mac(4), source=mac(1)
    )
    opener = Opener(keys, own=4)

    def reason(data: bytes) -> str:
        with pytest.raises(wire.RejectedError) as caught:
            opener.open(data)
        return caught.value.reason

    assert opener.open(frame).sender == 1
    assert reason(frame) == "replayed"
    assert reason(old) == "stale"
    assert reason(forged) == "bad_tag"
    assert reason(unknown) == "unknown_key"
    assert reason(golden("marker")) == "wrong_addressee"
    assert reason(frame[:20]) == "malformed"
    keys.retire(8)
    assert reason(frame) == "retired_key"
    assert opener.accepted == 1
    assert opener.rejected == dict.fromkeys(opener.rejected, 1)


def test_one_ring_serves_both_directions_through_a_rotation(keys: KeyRing) -> None:
    sealer, opener = Sealer(keys, sender=0, boot=1), Opener(keys, own=4)
    keys.add(8, b"8" * 32)
    keys.activate(8)
    keys.retire(KEY_ID)
    frame, _ = sealer.seal(query(), destination=mac(4), source=mac(0))
    assert opener.open(frame).command is Command.QUERY
    assert (keys.active, keys.ids) == (8, [8])


def test_key_errors_say_what_to_do(keys: KeyRing) -> None:
    with pytest.raises(wire.KeyRingError, match="32 are needed"):
        KeyRing(1, b"short")
    with pytest.raises(wire.KeyRingError, match="activate another before"):
        keys.retire(KEY_ID)
    with pytest.raises(wire.KeyRingError, match="add it first"):
        keys.activate(9)
    with pytest.raises(wire.KeyRingError, match="never used"):
        keys.add(KEY_ID, SECRET)


def test_a_ring_does_not_print_its_secrets() -> None:
    assert repr(KeyRing(1, b"S" * 32)) == "<KeyRing active=1 ids=[1]>"


@pytest.mark.parametrize(
    ("message", "says"),
    [
        (Message(command=Command.MARKER, side=Side.UPSTREAM), "marker needs a round TLV"),
        (replace(query(), priority=70000), "TLV priority: .*out of range"),
        (replace(query(), to=-1), "header"),
        (replace(query(), flags=Flags(0x40)), "flag bits 0x0040"),
        (replace(query(), strategy=""), "TLV strategy: a name has 1 byte at least"),
        (replace(query(), match=Match(source_port=Masked(1, 1))), "name the protocol"),
        (replace(query(), match=Match(family=4, source=NET)), "4 bytes here, not 16"),
        (down(Command.QUERY, 4, match="udp"), "match: 'str' object has no attribute"),
        (replace(query(), flows=(LinkFlow(0x806, b"", b""),)), "6 bytes here, not 0"),
        (replace(query(), flows=(Flow(6, (HOST1, 1), (HOST2, 2), (1, 2, 3)),)), "two VLAN ids"),
        (replace(query(), error=Report(Reason.OTHER, "x" * 2000)), "512 bytes at most"),
    ],
)
def test_what_cannot_be_sent_says_why(message: Message, says: str) -> None:
    with pytest.raises(wire.UnsendableError, match=says):
        wire.encode(message, destination=mac(1), source=mac(0))


def test_wrong_addresses_are_refused(keys: KeyRing) -> None:
    with pytest.raises(wire.UnsendableError, match="6 bytes, not 5"):
        wire.encode(query(), destination=bytes(5), source=mac(0))
    with pytest.raises(wire.UnsendableError, match="different IP versions"):
        Flow(6, (HOST1, 1), (v6(1), 1))


def many_flows(count: int) -> tuple[Flow, ...]:
    return tuple(Flow(6, (HOST1, port), (HOST2, 443)) for port in range(count))


def test_a_long_list_is_split_sealed_opened_and_joined(keys: KeyRing) -> None:
    message = replace(query(), flows=many_flows(5000), overriding=(FULL, UDP), epoch=3)
    with pytest.raises(wire.UnsendableError, match="split the message"):
        wire.encode(message, destination=mac(4), source=mac(0))
    sealer, opener = Sealer(keys, sender=0, boot=1), Opener(keys, own=4)
    assembler = wire.Assembler()
    wholes = []
    parts = wire.split(message, list_number=1)
    for part in reversed(parts):
        frame, _ = sealer.seal(part, destination=mac(4), source=mac(0))
        assert len(frame) <= 1514
        wholes.append(assembler.add(opener.open(frame)))
    assert len(parts) == 51
    assert wholes[:-1] == [None] * 50
    whole = wholes[-1]
    assert whole is not None
    assert (whole.flows, whole.overriding, whole.epoch) == (
        message.flows,
        message.overriding,
        message.epoch,
    )


def test_contradicting_parts_are_refused() -> None:
    assembler = wire.Assembler()
    long, longer = (
        wire.split(replace(query(), handover=7, flows=many_flows(count)), list_number=1)
        for count in (200, 300)
    )
    assert assembler.add(long[0]) is None
    with pytest.raises(wire.PartError, match="number a changed list anew"):
        assembler.add(longer[1])
    assert assembler.pending == 1
    assembler.forget(7)
    assert assembler.pending == 0


def test_a_restarted_opener_resumes(keys: KeyRing) -> None:
    sealer, opener = Sealer(keys, sender=0, boot=1), Opener(keys, own=4)
    payload, _ = sealer.seal_payload(query())
    opener.open_payload(payload)
    again = Opener(keys, own=4)
    for position in opener.positions:
        again.resume(*position)
    with pytest.raises(wire.RejectedError, match="seen before"):
        again.open_payload(payload)


ends4 = st.tuples(st.ip_addresses(v=4), st.integers(0, 65535))
ends6 = st.tuples(st.ip_addresses(v=6), st.integers(0, 65535))


@given(st.one_of(st.tuples(ends4, ends4), st.tuples(ends6, ends6)), st.integers(0, 255))
def test_python_and_rust_order_the_ends_of_a_flow_alike(
    ends: tuple[tuple[IPv4Address, int], tuple[IPv4Address, int]], protocol: int
) -> None:
    a, b = ends
    flow = Flow(protocol, a, b)
    assert flow == Flow(protocol, b, a)
    message = replace(query(), flows=(flow,))
    read = wire.decode(wire.encode(message, destination=mac(4), source=mac(0)))
    assert read.flows == (flow,)


@pytest.mark.parametrize(
    "change", [lambda frame: frame + b"\xa5" * 46, lambda f: bytes(12) + f[12:]]
)
def test_padding_and_rewritten_addresses_are_tolerated(
    change: Callable[[bytes], bytes], keys: KeyRing
) -> None:
    assert Opener(keys, own=1).open(change(golden("marker"))) == STAMPED["marker"]


def test_the_example_in_the_documentation_works() -> None:
    results = doctest.testmod(wire)
    assert (results.failed, results.attempted > 0) == (0, True)


def test_the_document_lists_every_number() -> None:
    text = (Path(__file__).parents[2] / "docs/wire.md").read_text()
    tables = _native.wire_tables()
    for table, digits in (("command", 2), ("tlv", 4), ("flag", 4)):
        for name, number in tables[table].items():
            assert f"| 0x{number:0{digits}x} | `{name}` |" in text
    for table in ("counter", "reason"):
        for name, number in tables[table].items():
            assert re.search(rf"\b{number} `{name}`", text), name
