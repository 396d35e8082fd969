"""The algebra of matches, held against what a packet says."""

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowferry.controller import match as matching
from flowferry.controller.match import MatchError, both, covers, mirror, overlaps, parse, text
from flowferry.hsl import endpoint
from flowferry.wire import Flow, Masked, Match

#: Few values, so that matches meet.
ADDRESSES4 = ["10.0.0.1", "10.0.0.2", "10.0.0.0/24", "10.0.0.0/8", "224.0.0.1"]
ADDRESSES6 = ["fd00::1", "fd00::2", "fd00::/64", "ff02::1"]


@st.composite
def texts(draw: st.DrawFn) -> str:
    family = draw(st.sampled_from([4, 6, None]))
    parts = []
    if family is not None:
        protocols = ["ip", "udp", "tcp", "icmp"] if family == 4 else ["ipv6", "udp6", "tcp6"]
        protocol = draw(st.sampled_from(protocols))
        parts.append(protocol)
        names = ("nw_src", "nw_dst") if family == 4 else ("ipv6_src", "ipv6_dst")
        addresses = ADDRESSES4 if family == 4 else ADDRESSES6
        for name in names:
            if draw(st.booleans()):
                parts.append(f"{name}={draw(st.sampled_from(addresses))}")
        if protocol[:3] in ("udp", "tcp"):
            for name in ("tp_src", "tp_dst"):
                if draw(st.booleans()):
                    parts.append(f"{name}={draw(st.sampled_from([80, 81, 0]))}")
    if draw(st.booleans()):
        parts.append(f"dl_vlan={draw(st.sampled_from(['none', '5', '6']))}")
    return ",".join(parts) or "*"


matches = texts().map(parse)
address4 = st.sampled_from(["10.0.0.1", "10.0.0.2", "10.9.0.1", "11.0.0.1"]).map(IPv4Address)
flows = st.builds(
    lambda proto, a, b, p, q, vlans: Flow(proto, (a, p), (b, q), vlans),
    st.sampled_from([6, 17]),
    address4,
    address4,
    st.sampled_from([80, 81, 90]),
    st.sampled_from([80, 81, 90]),
    st.sampled_from([(), (5,), (7,)]),
)


def holds(match: Match, packet: Match) -> bool:
    """Whether a packet, all of whose fields `packet` names, has what `match` asks for."""
    return covers(match, packet)


@given(matches, matches, flows)
def test_both_is_what_belongs_to_both(a: Match, b: Match, flow: Flow) -> None:
    packet = matching.exact(flow)
    joined = both(a, b)
    in_both = holds(a, packet) and holds(b, packet)
    assert in_both == (joined is not None and holds(joined, packet))
    assert overlaps(a, b) == (joined is not None)


@given(matches, matches, flows)
def test_what_is_covered_is_inside(a: Match, b: Match, flow: Flow) -> None:
    packet = matching.exact(flow)
    if covers(a, b) and holds(b, packet):
        assert holds(a, packet)


@given(matches, flows)
def test_the_mirror_takes_the_same_flows_from_the_other_end(a: Match, flow: Flow) -> None:
    packet = matching.exact(flow)
    assert holds(a, packet) == holds(mirror(a), mirror(packet))
    assert mirror(mirror(a)) == a
    assert matching.covers_flow(a, flow) == matching.covers_flow(mirror(a), flow)


@given(matches)
def test_text_reads_back(a: Match) -> None:
    assert parse(text(a)) == a


@given(texts())
def test_the_support_layer_understands_what_the_controller_writes(words: str) -> None:
    try:
        found = parse(words)
    except MatchError:
        with pytest.raises(ValueError, match="contradicts"):
            endpoint.check_match(words)
        return
    endpoint.check_match(text(found))


@given(st.text(alphabet="udpticmpnwsrcdl_=,*/0123456789.x:av6 ", max_size=40))
def test_any_text_is_read_or_refused(words: str) -> None:
    try:
        found = parse(words)
    except MatchError:
        return
    assert parse(text(found)) == found
    if not any(
        part.startswith("tp_") and "/" in part for part in words.replace(" ", "").split(",")
    ):
        endpoint.check_match(words)


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        ("", "write \\* for every packet"),
        ("arp", "use ip, tcp"),
        ("udp,nw_src=10.0.0.1,nw_src=10.0.0.2", "drop one"),
        ("tp_dst=80", "needs tcp, udp or sctp"),
        ("udp,tp_dst=70000", "no number from 0 to 65535"),
        ("udp,nw_src=10.0.0", "no address"),
        ("udp,color=red", "flowferry move --help"),
        ("dl_type=0x806", "first instance"),
    ],
)
def test_what_is_no_match_is_refused_with_a_remedy(words: str, remedy: str) -> None:
    with pytest.raises(MatchError, match=remedy):
        parse(words)


def test_one_flow_is_found_in_its_match() -> None:
    words = "udp,nw_src=10.0.0.2,nw_dst=10.0.0.1,tp_src=5,tp_dst=6"
    flow = matching.flow(parse(words))
    assert flow == Flow(17, (IPv4Address("10.0.0.1"), 6), (IPv4Address("10.0.0.2"), 5))
    assert matching.flow(parse("udp,nw_src=10.0.0.2,tp_src=5")) is None
    assert matching.covers_flow(parse(words), flow)


def test_ports_may_be_masked() -> None:
    odd = parse("udp,tp_dst=7/0x1")
    assert text(odd) == "udp,tp_dst=1/0x1"
    assert both(odd, parse("udp,tp_dst=8")) is None
    assert covers(odd, parse("udp,tp_dst=9"))
    assert parse("udp,tp_dst=7/0") == parse("udp")


def test_masks_that_are_no_prefix_are_still_shown() -> None:
    masked = Masked(IPv6Address("::1"), IPv6Address("::f"))
    assert text(Match(family=6, source=masked)) == "ipv6,ipv6_src=::1/::f"
