"""The Wireshark dissector reads every golden frame as the codec does, and flags broken ones.

Dissector and codec share no code: what tshark shows is compared field by field, in order, with what
`flowferry.wire` reads from the same bytes.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from xml.etree import ElementTree

import pytest

from flowferry.wire import Flow, LinkFlow, Masked, Match, Message, decode

pytestmark = pytest.mark.system

WIRE = Path(__file__).parents[2] / "crates/wire"
DISSECTOR = WIRE / "dissector/flowferry.lua"
NAMES = sorted(path.stem for path in (WIRE / "tests/golden").glob("*.hex"))
ETHERNET_LEN = 14

Fields = list[tuple[str, str]]


def golden(name: str) -> bytes:
    lines = (WIRE / f"tests/golden/{name}.hex").read_text().splitlines()
    return bytes.fromhex("".join(line.split("#")[0] for line in lines))


def pcap(frames: Sequence[bytes]) -> bytes:
    """Write a capture file: https://www.tcpdump.org/manpages/pcap-savefile.5.html."""
    out = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, 1)
    for frame in frames:
        out += struct.pack("<IIII", 0, 0, len(frame), len(frame)) + frame
    return out


def dissect(frames: Sequence[bytes], folder: Path) -> list[Fields]:
    """Give every field that the dissector shows for each frame, in order, as (name, value)."""
    tshark = shutil.which("tshark")
    if tshark is None:
        pytest.fail("tshark is not installed: run `apt-get install tshark`", pytrace=False)
    capture = folder / "golden.pcap"
    capture.write_bytes(pcap(frames))
    # -n: no name look-ups. A home of its own keeps a user's Wireshark profile out of the result.
    run = subprocess.run(
        [tshark, "-n", "-X", f"lua_script:{DISSECTOR}", "-r", capture, "-T", "pdml"],
        capture_output=True,
        text=True,
        timeout=120,
        env={"HOME": str(folder), "PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
        check=False,
    )
    # tshark goes on without a script that does not load.
    assert run.returncode == 0, run.stderr
    assert "Lua:" not in run.stderr, run.stderr
    packets = ElementTree.fromstring(run.stdout).findall("packet")
    assert len(packets) == len(frames)
    return [
        [
            (field.get("name", "").removeprefix("flowferry."), field.get("show", ""))
            for proto in packet.findall("proto[@name='flowferry']")
            for field in proto.iter("field")
        ]
        for packet in packets
    ]


def colons(data: bytes) -> str:
    return data.hex(":")


def masked_fields(
    name: str, masked: Masked[int] | Masked[IPv4Address] | Masked[IPv6Address] | None, form: str
) -> Fields:
    if masked is None:
        return []
    mask = f"0x{masked.mask:04x}" if isinstance(masked.mask, int) else str(masked.mask)
    return [(name, format(masked.value, form)), (f"{name}_mask", mask)]


def match_fields(match: Match) -> Fields:
    parts = (
        match.protocol,
        match.source,
        match.destination,
        match.source_port,
        match.destination_port,
        match.outer_vlan,
        match.inner_vlan,
    )
    present = sum(1 << bit for bit, part in enumerate(parts) if part is not None)
    out = [("match", ""), ("match.family", str(match.family or 0))]
    out += [("match.fields", f"0x{present:02x}")]
    if match.protocol is not None:
        out += [("match.protocol", str(match.protocol))]
    out += masked_fields(f"match.source_ip{match.family}", match.source, "s")
    out += masked_fields(f"match.destination_ip{match.family}", match.destination, "s")
    out += masked_fields("match.source_port", match.source_port, "d")
    out += masked_fields("match.destination_port", match.destination_port, "d")
    out += masked_fields("match.outer_vlan", match.outer_vlan, "#06x")
    out += masked_fields("match.inner_vlan", match.inner_vlan, "#06x")
    return out


def flow_fields(flow: Flow | LinkFlow) -> Fields:
    family = 2 if isinstance(flow, LinkFlow) else flow.low[0].version
    out = [("flow", ""), ("flow.family", str(family)), ("flow.vlans", str(len(flow.vlans)))]
    out += [("flow.protocol", "0" if isinstance(flow, LinkFlow) else str(flow.protocol))]
    out += [("flow.vlan", str(vlan)) for vlan in flow.vlans]
    if isinstance(flow, LinkFlow):
        out += [("flow.ethertype", f"0x{flow.ethertype:04x}")]
        return [*out, ("flow.low_mac", colons(flow.low)), ("flow.high_mac", colons(flow.high))]
    for end, (address, port) in (("low", flow.low), ("high", flow.high)):
        out += [(f"flow.{end}_ip{family}", str(address)), (f"flow.{end}_port", str(port))]
    return out


def tlv_fields(message: Message) -> list[tuple[int, Fields]]:
    """Give each TLV's type and the fields of its value, in the order of the golden files."""
    out: list[tuple[int, Fields]] = []

    def number(kind: int, name: str, value: int | None) -> None:
        if value is not None:
            out.append((kind, [(name, str(int(value)))]))

    if message.match is not None:
        out.append((0x0001, match_fields(message.match)))
    if message.downstream_match is not None:
        out.append((0x0002, match_fields(message.downstream_match)))
    if message.overriding is not None:
        out.append((0x0003, [f for match in message.overriding for f in match_fields(match)]))
    number(0x0004, "priority", message.priority)
    for source in message.sources:
        number(0x0005, "source", source)
    number(0x0006, "destination", message.destination)
    for peer in message.peers:
        address = (f"peer.ip{peer.address.version}", str(peer.address))
        fields = [("peer.instance", str(peer.instance)), address, ("peer.port", str(peer.port))]
        out.append((0x0007, fields))
    if message.flows is not None:
        out.append((0x0008, [f for flow in message.flows for f in flow_fields(flow)]))
    number(0x0009, "side", message.side)
    if message.counts is not None:
        counts = message.counts.items()
        out.append((0x000A, [(f"counts.{c.name.lower()}", str(value)) for c, value in counts]))
    if message.error is not None:
        reason = ("error.reason", str(int(message.error.reason)))
        out.append((0x000B, [reason, ("error.text", message.error.text)]))
    number(0x000C, "deadline_ms", message.deadline_ms)
    number(0x000D, "settling_ms", message.settling_ms)
    if message.strategy is not None:
        out.append((0x000E, [("strategy", message.strategy)]))
    number(0x000F, "epoch", message.epoch)
    if message.part is not None:
        part = message.part
        values = [("list", part.list), ("part", part.part), ("parts", part.parts)]
        out.append((0x0010, [(f"part.{name}", str(value)) for name, value in values]))
    if message.in_reply_to is not None:
        request = message.in_reply_to
        command = ("in_reply_to.command", f"0x{request.command:02x}")
        out.append((0x0011, [command, ("in_reply_to.sequence", str(request.sequence))]))
    number(0x0012, "round", message.round)
    number(0x0013, "cpu", message.cpu)
    if message.name is not None:
        out.append((0x8014, [("name", message.name)]))
    if message.step is not None:
        out.append((0x8015, [("step", message.step)]))
    return out


def expected(frame: bytes) -> Fields:
    """Everything the dissector should show, from the codec's reading of the same bytes."""
    message = decode(frame)
    flags = ("retry", "both_sides", "drain_unproven", "unfenced", "state_lost", "turned")
    payload = frame[ETHERNET_LEN:]
    header = [
        ("version", "1"),
        ("command", f"0x{message.command:02x}"),
        ("flags", f"0x{message.flags:04x}"),
        *((f"flags.{name}", str(message.flags >> bit & 1)) for bit, name in enumerate(flags)),
        ("key_id", "7"),
        ("tlv_len", str(len(payload) - 56)),
        ("handover", f"0x{message.handover:016x}"),
        ("to", str(message.to)),
        ("from", str(message.sender)),
        ("boot", str(message.boot)),
        ("sequence", str(message.sequence)),
        ("tag", colons(payload[-16:])),
    ]
    at = 40
    for kind, fields in tlv_fields(message):
        length = struct.unpack_from(">H", payload, at + 2)[0]
        at += 4 + length
        header += [("tlv", ""), ("tlv.type", f"0x{kind:04x}"), ("tlv.length", str(length))]
        header += fields
    assert at == len(payload) - 16
    return header


def notes(fields: Fields) -> list[str]:
    return [value for name, value in fields if name == "_ws.expert.message"]


def errors(fields: Fields) -> bool:
    return ("malformed", "") in fields


def test_every_field_of_every_golden_frame_is_shown(tmp_path: Path) -> None:
    frames = [golden(name) for name in NAMES]
    assert frames
    for name, frame, shown in zip(NAMES, frames, dissect(frames, tmp_path), strict=True):
        assert shown == expected(frame), name


def test_every_truncated_frame_is_flagged(tmp_path: Path) -> None:
    whole = golden("start_ho")
    frames = [whole[:length] for length in range(ETHERNET_LEN + 1, len(whole))]
    for frame, shown in zip(frames, dissect(frames, tmp_path), strict=True):
        assert errors(shown), f"cut to {len(frame)} bytes: {shown}"
        assert "are left" in notes(shown)[0]


def test_padding_is_shown_and_is_no_fault(tmp_path: Path) -> None:
    (shown,) = dissect([golden("query") + bytes(4)], tmp_path)
    assert ("padding", "00:00:00:00") in shown
    assert not errors(shown)


@pytest.mark.parametrize(
    ("at", "value", "note"),
    [
        (15, b"\x1f", "unknown command"),
        (16, b"\x40\x00", "unknown flags"),
        (54, b"\x00\x77", "mandatory TLV 0x0077 is unknown"),
        (56, b"\x00\x02", "TLV has 1 bytes too many"),
        (58, b"\x03", "side is neither 1 nor 2"),
    ],
)
def test_broken_frames_are_flagged(at: int, value: bytes, note: str, tmp_path: Path) -> None:
    frame = bytearray(golden("marker"))
    frame[at : at + len(value)] = value
    (shown,) = dissect([bytes(frame)], tmp_path)
    assert errors(shown)
    assert note in " ".join(notes(shown))


def test_what_may_be_skipped_is_marked_but_no_fault(tmp_path: Path) -> None:
    newer = bytearray(golden("marker"))
    newer[14] = 2
    optional = bytearray(golden("marker"))
    optional[54:56] = b"\x80\x77"
    for shown in dissect([bytes(newer), bytes(optional)], tmp_path):
        assert ("undecoded", "") in shown
        assert not errors(shown)
