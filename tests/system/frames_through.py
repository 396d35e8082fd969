"""Any frame from one host, and what of it arrives at another, byte for byte with its VLAN tags.

The frames have MAC addresses of their own, which no stack answers, so that what else the hosts say
(neighbour discovery, multicast reports) is told from them.
"""

import itertools
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Self

from numbered import until

from flowferry.testbed import namespace
from flowferry.testbed.bare import Chain

MACS = bytes.fromhex("0200 00ff 0002 0200 00ff 0001")  # destination, source
MACS_BACK = MACS[6:] + MACS[:6]
OURS = (MACS[6:], MACS[:6])
ETH_P_ALL = 3
SO_RCVBUFFORCE = 33
SOL_PACKET, PACKET_AUXDATA, PACKET_IGNORE_OUTGOING = 263, 8, 23
TP_STATUS_VLAN_VALID = 0x10
ADDRESSES4 = bytes([10, 9, 0, 1, 10, 9, 0, 2])
ADDRESSES6 = bytes.fromhex("fd09" + "00" * 13 + "01" + "fd09" + "00" * 13 + "02")
UDP, TCP, SCTP, ICMP, ICMP6, GRE, UDP_LITE = 17, 6, 132, 1, 58, 47, 136

Build = Callable[[int], bytes]


