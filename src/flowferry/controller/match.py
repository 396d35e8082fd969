"""The algebra of matches: read and write them, cut one to another, ask whether one covers another.

A match is a conjunction of masked fields (`flowferry.wire.Match`), so the packets that belong to
two matches are again those of one match, or none. What a rule does *not* take is no match but a
list of excepts. The syntax is that of `flowferry hsl hold` (docs/hsl.md), with masks on ports
(`tp_dst=1/0x3`) and without what is not IP: other frames belong to no rule, they take the way of
the group's first instance.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from flowferry.wire import Flow, LinkFlow, Masked, Match

ALL = Match()
FAMILIES = (4, 6)
PORTED = {6: "tcp", 17: "udp", 132: "sctp"}
TAGGED, VLAN_MASK = 0x1000, 0x1FFF
#: Group addresses, which take the path of the first instance whatever the rules say.
GROUP_ADDRESSES: dict[int, Any] = {
    4: Masked(IPv4Address("224.0.0.0"), IPv4Address("224.0.0.0")),
    6: Masked(IPv6Address("ff00::"), IPv6Address("ff00::")),
}

_FIELDS = ("source", "destination", "source_port", "destination_port", "outer_vlan", "inner_vlan")
_MIRRORED = {
    "source": "destination",
    "destination": "source",
    "source_port": "destination_port",
    "destination_port": "source_port",
}
_PROTOCOLS: dict[str, tuple[int, int | None]] = {
    "ip": (4, None), "icmp": (4, 1), "tcp": (4, 6), "udp": (4, 17), "sctp": (4, 132),
    "ipv6": (6, None), "icmp6": (6, 58), "tcp6": (6, 6), "udp6": (6, 17), "sctp6": (6, 132),
}  # fmt: skip
_PROTOCOL_NAMES = {pair: name for name, pair in _PROTOCOLS.items()}


class MatchError(ValueError):
    """Text that is no match; says which part and what to write instead."""


# -- algebra -----------------------------------------------------------------------------------


def mirror(match: Match) -> Match:
    """The same flows, read from the downstream side."""
    return replace(
        match,
        **{to: getattr(match, field) for field, to in _MIRRORED.items()},
    )


def both(a: Match, b: Match) -> Match | None:
    """What belongs to both; `None` if nothing does."""
    fields: dict[str, Any] = {}
    for name in ("family", "protocol"):
        one, other = getattr(a, name), getattr(b, name)
        if one is not None and other is not None and one != other:
            return None
        fields[name] = other if one is None else one
    for name in _FIELDS:
        one, other = getattr(a, name), getattr(b, name)
        if one is not None and other is not None:
            (value, mask), (value2, mask2) = _bits(one), _bits(other)
            if (value ^ value2) & mask & mask2:
                return None
            kind = type(one.value)
            fields[name] = Masked(kind(value | value2), kind(mask | mask2))
        else:
            fields[name] = other if one is None else one
    return Match(**fields)


def overlaps(a: Match, b: Match) -> bool:
    """Whether some packet belongs to both."""
    return both(a, b) is not None


def covers(a: Match, b: Match) -> bool:
    """Whether every packet of `b` belongs to `a`."""
    return both(a, b) == b


def without(match: Match, other: Match) -> Iterator[Match]:
    """What of `match` does not belong to `other`, in pieces of which no two overlap.

    One piece for each bit that only `other` asks for: with the bits before it as `other` wants
    them, and that one different. A protocol has no bits in OpenFlow: all others one by one.
    """
    if not overlaps(match, other):
        yield match
        return
    rest = match
    for name, values in (("family", FAMILIES), ("protocol", range(256))):
        wanted = getattr(other, name)
        if wanted is None or getattr(rest, name) is not None:
            continue
        yield from (_with(rest, name, value) for value in values if value != wanted)
        rest = _with(rest, name, wanted)
    for name in _FIELDS:
        masked = getattr(other, name)
        if masked is None:
            continue
        kind, (wanted, asked) = type(masked.value), _bits(masked)
        mine = getattr(rest, name)
        value, mask = (0, 0) if mine is None else _bits(mine)
        for at in reversed(range((asked & ~mask).bit_length())):
            bit = 1 << at
            if not asked & ~mask & bit:
                continue
            mask |= bit
            yield _with(rest, name, Masked(kind(value | bit & ~wanted), kind(mask)))
            value |= bit & wanted
        if mask:
            rest = _with(rest, name, Masked(kind(value), kind(mask)))


def outside(match: Match, others: Sequence[Match]) -> Iterator[Match]:
    """What of `match` belongs to none of `others`, in pieces of which no two overlap."""
    at = next((at for at, other in enumerate(others) if overlaps(match, other)), None)
    if at is None:
        yield match
        return
    for piece in without(match, others[at]):
        yield from outside(piece, others[at + 1 :])


def families(match: Match) -> tuple[Match, ...]:
    """`match` as matches that each name one IP version."""
    if match.family is not None:
        return (match,)
    return tuple(replace(match, family=family) for family in FAMILIES)


def group_addresses(match: Match) -> tuple[Match, ...]:
    """What of `match` is sent to broadcast and multicast addresses, in either direction."""
    assert match.family is not None
    masked = GROUP_ADDRESSES[match.family]
    ends = (
        Match(family=match.family, destination=masked),
        Match(family=match.family, source=masked),
    )
    return tuple(found for end in ends if (found := both(match, end)) is not None)


def covers_flow(match: Match, flow: Flow | LinkFlow) -> bool:
    """Whether a flow, in either direction, belongs to `match`."""
    if isinstance(flow, LinkFlow):
        return False
    return covers(match, exact(flow)) or covers(match, mirror(exact(flow)))


def exact(flow: Flow) -> Match:
    """The match of one flow, with its smaller end upstream."""
    address: Any = IPv4Address if flow.low[0].version == 4 else IPv6Address
    ones = address(2 ** flow.low[0].max_prefixlen - 1)
    ported = flow.protocol in PORTED
    tags = [Masked(TAGGED | vid, VLAN_MASK) for vid in flow.vlans]
    tags += [Masked(0, VLAN_MASK)] * (2 - len(tags))
    return Match(
        family=flow.low[0].version,
        protocol=flow.protocol,
        source=Masked(flow.low[0], ones),
        destination=Masked(flow.high[0], ones),
        source_port=Masked(flow.low[1], 0xFFFF) if ported else None,
        destination_port=Masked(flow.high[1], 0xFFFF) if ported else None,
        outer_vlan=tags[0],
        inner_vlan=tags[1],
    )


def flow(match: Match) -> Flow | None:
    """The one flow that `match` names; `None` if it leaves an address or a port open."""
    if match.protocol is None or match.source is None or match.destination is None:
        return None
    ends = []
    for masked, port in (
        (match.source, match.source_port),
        (match.destination, match.destination_port),
    ):
        if int(masked.mask) != 2**masked.value.max_prefixlen - 1:
            return None
        if match.protocol in PORTED and (port is None or port.mask != 0xFFFF):
            return None
        ends.append((masked.value, 0 if port is None else port.value))
    tags = [one for one in (match.outer_vlan, match.inner_vlan) if one is not None and one.value]
    vids = tuple(tag.value & 0xFFF for tag in tags)
    return Flow(match.protocol, ends[0], ends[1], vids)


def _bits(masked: Masked[Any]) -> tuple[int, int]:
    return int(masked.value), int(masked.mask)


# -- text --------------------------------------------------------------------------------------


@lru_cache(maxsize=4096)
def text(match: Match) -> str:
    """The match as people write it; `parse` reads it back."""
    return ",".join(_parts(match)) or "*"


def _parts(match: Match) -> Iterator[str]:
    if match.family is not None:
        known = _PROTOCOL_NAMES.get((match.family, match.protocol))
        if known is not None:
            yield known
        else:
            yield _PROTOCOL_NAMES[match.family, None]
            yield f"nw_proto={match.protocol}"
        names = ("nw_src", "nw_dst") if match.family == 4 else ("ipv6_src", "ipv6_dst")
        for name, masked in zip(names, (match.source, match.destination), strict=True):
            if masked is not None:
                yield f"{name}={_address(masked)}"
    for name, port in (("tp_src", match.source_port), ("tp_dst", match.destination_port)):
        if port is not None:
            yield f"{name}={port.value}" + ("" if port.mask == 0xFFFF else f"/{port.mask:#x}")
    for name, tag in (("dl_vlan", match.outer_vlan), ("inner_vlan", match.inner_vlan)):
        if tag is not None and tag.mask != VLAN_MASK:
            yield f"{name}={tag.value:#06x}/{tag.mask:#06x}"
        elif tag is not None:
            yield f"{name}={tag.value & 0xFFF if tag.value & TAGGED else 'none'}"


def _address(masked: Masked[IPv4Address] | Masked[IPv6Address]) -> str:
    bits = masked.value.max_prefixlen
    mask = int(masked.mask)
    prefix = mask.bit_count()
    if mask != ((1 << prefix) - 1) << (bits - prefix):
        return f"{masked.value}/{masked.mask}"
    return str(masked.value) if prefix == bits else f"{masked.value}/{prefix}"


def parse(words: str) -> Match:
    """Read a match. Raises `MatchError`."""
    parts = [part.strip() for part in words.split(",")]
    parts = [part for part in parts if part]
    if not parts:
        raise MatchError(f"match {words!r} is empty; write * for every packet")
    found = ALL
    for part in parts:
        if part == "*":
            continue
        try:
            added = _part(part, found)
        except MatchError as error:
            raise MatchError(f"match {words!r}: {part!r} {error}") from None
        joined = both(found, added)
        if joined is None:
            raise MatchError(
                f"match {words!r}: {part!r} contradicts an earlier part of the match; "
                "drop one of them"
            )
        found = joined
    return found


def _part(part: str, before: Match) -> Match:
    name, equals, value = (piece.strip() for piece in part.partition("="))
    if not equals:
        if name not in _PROTOCOLS:
            raise MatchError("is no IP protocol; use ip, tcp, udp, icmp, sctp, ipv6, tcp6, … or *")
        family, protocol = _PROTOCOLS[name]
        return Match(family=family, protocol=protocol)
    reader = _READERS.get(name)
    if reader is None:
        raise MatchError("is not understood; see 'flowferry move --help' for the fields")
    return reader(value, before)


def _with(match: Match, field: str, masked: object) -> Match:
    fields: dict[str, Any] = {field: masked}
    return replace(match, **fields)


def _reads_address(family: int, field: str) -> Callable[[str, Match], Match]:
    kind: Any = IPv4Address if family == 4 else IPv6Address
    bits = 32 if family == 4 else 128

    def read(value: str, _: Match) -> Match:
        address, slash, length = value.partition("/")
        prefix = _number(length, bits) if slash else bits
        mask = ((1 << prefix) - 1) << (bits - prefix)
        try:
            parsed = int(kind(address))
        except ValueError:
            raise MatchError("is no address of that family") from None
        masked = Masked(kind(parsed & mask), kind(mask)) if mask else None
        return _with(Match(family=family), field, masked)

    return read


def _reads_port(protocol: int | None, field: str) -> Callable[[str, Match], Match]:
    def read(value: str, before: Match) -> Match:
        if before.family is None:
            raise MatchError("needs tcp, udp or sctp before it")
        wanted = before.protocol if protocol is None else protocol
        if wanted not in PORTED:
            raise MatchError("needs tcp, udp or sctp before it")
        port, slash, bits = value.partition("/")
        mask = _number(bits, 0xFFFF) if slash else 0xFFFF
        masked = Masked(_number(port, 0xFFFF) & mask, mask) if mask else None
        return _with(Match(family=before.family, protocol=wanted), field, masked)

    return read


def _reads_vlan(field: str) -> Callable[[str, Match], Match]:
    def read(value: str, _: Match) -> Match:
        # With a mask both are in OpenFlow's form: 13 bits, 0x1000 for "tagged".
        words, slash, bits = value.partition("/")
        if slash:
            mask = _number(bits, VLAN_MASK)
            masked = Masked(_number(words, VLAN_MASK) & mask, mask) if mask else None
            return _with(ALL, field, masked)
        tag = 0 if value == "none" else TAGGED | _number(value, 0xFFF)
        return _with(ALL, field, Masked(tag, VLAN_MASK))

    return read


def _protocol(value: str, before: Match) -> Match:
    if before.family is None:
        raise MatchError("needs ip or ipv6 before it")
    return Match(family=before.family, protocol=_number(value, 0xFF))


def _ethertype(value: str, _: Match) -> Match:
    family = {0x0800: 4, 0x86DD: 6}.get(_number(value, 0xFFFF))
    if family is None:
        raise MatchError("is not IP; other frames take the way of the first instance")
    return Match(family=family)


def _number(digits: str, greatest: int) -> int:
    base, plain = (16, digits[2:]) if digits.startswith("0x") else (10, digits)
    allowed = "0123456789abcdefABCDEF" if base == 16 else "0123456789"
    if not plain or any(digit not in allowed for digit in plain) or int(plain, base) > greatest:
        raise MatchError(f"is no number from 0 to {greatest}")
    return int(plain, base)


_READERS: dict[str, Callable[[str, Match], Match]] = {
    **dict.fromkeys(("nw_src", "ip_src"), _reads_address(4, "source")),
    **dict.fromkeys(("nw_dst", "ip_dst"), _reads_address(4, "destination")),
    "ipv6_src": _reads_address(6, "source"),
    "ipv6_dst": _reads_address(6, "destination"),
    **dict.fromkeys(("nw_proto", "ip_proto"), _protocol),
    **dict.fromkeys(("dl_type", "eth_type"), _ethertype),
    **dict.fromkeys(("dl_vlan", "vlan_vid"), _reads_vlan("outer_vlan")),
    "inner_vlan": _reads_vlan("inner_vlan"),
    **{
        f"{kind}_{end}": _reads_port(protocol, field)
        for kind, protocol in (("tp", None), ("tcp", 6), ("udp", 17), ("sctp", 132))
        for end, field in (("src", "source_port"), ("dst", "destination_port"))
    },
}
