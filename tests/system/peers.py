"""The other end of an agent's stream of strays (crates/hsl/src/agent/strays), for tests."""

import contextlib
import secrets
import select
import socket
import struct
import threading
import time
from typing import BinaryIO

from numbered import NUMBER, PORT

from flowferry.testbed import namespace
from flowferry.testbed.bare import Chain
from flowferry.wire import Command, KeyRing, Message, Opener, Sealer

GREETING = struct.Struct("!HIQ")
VERSION = 3
VNET = 10
HEADERS = VNET + 14 + 20 + 8
OWN = 9


def whole(records: BinaryIO, length: int) -> bytes:
    """So many bytes. Raises `ConnectionAbortedError` when the stream ends within them."""
    read = records.read(length)
    if len(read) < length:
        raise ConnectionAbortedError(f"{len(read)} of {length} bytes")
    return read


class Taker:
    """Takes strays: greets, checks the proof, and notes the numbers of the datagrams in them.

    A sender that dies resets its streams, or ends them within a record: `broken` tells which did,
    and why. What came whole before is taken, although the sender may not have heard so.
    """

    def __init__(self, chain: Chain, keys: KeyRing, *, late: bool = False) -> None:
        """Listen on a free port of the instance's loopback device.

        A `late` one takes nothing before the sender has said that it will send no more.
        """
        self.numbers: dict[int, list[int]] = {}
        self.broken: list[ConnectionError] = []
        self._late = late
        self._keys = keys
        self._listener = namespace.call(chain.namespaces["nf"], self._listen)
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    @staticmethod
    def _listen() -> socket.socket:
        return socket.create_server(("127.0.0.1", 0))

    @property
    def total(self) -> int:
        """Datagrams taken."""
        return sum(map(len, self.numbers.values()))

    def _accept(self) -> None:
        while True:
            try:
                stream, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(stream,), daemon=True).start()

    def _serve(self, stream: socket.socket) -> None:
        try:
            with stream, stream.makefile("rb") as records:
                self._take(stream, records)
        except ConnectionError as error:
            self.broken.append(error)

    def _take(self, stream: socket.socket, records: BinaryIO) -> None:
        number = secrets.randbits(64)
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # as agents do
        stream.sendall(GREETING.pack(VERSION, OWN, number))
        (length,) = struct.unpack("!H", whole(records, 2))
        proof = Opener(self._keys, own=OWN).open_payload(whole(records, length))
        assert proof.handover == number
        taken = 0
        if self._late:
            ended = select.poll()
            ended.register(stream, select.POLLRDHUP)
            ended.poll()
        while first := records.read(1):
            length, _side = struct.unpack("!IB", first + whole(records, 4))
            frame = whole(records, length - 1)
            flow, datagram = NUMBER.unpack_from(frame, HEADERS)
            self.numbers.setdefault(flow, []).append(datagram)
            taken += 1
            stream.sendall(struct.pack("!Q", taken))

    def close(self) -> None:
        """Take in nobody any more."""
        self._listener.close()


class Follower:
    """Sends an agent packets that strayed at another instance."""

    def __init__(self, chain: Chain, keys: KeyRing, port: int, *, sender: int = OWN) -> None:
        """Connect to the agent's `strays_listen` port on the instance's loopback device."""
        self._macs = [
            bytes.fromhex(chain.hosts[name].mac.replace(":", "")) for name in ("h2", "h1")
        ]
        self._addresses = [socket.inet_aton(chain.hosts[name].ip4) for name in ("h1", "h2")]
        self.sent = 0
        self._answers = b""
        self._stream = namespace.call(
            chain.namespaces["nf"], lambda: socket.create_connection(("127.0.0.1", port))
        )
        _version, own, number = GREETING.unpack(
            self._stream.recv(GREETING.size, socket.MSG_WAITALL)
        )
        sealer = Sealer(keys, sender=sender, boot=time.time_ns())
        proof, _ = sealer.seal_payload(Message(command=Command.QUERY, to=own, handover=number))
        self._stream.sendall(struct.pack("!H", len(proof)) + proof)

    def send(self, flow: int, numbers: range) -> None:
        """Send numbered datagrams of a flow, upstream, all at once."""
        self._stream.sendall(b"".join(self._record(flow, number) for number in numbers))
        self.sent += len(numbers)

    def acknowledged(self) -> int:
        """How many of them the agent has taken, by its own word."""
        self._stream.setblocking(False)
        with contextlib.suppress(BlockingIOError, ConnectionResetError):
            while answer := self._stream.recv(4096):
                self._answers += answer
        whole = len(self._answers) // 8 * 8
        return int.from_bytes(self._answers[whole - 8 : whole]) if whole else 0

    def _record(self, flow: int, number: int) -> bytes:
        payload = NUMBER.pack(flow, number)
        udp = struct.pack("!HHHH", 6000 + flow, PORT, 8 + len(payload), 0) + payload
        head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0)
        head += b"".join(self._addresses)
        check = sum(struct.unpack("!10H", head))
        check = ~((check & 0xFFFF) + (check >> 16)) & 0xFFFF
        head = head[:10] + struct.pack("!H", check) + head[12:]
        frame = bytes(VNET) + b"".join(self._macs) + b"\x08\x00" + head + udp
        return struct.pack("!IB", len(frame) + 1, 0) + frame

    def close(self) -> None:
        """Close the stream."""
        self._stream.close()
