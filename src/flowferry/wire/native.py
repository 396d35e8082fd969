"""Between the dataclasses of ``values`` and the plain tuples of ``flowferry._native``.

One table, ``_FIELDS``, says which attribute of a message is which TLV and how its value is
written and read. Its order is the order of the TLVs in a frame.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, Any

from flowferry._native import WireUnsendableError as UnsendableError
from flowferry.wire.values import (
    Address,
    Command,
    Counter,
    Flags,
    Flow,
    InReplyTo,
    LinkFlow,
    Masked,
    Match,
    Message,
    Part,
    Peer,
    Reason,
    Report,
    Side,
)

if TYPE_CHECKING:  # shapes that exist in the stub only
    from flowferry._native import WireMatch as NativeMatch
    from flowferry._native import WireMessage as NativeMessage


def _address(packed: bytes) -> Address:
    return IPv4Address(packed) if len(packed) == 4 else IPv6Address(packed)


def _from_addresses(
    masked: Masked[IPv4Address] | Masked[IPv6Address] | None,
) -> tuple[bytes, bytes] | None:
    return None if masked is None else (masked.value.packed, masked.mask.packed)


def _to_addresses(
    pair: tuple[bytes, bytes] | None,
) -> Masked[IPv4Address] | Masked[IPv6Address] | None:
    if pair is None:
        return None
    value, mask = pair
    if len(value) == 4:
        return Masked(IPv4Address(value), IPv4Address(mask))
    return Masked(IPv6Address(value), IPv6Address(mask))


def _from_word(masked: Masked[int] | None) -> tuple[int, int] | None:
    return None if masked is None else (masked.value, masked.mask)


def _to_word(pair: tuple[int, int] | None) -> Masked[int] | None:
    return None if pair is None else Masked(*pair)


def _from_match(match: Match) -> NativeMatch:
    return (
        match.family or 0,
        match.protocol,
        _from_addresses(match.source),
        _from_addresses(match.destination),
        _from_word(match.source_port),
        _from_word(match.destination_port),
        _from_word(match.outer_vlan),
        _from_word(match.inner_vlan),
    )


def _to_match(native: NativeMatch) -> Match:
    family, protocol, source, destination, source_port, destination_port, outer, inner = native
    return Match(
        family=family or None,
        protocol=protocol,
        source=_to_addresses(source),
        destination=_to_addresses(destination),
        source_port=_to_word(source_port),
        destination_port=_to_word(destination_port),
        outer_vlan=_to_word(outer),
        inner_vlan=_to_word(inner),
    )


def _from_flow(flow: Flow | LinkFlow) -> tuple[Any, ...]:
    if isinstance(flow, LinkFlow):
        return (2, flow.ethertype, flow.vlans, (flow.low, 0), (flow.high, 0))
    ends = [(address.packed, port) for address, port in (flow.low, flow.high)]
    return (flow.low[0].version, flow.protocol, flow.vlans, *ends)


def _to_flow(native: Any) -> Flow | LinkFlow:
    family, number, vlans, (low, low_port), (high, high_port) = native
    if family == 2:
        return LinkFlow(number, low, high, tuple(vlans))
    ends = (_address(low), low_port), (_address(high), high_port)
    return Flow(number, *ends, tuple(vlans))


@dataclass(frozen=True, slots=True)
class _Field:
    attribute: str
    kind: int
    write: Callable[[Any], Any]
    read: Callable[[Any], Any]
    repeats: bool = False


def _same(value: Any) -> Any:
    return value


def _list_of(convert: Callable[[Any], Any]) -> Callable[[Any], tuple[Any, ...]]:
    return lambda entries: tuple(convert(entry) for entry in entries)


_FIELDS = (
    _Field("match", 0x0001, _from_match, _to_match),
    _Field("downstream_match", 0x0002, _from_match, _to_match),
    _Field("overriding", 0x0003, _list_of(_from_match), _list_of(_to_match)),
    _Field("priority", 0x0004, _same, _same),
    _Field("sources", 0x0005, _same, _same, repeats=True),
    _Field("destination", 0x0006, _same, _same),
    _Field(
        "peers",
        0x0007,
        lambda peer: (peer.instance, peer.address.packed, peer.port),
        lambda native: Peer(native[0], _address(native[1]), native[2]),
        repeats=True,
    ),
    _Field("flows", 0x0008, _list_of(_from_flow), _list_of(_to_flow)),
    _Field("side", 0x0009, _same, Side),
    _Field(
        "counts",
        0x000A,
        lambda counts: list(counts.items()),
        lambda pairs: {Counter(counter): value for counter, value in pairs},
    ),
    _Field(
        "error",
        0x000B,
        lambda report: (report.reason, report.text),
        lambda native: Report(Reason(native[0]), native[1]),
    ),
    _Field("deadline_ms", 0x000C, _same, _same),
    _Field("settling_ms", 0x000D, _same, _same),
    _Field("strategy", 0x000E, _same, _same),
    _Field("epoch", 0x000F, _same, _same),
    _Field(
        "part",
        0x0010,
        lambda part: (part.list, part.part, part.parts),
        lambda native: Part(*native),
    ),
    _Field(
        "in_reply_to",
        0x0011,
        lambda request: (request.command, request.sequence),
        lambda native: InReplyTo(Command(native[0]), native[1]),
    ),
    _Field("round", 0x0012, _same, _same),
    _Field("cpu", 0x0013, _same, _same),
    _Field("name", 0x8014, _same, _same),
    _Field("step", 0x8015, _same, _same),
)
_BY_KIND = {field.kind: field for field in _FIELDS}


def to_native(message: Message) -> NativeMessage:
    """Give the tuple that stands for ``message``."""
    tlvs = []
    for field in _FIELDS:
        value = getattr(message, field.attribute)
        values = value if field.repeats else () if value is None else (value,)
        try:
            tlvs += [(field.kind, field.write(each)) for each in values]
        except (AttributeError, TypeError) as error:
            raise UnsendableError(f"{field.attribute}: {error}") from error
    return (
        message.command,
        message.flags,
        message.handover,
        message.to,
        message.sender,
        message.boot,
        message.sequence,
        tlvs,
    )


def from_native(native: NativeMessage) -> Message:
    """Give the message that ``native`` stands for."""
    command, flags, handover, to, sender, boot, sequence, tlvs = native
    fields: dict[str, Any] = {}
    for kind, value in tlvs:
        field = _BY_KIND[kind]
        read = field.read(value)
        fields[field.attribute] = (
            (*fields.get(field.attribute, ()), read) if field.repeats else read
        )
    return Message(
        command=Command(command),
        flags=Flags(flags),
        handover=handover,
        to=to,
        sender=sender,
        boot=boot,
        sequence=sequence,
        **fields,
    )
