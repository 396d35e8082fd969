"""A controller's hands without a controller: frames and packets on the switches' ends of the links.

What is sent on a switch's port device arrives at the instance; what the instance sends is seen
there. So a test says itself which packet takes which path, and when a marker follows it.
"""

import select
import socket
import struct
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from markers import key_file

from flowferry.hsl import Agent
from flowferry.hsl.wiring import config_for
from flowferry.testbed import Testbed, namespace
from flowferry.wire import (
    CONTROLLER,
    Command,
    Flags,
    KeyRing,
    Match,
    Message,
    Opener,
    Peer,
    RejectedError,
    Sealer,
    Side,
    address_of,
)

ETHERTYPE = 0x821C
ALL_ETHERTYPES = 3
PORT = 7100
PATIENCE = 10.0
FINAL = 0xFFFF_FFFF
DEVICES = {Side.UPSTREAM: "up", Side.DOWNSTREAM: "down"}
SOURCE, DESTINATION = 1, 2
HANDOVER = 0x0101


class Hands:
    """Sends control frames and datagrams to instances 1 and 2, and hears what they send."""

    def __init__(self, bed: Testbed, keys: KeyRing) -> None:
        """Open a packet socket on each of the four port devices."""
        self._bed = bed
        self._sealer = Sealer(keys, sender=0, boot=time.time_ns())
        self._opener = Opener(keys, own=0)
        space = f"{bed.owner.name}-sw"
        self.ports = {
            (one.id, side): namespace.call(space, partial(self._open, f"{one.name}-{device}"))
            for one in bed.instances
            for side, device in DEVICES.items()
        }
        self._heard: list[Message] = []
        #: Control frames from one instance to another: sender, side, frame.
        self.between: list[tuple[int, Side, bytes]] = []
        #: Numbers of the datagrams that came out of each instance, downstream.
        self.passed: dict[int, list[int]] = {SOURCE: [], DESTINATION: []}

    @staticmethod
    def _open(device: str) -> socket.socket:
        packet = socket.socket(
            socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.htons(ALL_ETHERTYPES)
        )
        packet.bind((device, ALL_ETHERTYPES))
        return packet

    def seal(self, message: Message) -> bytes:
        """A frame, to be sent now or later."""
        frame, _ = self._sealer.seal(message, destination=bytes(6), source=bytes(6))
        return frame

    def raw(self, to: int, side: Side, frame: bytes) -> None:
        """Any frame, on the way to an instance."""
        self.ports[to, side].send(frame)

    def send(self, message: Message, side: Side = Side.UPSTREAM) -> None:
        """A control frame to its addressee."""
        self.raw(message.to, side, self.seal(message))

    def packet(self, to: int, number: int, *, flow: int = 0) -> None:
        """A datagram of a flow, as a rule the one there is, on the way to an instance, upstream."""
        h1, h2 = self._bed.hosts["h1"], self._bed.hosts["h2"]
        macs = [bytes.fromhex(host.mac.replace(":", "")) for host in (h2, h1)]
        body = struct.pack("!HHHHQ", 7000 + flow, 7000, 16, 0, number)
        header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 0, 0, 64, 17, 0)
        ends = b"".join(ip_address(host.ip4).packed for host in (h1, h2))
        total = sum(struct.unpack("!10H", header + ends))
        total = (total & 0xFFFF) + (total >> 16)
        header = header[:10] + struct.pack("!H", ~(total + (total >> 16)) & 0xFFFF)
        self.raw(to, Side.UPSTREAM, b"".join([*macs, b"\x08\x00", header, ends, body]))

    def _hear(self, seconds: float) -> None:
        readable, _, _ = select.select(list(self.ports.values()), [], [], seconds)
        for (instance, side), port in self.ports.items():
            if port not in readable:
                continue
            frame, address = port.recvfrom(2048)
            if address[2] == socket.PACKET_OUTGOING:
                continue
            kind = int.from_bytes(frame[12:14], "big")
            if kind == ETHERTYPE and frame[:6] != address_of(CONTROLLER):
                self.between.append((instance, side, frame))
            elif kind == ETHERTYPE:
                try:
                    self._heard.append(self._opener.open(frame))
                except RejectedError as error:
                    raise AssertionError(f"instance {instance} sent {error}") from error
            elif kind == 0x0800 and side == Side.DOWNSTREAM and frame[36:38] == b"\x1b\x58":
                self.passed[instance].append(int.from_bytes(frame[42:50], "big"))

    def until(self, condition: Callable[[], object], what: str) -> None:
        """Hear until something is so."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, f"no {what}; heard {self._heard}"
            self._hear(0.1)

    def await_passed(self, instance: int, packets: int) -> None:
        """Hear until so many packets have come out of an instance."""
        self.until(lambda: len(self.passed[instance]) >= packets, f"{packets} packets")

    def hear(self, command: Command, sender: int, **fields: Any) -> Message:
        """The first message of that kind and sender; it and those like it are struck out."""

        def fits(message: Message) -> bool:
            return (message.command, message.sender) == (command, sender) and all(
                getattr(message, name) == value for name, value in fields.items()
            )

        self.until(lambda: any(map(fits, self._heard)), f"{command.name} of {sender} {fields}")
        found = next(filter(fits, self._heard))
        self._heard = [message for message in self._heard if not fits(message)]
        return found

    def ask(self, message: Message) -> Message:
        """Send a request; its ACK."""
        self.send(message)
        return self.hear(Command.ACK, message.to)

    def epoch(self, instance: int) -> int:
        """The epoch that an agent reports."""
        self.send(Message(command=Command.QUERY, to=instance))
        epoch = self.hear(Command.STATUS, instance, handover=0).epoch
        assert epoch is not None
        return epoch

    def prepare(self, to: int, handover: int, settling_ms: int = 60_000) -> Message:
        """PREPARE of all UDP from instance 1 to instance 2, in the agent's present epoch."""
        other = SOURCE + DESTINATION - to
        address = ip_address(self._bed.instances[other - 1].mgmt_ip)
        return Message(
            command=Command.PREPARE,
            to=to,
            handover=handover,
            match=Match(family=4, protocol=17),
            priority=7,
            sources=(SOURCE,),
            destination=DESTINATION,
            peers=(Peer(other, address, PORT),),
            deadline_ms=2_000,
            settling_ms=settling_ms,
            strategy="direct",
            epoch=self.epoch(to),
        )

    def marker(self, to: int, handover: int, side: Side, round_: int) -> None:
        """A marker, on its own side."""
        self.send(
            Message(command=Command.MARKER, to=to, handover=handover, side=side, round=round_), side
        )

    def fence(self, to: int, handover: int, round_: int = FINAL) -> None:
        """Markers on both sides, and what they prove."""
        for side in Side:
            self.marker(to, handover, side, round_)
            self.hear(Command.FENCED, to, side=side, round=round_)

    def close(self) -> None:
        """Close the sockets."""
        for port in self.ports.values():
            port.close()