def checksum(data: bytes) -> int:
    """RFC 1071."""
    total: int = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + bytes(len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return 0xFFFF - total


def ip4(protocol: int, body: bytes, *, identity: int = 0, fragment: int = 0) -> bytes:
    """An IPv4 frame with tags and MAC addresses to come. `fragment`: flags and offset."""
    length = 20 + len(body)
    head = struct.pack("!BBHHHBBH", 0x45, 0, length, identity, fragment, 64, protocol, 0)
    head += ADDRESSES4
    return b"\x08\x00" + head[:10] + struct.pack("!H", checksum(head)) + head[12:] + body


def ip6(protocol: int, body: bytes) -> bytes:
    """An IPv6 frame, as `ip4`."""
    return b"\x86\xdd" + struct.pack("!IHBB", 6 << 28, len(body), protocol, 64) + ADDRESSES6 + body


def transport(protocol: int, body: bytes, at: int, addresses: bytes = ADDRESSES4) -> bytes:
    """`body` with its checksum at offset `at`, pseudo header included (RFC 768, 8200 §8.1)."""
    found = checksum(addresses + struct.pack("!II", len(body), protocol) + body)
    return body[:at] + struct.pack("!H", found) + body[at + 2 :]


def udp(number: int, port: int = 7001, size: int = 40, addresses: bytes = ADDRESSES4) -> bytes:
    """A numbered datagram to a port, `size` bytes with its header."""
    body = struct.pack("!HHHHI", 6001, port, size, 0, number).ljust(size, b"u")
    return transport(UDP, body, 6, addresses)


def summed(body: bytes, instead: bytes) -> bytes:
    """A datagram with another checksum."""
    return body[:6] + instead + body[8:]


def tcp(number: int) -> bytes:
    """A segment with options: a SYN first, then data with a time stamp and two SACK blocks."""
    if number == 0:
        options = bytes.fromhex("020405b4 0402 080a00000001 00000000 01 030307")
        flags, data = 2, b""
    else:
        options = bytes.fromhex("0101 080a00000002 00000001 0101 0512") + bytes(range(16))
        flags, data = 0x18, b"t" * 100
    offset = (20 + len(options)) // 4 << 4
    head = struct.pack("!HHIIBBHHH", 6001, 80, number, 0, offset, flags, 512, 0, 0)
    return transport(TCP, head + options + data, 16)


def sctp(number: int) -> bytes:
    """One DATA chunk (RFC 9260 §3.3.1); the CRC is left for nobody to check."""
    chunk = struct.pack("!BBHIHHI", 0, 3, 20, number, 1, number, 0) + b"data"
    return struct.pack("!HHII", 6001, 7001, 1, 0) + chunk


def icmp(number: int) -> bytes:
    """An echo request."""
    return transport_free(struct.pack("!BBHHH", 8, 0, 0, 1, number) + b"i" * 56)


def icmp6(number: int) -> bytes:
    """An echo request over IPv6."""
    body = struct.pack("!BBHHH", 128, 0, 0, 1, number) + b"6" * 56
    return ip6(ICMP6, transport(ICMP6, body, 2, ADDRESSES6))


def transport_free(body: bytes) -> bytes:
    """An ICMP message with its checksum, which knows no pseudo header."""
    return body[:2] + struct.pack("!H", checksum(body)) + body[4:]


def arp(number: int) -> bytes:
    """A request, padded to 60 bytes as a card pads it."""
    asked = MACS[6:] + ADDRESSES4[:4] + bytes(6) + bytes([10, 9, 1, number])
    return (b"\x08\x06" + struct.pack("!HHBBH", 1, 0x800, 6, 4, 1) + asked).ljust(48, b"\0")


def fragment4(number: int) -> bytes:
    """First, middle and last fragment in turn, of one datagram after the other."""
    datagram, part = divmod(number, 3)
    whole = udp(datagram, size=400)
    piece = whole[part * 160 : (part + 1) * 160]
    more = 0x2000 if part < 2 else 0
    return ip4(UDP, piece, identity=1000 + datagram, fragment=more | part * 20)


def fragment6(number: int) -> bytes:
    """As `fragment4`, with the fragment header of RFC 8200 §4.5."""
    datagram, part = divmod(number, 3)
    whole = udp(datagram, size=400, addresses=ADDRESSES6)
    piece = whole[part * 160 : (part + 1) * 160]
    offset = part * 160 | (1 if part < 2 else 0)
    return ip6(44, struct.pack("!BBHI", UDP, 0, offset, 1000 + datagram) + piece)


def extended(number: int) -> bytes:
    """A datagram behind hop-by-hop options, a routing header and destination options."""
    padding = bytes([1, 4, 0, 0, 0, 0])
    hops = bytes([43, 0]) + padding
    routing = bytes([60, 0, 4, 0, 0, 0, 0, 0])
    destination = bytes([UDP, 0]) + padding
    return ip6(0, hops + routing + destination + udp(number, addresses=ADDRESSES6))


def tagged(tags: str, body: Build) -> Build:
    """The same with VLAN tags in front, in hexadecimal digits."""
    return lambda number: bytes.fromhex(tags) + body(number)


def datagram(number: int) -> bytes:
    """A datagram over IPv4."""
    return ip4(UDP, udp(number))


def datagram6(number: int) -> bytes:
    """A datagram over IPv6."""
    return ip6(UDP, udp(number, addresses=ADDRESSES6))


def padded(length: int) -> Build:
    """A non-IP frame of exactly `length` bytes."""
    return lambda number: (b"\x88\xb6" + struct.pack("!H", number)).ljust(length - 12, b"p")


def kinds(mtu: int) -> dict[str, Build]:
    """What must be carried, by name: the n-th frame of that flow, from the EtherType on.

    A name is a flow, or less than one; so the order within a name must be kept.
    """
    return {
        "udp": datagram,
        "udp without a checksum": lambda n: ip4(UDP, summed(udp(n, 7011), b"\0\0")),
        "udp with a wrong checksum": lambda n: ip4(UDP, summed(udp(n, 7012), b"\x12\x34")),
        "udp over ipv6": datagram6,
        "tcp with options": lambda n: ip4(TCP, tcp(n)),
        "sctp": lambda n: ip4(SCTP, sctp(n)),
        "udp-lite": lambda n: ip4(UDP_LITE, udp(n)),
        "icmp": lambda n: ip4(ICMP, icmp(n)),
        "icmpv6": icmp6,
        "gre": lambda n: ip4(GRE, struct.pack("!HHI", 0, 0x6558, n) + b"g" * 30),
        "ipv4 fragments": fragment4,
        "ipv6 fragments": fragment6,
        "ipv6 extension headers": extended,
        "ipv4, broken": lambda n: b"\x08\x00" + struct.pack("!BBHI", 0x42, 0, 9000, n) + b"b" * 40,
        "802.1Q": tagged("8100 a00a", datagram),
        "802.1Q, another": tagged("8100 000b", datagram),
        "802.1Q, ipv6": tagged("8100 000a", datagram6),
        "priority only": tagged("8100 e000", datagram),
        "802.1ad and 802.1Q": tagged("88a8 0014 8100 200a", datagram),
        "802.1Q twice": tagged("8100 0014 8100 000a", datagram),
        "802.1ad": tagged("88a8 0014", datagram),
        "three tags": tagged("88a8 0014 8100 000a 8100 000b", datagram),
        "802.1Q, not ip": tagged("8100 000a", padded(60)),
        "experimental ethertype": lambda n: b"\x88\xb5" + struct.pack("!H", n) + b"x" * 44,
        "arp": arp,
        "length for an ethertype": lambda n: struct.pack("!HBBH", 43, 0xAA, 0xAA, n) + b"l" * 39,
        "header only": lambda _: b"\x9a\x00",
        "16 bytes": padded(16),
        "60 bytes": tagged("88b7", padded(58)),
        "the mtu": lambda n: ip4(UDP, udp(n, 7013, mtu - 20)),
        "the mtu, tagged": tagged("8100 000a", lambda n: ip4(UDP, udp(n, 7013, mtu - 20))),
        "the mtu, ipv6": lambda n: ip6(UDP, udp(n, 7013, mtu - 40, ADDRESSES6)),
        "the mtu, not ip": tagged("88b8", padded(mtu + 12)),
    }  # fmt: skip


class Source:
    """A packet socket that sends; remembers what, in order, and which flow it was."""

    def __init__(self, chain: Chain, role: str = "h1") -> None:
        """Open it on a host's device."""
        self.sent: list[bytes] = []
        self.flow_of: dict[bytes, str] = {}
        self._macs = MACS if role == "h1" else MACS_BACK
        self._dev = chain.hosts[role].dev
        self._socket = namespace.call(chain.namespaces[role], self._open)

    def _open(self) -> socket.socket:
        one = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        one.bind((self._dev, 0))
        return one

    def send(self, flow: str, body: bytes) -> None:
        """Send one frame of a flow, given from the EtherType on."""
        frame = self._macs + body
        self.flow_of[frame] = flow
        self.sent.append(frame)
        self._socket.send(frame)

    def send_some(self, flow: str, build: Build, numbers: Sequence[int]) -> None:
        """Send numbered frames of a flow."""
        for number in numbers:
            self.send(flow, build(number))

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


class Tap:
    """What of our frames arrives at a device, in order."""

    def __init__(self, chain: Chain, role: str = "h2", dev: str = "eth0") -> None:
        """Listen from now on, in the background."""
        self.frames: list[bytes] = []
        self._dev = dev
        self._socket = namespace.call(chain.namespaces[role], self._open)
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _open(self) -> socket.socket:
        one = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        one.settimeout(0.05)
        one.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 64 << 20)
        one.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
        one.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
        one.bind((self._dev, ETH_P_ALL))
        return one

    def _listen(self) -> None:
        while not self._ends.is_set():
            try:
                frame, extra, _, _ = self._socket.recvmsg(1 << 16, socket.CMSG_SPACE(20))
            except TimeoutError:
                continue
            if frame[6:12] in OURS:
                self.frames.append(frame[:12] + b"".join(_tags(extra)) + frame[12:])

    def total(self) -> int:
        """Frames so far."""
        return len(self.frames)

    def drained(self) -> None:
        """Return when two reads in a row found nothing: for what should not arrive."""
        seen = -1
        while seen != len(self.frames):
            seen = len(self.frames)
            time.sleep(0.06)

    def got(self, source: Source, flows: Sequence[str] | None = None) -> None:
        """Wait for all that was sent (of some flows only); then: the same, in order, once."""
        due = [f for f in source.sent if flows is None or source.flow_of[f] in flows]
        until(
            lambda: len(self.frames) >= len(due),
            lambda: f"{len(due)} due, {len(self.frames)} arrived; missing: {missing(source, self)}",
            timeout=5.0,
        )
        self.drained()
        assert Counter(self.frames) == Counter(due), difference(due, self.frames, source)
        for flow in set(map(source.flow_of.__getitem__, due)):
            ours = [frame for frame in due if source.flow_of[frame] == flow]
            there = [frame for frame in self.frames if source.flow_of[frame] == flow]
            assert ours == there, f"{flow}: {[ours.index(frame) for frame in there]}"

    def close(self) -> None:
        """Stop listening."""
        self._ends.set()
        self._thread.join()
        self._socket.close()


