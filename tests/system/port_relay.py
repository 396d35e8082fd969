"""A relay at the instances' own ports: what agents say to each other, past the controller.

There tc leads it to a TAP, whatever kind of port the switch has at the other end; what goes on is
sent by the same port, past tc. Nothing else is touched: neither packets nor what is for the
controller, which a relay of its own sees (`openflow_relay`).
"""

import fcntl
import os
import socket
import struct
from contextlib import ExitStack, suppress
from functools import partial

from relay import Relay

from flowferry.testbed import Testbed, links, namespace
from flowferry.wire import ETHERTYPE

TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x2, 0x1000
SOL_PACKET, PACKET_QDISC_BYPASS = 263, 20
#: How the addresses of instances begin (docs/wire.md, "Authentication"), as tc's u32 matches them.
TO_AN_INSTANCE = "match u16 0x02fe 0xffff at -14"


class PortRelay(Relay):
    """At both ports of every instance; a context manager."""

    def __init__(self, bed: Testbed) -> None:
        """Change nothing yet."""
        super().__init__()
        self._bed = bed
        self._stack = ExitStack()

    async def _begin(self) -> None:
        for instance in self._bed.instances:
            for dev in (instance.up, instance.down):
                self._divert(instance.name, dev)

    def _divert(self, role: str, dev: str) -> None:
        space, name = self._bed.namespaces[role], f"relay-{dev}"
        tap = namespace.call(space, partial(_tap, name))
        self._stack.callback(os.close, tap)
        namespace.configure(
            space, lambda ipr: ipr.link("set", index=links.index(ipr, name), state="up")
        )
        self._tc(role, f"qdisc add dev {dev} clsact")
        self._stack.callback(self._tc, role, f"qdisc del dev {dev} clsact")
        which = f"dev {dev} egress protocol {ETHERTYPE:#x} u32 {TO_AN_INSTANCE}"
        self._tc(role, f"filter add {which} action mirred egress redirect dev {name}")
        port = self._stack.enter_context(namespace.call(space, partial(_past_tc, dev)))
        self._loop.add_reader(tap, self._read, tap, port)
        self._stack.callback(self._loop.remove_reader, tap)

    def _tc(self, role: str, words: str) -> None:
        self._bed.run(role, ["tc", *words.split()])

    def _read(self, tap: int, port: socket.socket) -> None:
        with suppress(BlockingIOError):
            while True:
                frame = os.read(tap, 1 << 16)
                self._pass(frame, partial(port.send, frame))

    async def _end(self) -> None:
        self._stack.close()


def _tap(name: str) -> int:
    """A new device that goes with its descriptor; one read, one frame."""
    tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tap, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI))
    return tap


def _past_tc(dev: str) -> socket.socket:
    port = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    port.setsockopt(SOL_PACKET, PACKET_QDISC_BYPASS, 1)
    port.bind((dev, 0))
    return port
