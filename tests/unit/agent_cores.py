"""An agent's cores by themselves, and what a controller says to them."""

import struct
from dataclasses import replace
from ipaddress import IPv4Address
from typing import Any

from flowferry import _native
from flowferry.wire import (
    CONTROLLER,
    Command,
    KeyRing,
    Match,
    Message,
    Opener,
    Peer,
    Sealer,
)

KEYS = KeyRing(1, bytes(32))
PART, SOURCE, DESTINATION = 1 << 8 | 1, 1, 2
ADDRESSES = {SOURCE: "192.0.2.1", DESTINATION: "192.0.2.2"}
PORT = 7000
_UDP = struct.pack("!HHHHBBH4s4s", 0x4500, 32, 0, 0, 64, 17, 0, bytes(4), bytes(4))
#: Of a flow that moves.
PACKET = bytes(12) + b"\x08\x00" + _UDP + struct.pack("!HHHHI", 1, 2, 12, 0, 0)


def prepare(number: int, epoch: int | None = 1) -> Message:
    """PREPARE of all UDP to one of the two instances."""
    other = SOURCE + DESTINATION - number
    return Message(
        command=Command.PREPARE,
        to=number,
        handover=PART,
        match=Match(family=4, protocol=17),
        sources=(SOURCE,),
        destination=DESTINATION,
        peers=(Peer(other, IPv4Address(ADDRESSES[other]), PORT),),
        priority=1,
        deadline_ms=1000,
        settling_ms=1000,
        strategy="direct",
        epoch=epoch,
    )


class Agent:
    """The cores of one agent that has just started. Times are in nanoseconds."""

    def __init__(self, number: int, *, epoch: int = 1) -> None:
        self.number = number
        self.core = _native.HslInstance(number, epoch=epoch, buffer_bytes=1 << 20)
        self._sealer = Sealer(KEYS, sender=CONTROLLER, boot=1)
        self._opener = _native.WireOpener(number)
        self._voice = _native.WireSealer(number, 1)
        self._ear = Opener(KEYS, own=CONTROLLER)

    def seal(self, message: Message) -> bytes:
        """What the controller says to it, as a frame."""
        message = replace(message, to=self.number)
        return self._sealer.seal(message, destination=bytes(6), source=bytes(6))[0]

    def take(self, frame: bytes, now: int = 0) -> None:
        """A frame comes."""
        self.core.control(1, self._opener.open(KEYS, frame), now)

    def hear(self, message: Message, now: int = 0) -> list[tuple[Any, ...]]:
        """The controller says something; what is done."""
        self.take(self.seal(message), now)
        return self.core.actions()

    def said(self) -> list[Message]:
        """What it has said since the last time; other actions are left out."""
        said = [action[2] for action in self.core.actions() if action[0] == "send"]
        frames = [self._voice.seal(KEYS, one, bytes(6), bytes(6), 1500)[0] for one in said]
        return [self._ear.open(frame) for frame in frames]

    def link_to(self, number: int) -> None:
        """The stream to a peer is there."""
        self.core.connected(f"{ADDRESSES[number]}:{PORT}", 0)

    @property
    def phase(self) -> str | None:
        """Of the part."""
        return self.core.phase(PART)