def _tags(extra: Sequence[tuple[int, int, bytes]]) -> Iterator[bytes]:
    for level, kind, data in extra:
        status, *_, tci, tpid = struct.unpack("IIIHHHH", data[:20])
        if (level, kind) == (SOL_PACKET, PACKET_AUXDATA) and status & TP_STATUS_VLAN_VALID:
            yield struct.pack("!HH", tpid, tci)


def missing(source: Source, tap: Tap) -> dict[str, int]:
    """How many frames have not arrived, by flow."""
    left = Counter(source.sent) - Counter(tap.frames)
    return dict(Counter(source.flow_of[frame] for frame in left.elements()))


def difference(due: Sequence[bytes], there: Sequence[bytes], source: Source) -> str:
    """What is missing, doubled or changed, for people."""
    lines = []
    for frame in (Counter(due) - Counter(there)).elements():
        lines.append(f"missing  {source.flow_of[frame]}: {frame[:80].hex()} ({len(frame)})")
    for frame in (Counter(there) - Counter(due)).elements():
        flow = source.flow_of.get(frame, "nobody's")
        lines.append(f"too many {flow}: {frame[:80].hex()} ({len(frame)})")
    return "\n".join(itertools.islice(lines, 20))


class Through:
    """A source at one host and a tap at the other; a context manager."""

    def __init__(self, chain: Chain, one: str = "h1", other: str = "h2") -> None:
        """Open both."""
        self.tap = Tap(chain, other)
        self.source = Source(chain, one)

    def send(self, flow: str, build: Build, numbers: Sequence[int]) -> None:
        """Send numbered frames of a flow."""
        self.source.send_some(flow, build, numbers)

    def got(self, *flows: str) -> None:
        """All that was sent (of these flows only, if some are named) has arrived as it should."""
        self.tap.got(self.source, flows or None)

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close both."""
        self.tap.close()
        self.source.close()
