"""Whatever bytes a switch sends: its connection ends with a reason, and nobody else's does."""

import asyncio
import logging
import socket
import struct
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowferry.controller.openflow import codec
from flowferry.controller.openflow.channel import Channel
from flowferry.controller.openflow.listener import Listener

DEADLINE = 20.0


def message(kind: int, body: bytes = b"", xid: int = 1) -> bytes:
    return struct.pack("!BBHI", codec.VERSION, kind, 8 + len(body), xid) + body


def packet_in(port: int = 3) -> bytes:
    match = struct.pack("!HHHBBI", 1, 12, 0x8000, 0, 4, port) + bytes(4)
    head = struct.pack("!IHBBQ", 0xFFFFFFFF, 60, 0, 0, 0)
    return message(10, head + match + bytes(2) + bytes(60))


def features(dpid: int) -> bytes:
    return message(6, struct.pack("!QIBB2xII", dpid, 0, 254, 0, 0, 0))


#: What a switch says, as the handshake and the time after it want it.
GREETING = [codec.hello(1), features(1)]
TALK = [
    packet_in(),
    message(2, b"are you there"),
    message(1, struct.pack("!HH", 5, 1)),
    message(19, struct.pack("!HH4x", 1, 1)),
    message(21),
    message(12, bytes(8)),
]


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    """Messages that a switch may send, some of them spoiled; and sometimes mere noise."""
    parts: Sequence[bytes] = [*GREETING, *draw(st.lists(st.sampled_from(TALK), max_size=5))]
    data = bytearray(b"".join(parts) if draw(st.integers(0, 9)) else b"")
    for _ in range(draw(st.integers(0, 4)) if data else 0):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    at = draw(st.integers(0, len(data)))
    return bytes(data[:at] + draw(st.binary(max_size=40)) + data[at:])


class Site:
    """A listener, and who has been heard by it."""

    def __init__(self) -> None:
        self.packets = 0
        self.gone: list[str] = []
        self.listener = Listener(
            on_up=self._up, on_down=self._down, on_packet=self._packet, timeout=0.5
        )

    async def _up(self, channel: Channel) -> None:
        await asyncio.sleep(0)

    def _down(self, channel: Channel, why: str) -> None:
        self.gone.append(why)

    def _packet(self, channel: Channel, packet: object) -> None:
        self.packets += 1


async def connect(sock: socket.socket) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, port = sock.getsockname()
    return await asyncio.open_connection(host, port)


async def hear_the_end(reader: asyncio.StreamReader) -> None:
    async with asyncio.timeout(DEADLINE):
        try:
            while await reader.read(65536):
                pass
        except ConnectionError:
            return


async def play(data: bytes) -> tuple[Site, int]:
    """One good switch is there all the time; the other one sends `data` and hangs up."""
    site = Site()
    with socket.create_server(("127.0.0.1", 0)) as sock:
        await site.listener.start(sock)
        good_reader, good = await connect(sock)
        good.write(codec.hello(1) + features(7))
        reader, writer = await connect(sock)
        writer.write(data)
        writer.write_eof()
        await hear_the_end(reader)
        before = site.packets
        good.write(packet_in())
        async with asyncio.timeout(DEADLINE):
            while site.packets == before:
                await asyncio.sleep(0.001)
        there = set(site.listener.channels) >= {7}
        malformed = site.listener.malformed
        assert there
        assert not good_reader.at_eof()
        writer.close()
        good.close()
        await site.listener.stop()
    return site, malformed


@pytest.fixture(scope="module", autouse=True)
def _silent() -> Iterator[None]:
    logging.getLogger("flowferry.controller.openflow").setLevel(logging.CRITICAL)
    yield
    logging.getLogger("flowferry.controller.openflow").setLevel(logging.NOTSET)


@settings(max_examples=150, deadline=None)
@given(streams())
def test_any_bytes_end_at_most_their_own_connection(data: bytes) -> None:
    site, _ = asyncio.run(play(data))
    assert all(why and "\n" not in why for why in site.gone)


@pytest.mark.parametrize(
    ("said", "broken"),
    [
        (b"".join([*GREETING, *TALK]), 0),
        (b"".join(GREETING) + struct.pack("!BBHI", 4, 10, 7, 1), 1),
        (b"".join(GREETING) + message(10, bytes(3)), 1),
        (b"".join(GREETING) + message(19, struct.pack("!HH4x", 1, 0) + bytes(5)), 1),
        (b"".join(GREETING) + b"\x01" + packet_in()[1:], 1),
        (struct.pack("!BBHI", 4, 0, 3, 1), 1),
        (b"GET / HTTP/1.1\r\n" + bytes(30_000), 1),
    ],
    ids=["well", "short", "cut", "entries", "version", "hello", "http"],
)
def test_what_is_no_openflow_is_counted(said: bytes, broken: int) -> None:
    site, malformed = asyncio.run(play(said))
    assert malformed == broken
    if broken and said.startswith(GREETING[0]):
        assert any(why.startswith("not understood: ") for why in site.gone), site.gone
