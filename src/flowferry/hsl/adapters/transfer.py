"""State on its way from one adapter to another: authenticated, paced, staged until it is wanted.

    taker   "FFST" version(1)  nonce(16)
    sender  key id(2)  handover(8)  sender's nonce(16)  tag(16)
    sender  length(4)  bytes  tag(16)          … again and again; length 0 is the end
    taker   bytes taken(8)  tag(16)

Numbers are big-endian. A tag is HMAC-SHA-256, cut to 16 bytes, over both nonces, a counter of
tags and what it follows, so that nothing can be forged, replayed, left out or put in (RFC 2104).
It may go over TLS, where the certificates tell the instances apart; without, it is not encrypted
and belongs on a management network.
"""

import asyncio
import hashlib
import hmac
import secrets
import ssl
import struct
from collections.abc import AsyncIterator, Mapping
from typing import IO

MAGIC = b"FFST"
VERSION = 1
NONCE = TAG = 16
#: Most bytes of one chunk.
CHUNK = 256 << 10
HEADER = struct.Struct(">HQ16s")
LENGTH = struct.Struct(">I")
TAKEN = struct.Struct(">Q")
#: Seconds that the other end may be silent.
PATIENCE = 10.0
#: Seconds for the handshakes of TLS.
HANDSHAKE = 3.0
SAME = "give both adapters --tls-ca, --tls-certificate and --tls-key, or neither"


class TransferError(Exception):
    """State did not get to the other instance; one line that says why and what to do."""


class Tags:
    """The tags of one transfer, in order. Both ends count alike."""

    def __init__(self, secret: bytes, taker_nonce: bytes, sender_nonce: bytes) -> None:
        """`secret`: the deployment's key."""
        self._secret = secret
        self._prefix = MAGIC + taker_nonce + sender_nonce
        self._count = 0

    def next(self, content: bytes) -> bytes:
        """The tag behind `content`."""
        count = self._count.to_bytes(8, "big")
        self._count += 1
        return hmac.new(self._secret, self._prefix + count + content, hashlib.sha256).digest()[:TAG]

    def check(self, content: bytes, tag: bytes) -> None:
        """Raises `TransferError` if `tag` is not the one behind `content`."""
        if not hmac.compare_digest(self.next(content), tag):
            raise TransferError("a tag is wrong: give both adapters the same key file")


class Pace:
    """How long to wait so that a set rate is kept; the time is an argument, in seconds."""

    def __init__(self, bytes_per_second: float | None, now: float) -> None:
        """None: no limit."""
        self._rate = bytes_per_second
        self._due = now

    def after(self, size: int, now: float) -> float:
        """Seconds to wait before the next chunk, once `size` bytes have gone.

        >>> pace = Pace(1000.0, now=0.0)
        >>> pace.after(500, now=0.0), pace.after(500, now=0.25)
        (0.5, 0.75)
        """
        if self._rate is None:
            return 0.0
        self._due = max(self._due, now - 0.01) + size / self._rate
        return max(0.0, self._due - now)


async def send(
    host: str,
    port: int,
    handover: int,
    state: AsyncIterator[bytes],
    *,
    key: tuple[int, bytes],
    bytes_per_second: float | None = None,
    tls: tuple[ssl.SSLContext, str] | None = None,
) -> int:
    """Send the state of a handover to the adapter at `host`; the number of bytes it has taken.

    `key` is a key's number and secret; `tls` is how to encrypt, and the name that the other end's
    certificate has to stand for. Raises `TransferError`.
    """
    try:
        async with asyncio.timeout(PATIENCE):
            reader, writer = await asyncio.open_connection(host, port)
            if tls is not None:
                context, name = tls
                await writer.start_tls(
                    context, server_hostname=name, ssl_handshake_timeout=HANDSHAKE
                )
    except (ssl.SSLError, ConnectionError) as error:
        if tls is None or isinstance(error, ConnectionRefusedError):
            raise _nobody(host, port, error) from None
        raise TransferError(
            f"the adapter on {host}:{port} cannot be talked to by TLS ({error}); {SAME}"
        ) from None
    except (OSError, TimeoutError) as error:
        raise _nobody(host, port, error) from None
    try:
        return await _send(reader, writer, handover, state, key, bytes_per_second)
    except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
        what = "closed the connection" if isinstance(error, asyncio.IncompleteReadError) else error
        raise TransferError(
            f"the adapter on {host}:{port} did not take the state ({what or 'too late'}); "
            "see what it says there"
        ) from None
    finally:
        writer.close()


