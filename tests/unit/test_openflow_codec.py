"""OpenFlow messages: Open vSwitch's printer reads what we write; nothing crashes the reader."""

import struct
import subprocess
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowferry.controller.match import parse
from flowferry.controller.openflow import codec, oxm
from flowferry.controller.openflow.codec import Change, Entry, OpenFlowError, Output
from flowferry.controller.openflow.oxm import Oxm
from flowferry.wire import Masked, Match


def printed(message: bytes) -> str:
    """What Open vSwitch makes of a message."""
    argv = ["ovs-ofctl", "ofp-print", message.hex(), "2"]
    return subprocess.run(argv, capture_output=True, text=True, check=True, timeout=20).stdout


ENTRY = Entry(
    11,
    200,
    oxm.of_match(parse("udp,nw_src=10.0.0.0/8,tp_dst=24242,dl_vlan=5")),
    0xAB,
    (Output(12),),
)


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (codec.hello(1), ["OFPT_HELLO (OF1.3)", "version bitmap: 0x04"]),
        (codec.message(codec.FEATURES_REQUEST, 2), ["OFPT_FEATURES_REQUEST (OF1.3)"]),
        (
            codec.flow_mod(3, Change(ENTRY)),
            ["ADD table:11 priority=200,udp,dl_vlan=5,nw_src=10.0.0.0/8,tp_dst=24242",
             "cookie:0xab", "actions=output:12"],
        ),
        (
            codec.flow_mod(4, Change(ENTRY, remove=True)),
            ["DEL_STRICT table:11 priority=200", "cookie:0xab/0xffffffffffffffff"],
        ),
        (
            codec.flow_mod(5, Change(Entry(0, 7, oxm.of_port(3, ethertype=0x821C), 1, goto=12))),
            ["in_port=3,dl_type=0x821c", "actions=goto_table:12"],
        ),
        (
            codec.flow_mod(5, Change(Entry(9, 7, oxm.of_port(3, group_addressed=True), 1))),
            ["in_port=3,dl_dst=01:00:00:00:00:00/01:00:00:00:00:00", "actions=drop"],
        ),
        (
            codec.flow_mod(
                6, Change(Entry(9, 7, oxm.of_match(parse("tcp6,ipv6_src=fd00::/64,tp_src=80")), 1))
            ),
            ["tcp6,ipv6_src=fd00::/64,tp_src=80"],
        ),
        (codec.packet_out(7, 12, bytes(60)), ["in_port=CONTROLLER actions=output:12 data_len=60"]),
        (
            codec.flow_stats(8, 0xF10FE << 44, 0xFFFFF << 44),
            ["OFPST_FLOW request"],
        ),
        (codec.bundle_control(9, 5, codec.BUNDLE_OPEN),
         ["ONFT_BUNDLE_CONTROL", "OPEN_REQUEST", "atomic ordered"]),
        (
            codec.bundle_add(9, 5, codec.flow_mod(9, Change(ENTRY))),
            ["ONFT_BUNDLE_ADD_MESSAGE", "bundle_id=0x5", "ADD table:11"],
        ),
    ],
)  # fmt: skip
def test_open_vswitch_reads_what_we_write(message: bytes, said: list[str]) -> None:
    text = printed(message)
    for words in said:
        assert words in text


matches = st.builds(
    lambda protocol, source, bits, port: Match(
        family=4,
        protocol=protocol,
        source=Masked(
            IPv4Address(source & (mask := (2**32 - 1) ^ (2 ** (32 - bits) - 1))), IPv4Address(mask)
        ),
        destination_port=None if port is None else Masked(port, 0xFFFF),
    ),
    st.sampled_from([6, 17]),
    st.integers(0, 2**32 - 1),
    st.integers(1, 32),
    st.none() | st.integers(0, 65535),
)


@given(matches)
def test_a_match_reads_back(match: Match) -> None:
    encoded = oxm.of_match(match).encode()
    assert len(encoded) % 8 == 0
    assert oxm.decode(encoded + b"rest") == (oxm.of_match(match), len(encoded))


def stats_reply(entry: Entry, size: int | None = None) -> bytes:
    """A flow statistics reply with one entry, as a switch writes it."""
    added = codec.flow_mod(1, Change(entry))[8 + 40 :]
    length = 48 + len(added) if size is None else size
    head = struct.pack("!HBxIIHHHH4xQQQ", length, entry.table, 1, 2, entry.priority, 0, 0, 0,
                       entry.cookie, 10, 1000)  # fmt: skip
    return codec.message(19, 7, struct.pack("!HH4x", 1, 0) + head + added)


@given(matches, st.integers(0, 254), st.integers(0, 65535), st.none() | st.integers(0, 254))
def test_an_entry_reads_back(match: Match, table: int, priority: int, goto: int | None) -> None:
    entry = Entry(table, priority, oxm.of_match(match), 0xF10FE << 44, (Output(3), Output(4)), goto)
    reply = codec.decode(stats_reply(entry))
    assert isinstance(reply, codec.FlowStats)
    assert [each.entry for each in reply.entries] == [entry]


def test_an_entry_that_others_wrote_is_seen_and_not_understood() -> None:
    raw = bytearray(stats_reply(Entry(0, 1, Oxm({oxm.IN_PORT: (3, None)}), 5, (Output(1),))))
    at = raw.index(bytes.fromhex("80000004"))
    raw[at + 2] = 1 << 1  # a field we never write, of the same length
    reply = codec.decode(bytes(raw))
    assert isinstance(reply, codec.FlowStats)
    assert [(each.entry, each.cookie) for each in reply.entries] == [(None, 5)]


GOOD = [
    codec.hello(1),
    codec.packet_out(7, 12, bytes(60)),
    stats_reply(ENTRY),
    codec.message(codec.PACKET_IN, 0, struct.pack("!IHBBQ", 0xFFFFFFFF, 60, 0, 0, 7)
                  + oxm.of_port(12).encode() + bytes(2) + bytes(60)),
    codec.message(codec.ERROR, 9, struct.pack("!HH", 5, 1) + b"the request"),
    codec.message(codec.FEATURES_REPLY, 9, struct.pack("!QIBBHII", 1, 0, 254, 0, 0, 0, 0)),
    codec.bundle_control(9, 5, codec.BUNDLE_OPENED),
    codec.message(codec.ECHO_REQUEST, 3, b"hello"),
]  # fmt: skip


@given(st.sampled_from(GOOD), st.data())
def test_a_damaged_message_is_read_or_refused(message: bytes, data: st.DataObject) -> None:
    raw = bytearray(message)
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(raw[: data.draw(st.integers(0, len(raw)))])
    for one in (bytes(raw), cut, cut[:2] + struct.pack("!H", len(cut)) + cut[4:]):
        try:
            codec.decode(one)
        except OpenFlowError:
            continue


@given(st.binary(max_size=200), st.sampled_from(range(31)))
def test_noise_is_read_or_refused(noise: bytes, kind: int) -> None:
    try:
        codec.decode(codec.message(kind, 1, noise))
    except OpenFlowError:
        return


def test_what_a_packet_in_carries() -> None:
    found = codec.decode(GOOD[3])
    assert isinstance(found, codec.PacketIn)
    assert (found.port, found.cookie, found.length, found.frame) == (12, 7, 60, bytes(60))


def test_an_error_names_what_failed() -> None:
    assert str(codec.decode(GOOD[4])) == "flow-mod failed: the table is full"


def test_inner_vlans_are_refused_with_a_remedy() -> None:
    with pytest.raises(ValueError, match="leave inner_vlan out"):
        oxm.of_match(parse("ip,inner_vlan=5"))