def plain(command: Command, to: int, handover: int, flags: Flags = Flags.NONE) -> Message:
    """A command without fields, but for those it needs."""
    deadline = 2_000 if command is Command.FREEZE else None
    return Message(command=command, to=to, handover=handover, flags=flags, deadline_ms=deadline)


class Pair:
    """Two instances, their agents, and the hands of the test."""

    def __init__(
        self,
        stack: ExitStack,
        bed: Testbed,
        directory: Path,
        fields: Mapping[int, Mapping[str, Any] | None] | None = None,
    ) -> None:
        """Start the agents, with these further `fields`, by instance; None: it has no agent."""
        self.bed = bed
        file, self.keys = key_file(directory)
        self._stack = stack
        self._configs = {}
        self.agents = {}
        for one in bed.instances:
            more = (fields or {}).get(one.id, {})
            if more is not None:
                listen = f"{one.mgmt_ip}:{PORT}"
                config = config_for(bed, one.name, keys=[file], strays_listen=listen, **more)
                self._configs[one.id] = config
                self.agents[one.id] = stack.enter_context(Agent(config))
        self.hands = Hands(bed, self.keys)
        stack.callback(self.hands.close)

    def start_anew(self, instance: int) -> None:
        """Kill an agent, and start another one in its place."""
        self.agents[instance].kill()
        self.agents[instance] = self._stack.enter_context(Agent(self._configs[instance]))

    def status(self, instance: int) -> dict[str, Any]:
        """What an agent says of itself."""
        with self.agents[instance].client() as client:
            return client.status()

    def prepared(self, settling_ms: int = 60_000) -> Hands:
        """A handover that is ready to be turned, and a flow that the source serves."""
        self.hands.packet(SOURCE, 1)
        self.hands.until(lambda: self.hands.passed[SOURCE] == [1], "packet through the source")
        self.hands.ask(self.hands.prepare(DESTINATION, HANDOVER, settling_ms))
        ack = self.hands.ask(self.hands.prepare(SOURCE, HANDOVER, settling_ms))
        assert ack.flows is not None
        assert len(ack.flows) == 1
        return self.hands
