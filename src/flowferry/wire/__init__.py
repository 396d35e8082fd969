"""Control frames on EtherType 0x821c, as Python sees them (docs/wire.md).

The codec is the Rust crate ``flowferry-wire``; this package gives it typed values and adds no rule
of its own. It does no I/O and reads no clock: frames, boot ids and secrets are arguments.

>>> keys = KeyRing(1, bytes(range(32)))
>>> controller = Sealer(keys, sender=CONTROLLER, boot=1)
>>> marker = Message(command=Command.MARKER, to=9, handover=42, side=Side.UPSTREAM, round=1)
>>> frame, sent = controller.seal(marker, destination=bytes(6), source=bytes(6))
>>> Opener(keys, own=9).open(frame) == sent
True
"""

from flowferry._native import WireError as WireError
from flowferry._native import WireKeyRing as KeyRing
from flowferry._native import WireKeyRingError as KeyRingError
from flowferry._native import WireMalformedError as MalformedError
from flowferry._native import WirePartError as PartError
from flowferry._native import WireRejectedError as RejectedError
from flowferry._native import WireUnsendableError as UnsendableError
from flowferry._native import wire_address_of as address_of
from flowferry.wire.frames import Assembler, Opener, Sealer, decode, encode, split
from flowferry.wire.values import (
    CONTROLLER,
    DEFAULT_MTU,
    ETHERTYPE,
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

__all__ = [
    "CONTROLLER",
    "DEFAULT_MTU",
    "ETHERTYPE",
    "Address",
    "Assembler",
    "Command",
    "Counter",
    "Flags",
    "Flow",
    "InReplyTo",
    "KeyRing",
    "KeyRingError",
    "LinkFlow",
    "MalformedError",
    "Masked",
    "Match",
    "Message",
    "Opener",
    "Part",
    "PartError",
    "Peer",
    "Reason",
    "RejectedError",
    "Report",
    "Sealer",
    "Side",
    "UnsendableError",
    "WireError",
    "address_of",
    "decode",
    "encode",
    "split",
]
