"""Match fields of OpenFlow 1.3 (specification 1.3.5, §7.2.3): our matches and ports as OXM TLVs."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from flowferry.wire import Match, address_of

BASIC = 0x8000
IN_PORT, ETH_DST, ETH_TYPE, VLAN_VID, IP_PROTO = 0, 3, 5, 6, 10
IPV4_SRC, IPV4_DST, IPV6_SRC, IPV6_DST = 11, 12, 26, 27
#: Source and destination port fields by IP protocol.
PORTS = {6: (13, 14), 17: (15, 16), 132: (17, 18)}
LENGTHS = {
    IN_PORT: 4, ETH_DST: 6, ETH_TYPE: 2, VLAN_VID: 2, IP_PROTO: 1,
    IPV4_SRC: 4, IPV4_DST: 4, IPV6_SRC: 16, IPV6_DST: 16,
    **dict.fromkeys((13, 14, 15, 16, 17, 18), 2),
}  # fmt: skip
ETHERTYPES = {4: 0x0800, 6: 0x86DD}
CONTROL_ETHERTYPE = 0x821C

#: Field number to value, and mask where not all bits are compared.
Fields = Mapping[int, tuple[int, int | None]]


@dataclass(frozen=True)
class Oxm:
    """An OpenFlow match: exactly the fields that are compared. Hashable and order-free."""

    fields: Fields = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Freeze the fields."""
        object.__setattr__(self, "fields", MappingProxyType(dict(sorted(self.fields.items()))))

    def __hash__(self) -> int:
        """By contents."""
        return hash(tuple(self.fields.items()))

    def __eq__(self, other: object) -> bool:
        """By contents."""
        return isinstance(other, Oxm) and dict(self.fields) == dict(other.fields)

    def encode(self) -> bytes:
        """`struct ofp_match`, padded to 8 bytes."""
        body = b""
        for number, (value, mask) in self.fields.items():
            length = LENGTHS[number]
            payload = value.to_bytes(length, "big")
            if mask is not None:
                payload += mask.to_bytes(length, "big")
            head = number << 1 | (mask is not None)
            body += struct.pack("!HBB", BASIC, head, len(payload)) + payload
        size = 4 + len(body)
        return struct.pack("!HH", 1, size) + body + bytes(-size % 8)


class UnknownFieldError(ValueError):
    """A match with a field that we never write: not ours."""


def decode(data: bytes) -> tuple[Oxm, int]:
    """The match at the beginning of `data`, and its length with padding.

    Raises `UnknownFieldError` for fields we never write, `ValueError` for what is malformed.
    """
    if len(data) < 4:
        raise ValueError("a match of less than 4 bytes")
    kind, size = struct.unpack_from("!HH", data)
    padded = size + -size % 8
    if kind != 1 or size < 4 or padded > len(data):
        raise ValueError(f"a match of type {kind} and length {size} in {len(data)} bytes")
    fields: dict[int, tuple[int, int | None]] = {}
    at = 4
    while at < size:
        if at + 4 > size:
            raise ValueError("a match field cut short")
        group, head, length = struct.unpack_from("!HBB", data, at)
        number, masked = head >> 1, bool(head & 1)
        at += 4
        if at + length > size:
            raise ValueError("a match field longer than its match")
        if group != BASIC or number not in LENGTHS:
            raise UnknownFieldError(f"match field {group:#x}/{number} is not ours")
        if length != LENGTHS[number] << masked:
            raise ValueError(f"match field {number} has {length} bytes")
        payload = data[at : at + length]
        at += length
        half = LENGTHS[number]
        mask = int.from_bytes(payload[half:], "big") if masked else None
        fields[number] = (int.from_bytes(payload[:half], "big"), mask)
    return Oxm(fields), padded


def of_match(match: Match, **more: int) -> Oxm:
    """An entry's match for ours, which must name an IP version. Inner VLANs: see `of_port`.

    Raises `ValueError` for what OpenFlow 1.3 cannot compare.
    """
    assert match.family is not None
    if match.inner_vlan is not None:
        raise ValueError("OpenFlow 1.3 compares the outer VLAN only; leave inner_vlan out")
    fields: dict[int, tuple[int, int | None]] = {ETH_TYPE: (ETHERTYPES[match.family], None)}
    if match.outer_vlan is not None:
        fields[VLAN_VID] = _masked(match.outer_vlan, 0x1FFF)
    if match.protocol is not None:
        fields[IP_PROTO] = (match.protocol, None)
    sides = (IPV4_SRC, IPV4_DST) if match.family == 4 else (IPV6_SRC, IPV6_DST)
    ones = (1 << (32 if match.family == 4 else 128)) - 1
    for number, address in zip(sides, (match.source, match.destination), strict=True):
        if address is not None:
            fields[number] = _masked(address, ones)
    ports = PORTS.get(match.protocol or 0, (0, 0))
    for number, port in zip(ports, (match.source_port, match.destination_port), strict=True):
        if port is not None:
            fields[number] = _masked(port, 0xFFFF)
    return Oxm(fields)


def _masked(masked: Any, ones: int) -> tuple[int, int | None]:
    value, mask = int(masked.value), int(masked.mask)
    return (value, None) if mask == ones else (value, mask)


def of_port(port: int, *, ethertype: int | None = None, group_addressed: bool = False) -> Oxm:
    """Frames that come in by a port: all, those of an EtherType, or broadcast and multicast."""
    fields: dict[int, tuple[int, int | None]] = {IN_PORT: (port, None)}
    if ethertype is not None:
        fields[ETH_TYPE] = (ethertype, None)
    if group_addressed:
        fields[ETH_DST] = GROUP_BIT
    return Oxm(fields)


def of_control(*, to: int | None = None) -> Oxm:
    """Control frames: all, or those that are addressed to an instance."""
    fields: dict[int, tuple[int, int | None]] = {ETH_TYPE: (CONTROL_ETHERTYPE, None)}
    if to is not None:
        fields[ETH_DST] = (int.from_bytes(address_of(to), "big"), None)
    return Oxm(fields)


#: The bit of an Ethernet address that says broadcast or multicast.
GROUP_BIT: tuple[int, int] = (1 << 40, 1 << 40)
