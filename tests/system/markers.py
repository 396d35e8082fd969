"""A sender as a switch is one: bursts of many flows, and a marker behind each, on one device."""

import ctypes
import os
import secrets
import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path

from flowferry.hsl import KeyFile
from flowferry.testbed import namespace
from flowferry.testbed.bare import Chain
from flowferry.wire import Command, KeyRing, Message, Sealer, Side

KEY_ID = 1
SIZE = 32  # bytes of payload
UDP_SEGMENT = 103
CONTROL = bytes.fromhex("821c")


def key_file(directory: Path) -> tuple[KeyFile, KeyRing]:
    """A fresh key of a deployment: as a file for agents, as a ring for the test."""
    secret = secrets.token_bytes(32)
    path = directory / "key"
    path.touch(mode=0o600)
    path.write_text(secret.hex())
    return KeyFile(KEY_ID, str(path)), KeyRing(KEY_ID, secret)


class _IoVec(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]


class _MsgHdr(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_void_p),
        ("namelen", ctypes.c_uint32),
        ("iov", ctypes.POINTER(_IoVec)),
        ("iovlen", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("controllen", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    ]


class _MMsgHdr(ctypes.Structure):
    _fields_ = [("header", _MsgHdr), ("length", ctypes.c_uint)]


def _steered_away(send: Callable[[], object], trials: int = 50) -> bool:
    """Whether packets go to another CPU: it is interrupted for each that comes alone.

    What else goes on on this machine interrupts as well, and is measured beside it.
    """
    extra = 0
    for _ in range(trials):
        for act, sign in ((send, 1), (lambda: None, -1)):
            before = _interrupts()
            act()
            time.sleep(0.0002)  # apart, so that each needs an interrupt of its own
            extra += sign * (_interrupts() - before)
    return extra > trials // 2


def _interrupts() -> int:
    """Interrupts for steered packets, all CPUs (`received_rps`, tenth word of softnet_stat)."""
    lines = Path("/proc/net/softnet_stat").read_text().splitlines()
    return sum(int(line.split()[9], 16) for line in lines)


class Bursts:
    """Sends bursts of UDP packets over many flows with one call, and markers behind them.

    Each flow's packets leave as one super-packet that the device, its segmentation offload being
    off, cuts on the spot: packets then come faster than any CPU handles them, as from a switch.

    With `apart`, the sender moves to the CPU that markers are steered to, and uses flows that are
    steered to another one: a marker is then handled while many older packets still wait.
    """

    def __init__(
        self,
        chain: Chain,
        keys: KeyRing,
        *,
        flows: int = 16,
        packets: int = 32,
        apart: bool = False,
    ) -> None:
        """Open a UDP and a packet socket in h1; flows differ in their destination port.

        packets   of each flow in a burst
        """
        self.sent = 0
        self._flows = flows
        self._burst = flows * packets
        chain.run("h1", ["ethtool", "-K", "eth0", "tx-udp-segmentation", "off"])
        self._sealer = Sealer(keys, sender=0, boot=time.time_ns())
        self._mac = bytes.fromhex(chain.hosts["h2"].mac.replace(":", ""))
        self._udp, self._packet = namespace.call(chain.namespaces["h1"], self._open)
        self._host = chain.hosts["h2"].ip4
        ports = self._apart(flows) if apart else range(7000, 7000 + flows)
        addresses = [
            struct.pack("=HH", socket.AF_INET, socket.htons(port))
            + socket.inet_aton(self._host)
            + bytes(8)
            for port in ports
        ]
        self._keep = [ctypes.create_string_buffer(address) for address in addresses]
        self._payload = ctypes.create_string_buffer(SIZE * packets)
        self._vec = _IoVec(ctypes.addressof(self._payload), SIZE * packets)
        segment = struct.pack("=QiiHxxxxxx", 18, socket.IPPROTO_UDP, UDP_SEGMENT, SIZE)
        self._segment = ctypes.create_string_buffer(segment, len(segment))
        self._messages = (_MMsgHdr * flows)()
        for at, message in enumerate(self._messages):
            message.header.name = ctypes.addressof(self._keep[at])
            message.header.namelen = 16
            message.header.iov = ctypes.pointer(self._vec)
            message.header.iovlen = 1
            message.header.control = ctypes.addressof(self._segment)
            message.header.controllen = len(segment)
        self._libc = ctypes.CDLL(None, use_errno=True)

    def _apart(self, flows: int) -> list[int]:
        """Move to the CPU of markers; the ports of flows that are steered away from it."""
        for cpu in range(os.cpu_count() or 1):
            os.sched_setaffinity(0, {cpu})
            if not _steered_away(lambda: self.raw(bytes(12) + CONTROL + bytes(46))):
                break
        found: list[int] = []
        for port in range(7000, 9000):
            if _steered_away(lambda port=port: self._udp.sendto(b"", (self._host, port))):  # type: ignore[misc]
                found.append(port)
            if len(found) == flows:
                return found
        raise AssertionError("no flows are steered away; is steering on, with two CPUs?")

    @staticmethod
    def _open() -> tuple[socket.socket, socket.socket]:
        packet = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        packet.bind(("eth0", 0))
        return socket.socket(socket.AF_INET, socket.SOCK_DGRAM), packet

    def burst(self) -> None:
        """Send one burst; returns when the device has taken all of it."""
        done = 0
        while done < self._flows:
            at = ctypes.byref(self._messages, done * ctypes.sizeof(_MMsgHdr))
            sent = self._libc.sendmmsg(self._udp.fileno(), at, self._flows - done, 0)
            if sent < 0:
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
            done += sent
        self.sent += self._burst

    def burst_and_marker(self, number: int) -> None:
        """Send one burst and, with nothing in between, a marker."""
        frame = self.seal(number)
        self.burst()
        self.raw(frame)

    def marker(self, number: int, *, to: int = 1) -> bytes:
        """Send a marker for instance `to`; the frame, for sending it again."""
        frame = self.seal(number, to=to)
        self.raw(frame)
        return frame

    def seal(self, number: int, *, to: int = 1) -> bytes:
        """A marker for instance `to`, to be sent once."""
        message = Message(
            command=Command.MARKER, to=to, handover=number, side=Side.UPSTREAM, round=1
        )
        frame, _ = self._sealer.seal(message, destination=self._mac, source=bytes(6))
        return frame

    def raw(self, frame: bytes) -> None:
        """Send any frame."""
        self._packet.send(frame)

    def close(self) -> None:
        """Close the sockets."""
        self._udp.close()
        self._packet.close()