def _nobody(host: str, port: int, error: Exception) -> TransferError:
    return TransferError(
        f"no adapter answers on {host}:{port} ({error or 'too late'}); start it there"
    )


def _is_encrypted(writer: asyncio.StreamWriter) -> bool:
    return writer.get_extra_info("ssl_object") is not None


async def _send(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    handover: int,
    state: AsyncIterator[bytes],
    key: tuple[int, bytes],
    bytes_per_second: float | None,
) -> int:
    clock = asyncio.get_running_loop().time
    try:
        async with asyncio.timeout(PATIENCE):
            greeting = await reader.readexactly(len(MAGIC) + 1 + NONCE)
    except (OSError, TimeoutError, asyncio.IncompleteReadError):
        # asyncio closes such a connection without the alert that would say more.
        what = "does not believe our certificate" if _is_encrypted(writer) else f"wants TLS; {SAME}"
        raise TransferError(
            f"the other end did not greet; see what it says there, perhaps that it {what}"
        ) from None
    if greeting[:5] != MAGIC + bytes([VERSION]):
        raise TransferError("the other end is no adapter of this version; update both")
    own = secrets.token_bytes(NONCE)
    tags = Tags(key[1], greeting[5:], own)
    header = HEADER.pack(key[0], handover, own)
    writer.write(header + tags.next(header))
    pace = Pace(bytes_per_second, clock())
    async for block in state:
        for at in range(0, len(block), CHUNK):
            chunk = block[at : at + CHUNK]
            writer.write(LENGTH.pack(len(chunk)) + chunk + tags.next(chunk))
            async with asyncio.timeout(PATIENCE):
                await writer.drain()
            wait = pace.after(len(chunk), clock())
            if wait:
                await asyncio.sleep(wait)  # the rate that the operator has set
    writer.write(LENGTH.pack(0) + tags.next(b""))
    async with asyncio.timeout(PATIENCE):
        await writer.drain()
        answer = await reader.readexactly(TAKEN.size + TAG)
    tags.check(answer[: TAKEN.size], answer[TAKEN.size :])
    return int(TAKEN.unpack(answer[: TAKEN.size])[0])


class Incoming:
    """The taking end of one connection: first `greet`, then `take`, at last `confirm`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """For an accepted connection."""
        self._reader = reader
        self._writer = writer
        self._tags: Tags | None = None

    async def greet(self, keys: Mapping[int, bytes]) -> int:
        """Greet; the handover that state is offered for. Raises `TransferError`, `OSError`."""
        nonce = secrets.token_bytes(NONCE)
        self._writer.write(MAGIC + bytes([VERSION]) + nonce)
        async with asyncio.timeout(PATIENCE):
            header = await self._reader.readexactly(HEADER.size)
            tag = await self._reader.readexactly(TAG)
        number, handover, other = HEADER.unpack(header)
        if number not in keys:
            raise TransferError(f"key {number} is not known here; give both adapters the same keys")
        self._tags = Tags(keys[number], nonce, other)
        self._tags.check(header, tag)
        return int(handover)

    async def take(self, into: IO[bytes], most: int) -> int:
        """Write the state to `into`; its length. More than `most` bytes raise `TransferError`."""
        assert self._tags is not None
        total = 0
        while True:
            async with asyncio.timeout(PATIENCE):
                (length,) = LENGTH.unpack(await self._reader.readexactly(LENGTH.size))
                if length > CHUNK:
                    raise TransferError(f"a chunk of {length} bytes is too long")
                chunk = await self._reader.readexactly(length)
                self._tags.check(chunk, await self._reader.readexactly(TAG))
            if not chunk:
                return total
            total += length
            if total > most:
                raise TransferError(f"the state has more than {most} bytes; raise --most-bytes")
            into.write(chunk)

    async def confirm(self, total: int) -> None:
        """Say that all `total` bytes are staged."""
        assert self._tags is not None
        answer = TAKEN.pack(total)
        self._writer.write(answer + self._tags.next(answer))
        async with asyncio.timeout(PATIENCE):
            await self._writer.drain()
