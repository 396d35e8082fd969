"""The channel to one switch: handshake, requests and their answers, echoes (specification §6).

A request is known by its transaction id; the answer or the error with that id ends it. Entries
change in a bundle, all or none, where the switch knows bundles (ONF extension 230), and otherwise
step by step, with barriers between. That a change was accepted says nothing about when packets
follow it: see docs/controller.md.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress

from flowferry.controller.openflow import codec
from flowferry.controller.openflow.codec import (
    Change,
    EntryStats,
    Error,
    OpenFlowError,
    PacketIn,
    Received,
)

LOG = logging.getLogger(__name__)


class SwitchError(Exception):
    """A switch refused something, or went away; one line."""


class Channel:
    """An open connection whose other end has said who it is."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        on_packet: Callable[[Channel, PacketIn], None],
        echo_interval: float,
        timeout: float,
    ) -> None:
        """`echo_interval`, `timeout`: seconds; silent for longer than both, the switch is gone."""
        self._reader, self._writer = reader, writer
        self._on_packet = on_packet
        self._echo_interval, self._timeout = echo_interval, timeout
        self._xid = 0
        #: Requests under way.
        self._waiting: dict[int, asyncio.Future[list[Received]]] = {}
        self._parts: dict[int, list[Received]] = {}
        #: Errors by the request that caused them, for requests that have no answer of their own.
        self._refused: dict[int, Error] = {}
        self._bundles = True
        self.dpid = 0
        self.address = _peer(writer)
        # asyncio does so itself only for sockets that were made with the protocol named.
        sock = writer.get_extra_info("socket")
        if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        #: It ended because the other end said something that is no OpenFlow.
        self.malformed = False
        self.packets_in = 0
        self.packets_out = 0
        self.errors = 0

    # -- life ----------------------------------------------------------------------------------

    async def handshake(self) -> None:
        """Agree on version 1.3 and learn who the switch is. Raises `SwitchError`."""
        try:
            async with asyncio.timeout(self._timeout):
                self._send(codec.hello(self._next()))
                first = await self._read()
                if not isinstance(first, codec.Hello) or not first.speaks(codec.VERSION):
                    self._send(_incompatible(first.xid))
                    raise SwitchError(
                        f"{self.address} does not speak OpenFlow 1.3; allow it there, for Open "
                        "vSwitch: ovs-vsctl set Bridge NAME protocols=OpenFlow13"
                    )
                self._send(codec.message(codec.FEATURES_REQUEST, self._next()))
                while not isinstance(found := await self._read(), codec.Features):
                    self._take(found)
                self.dpid = found.dpid
                self._send(codec.set_config(self._next()))
        except TimeoutError:
            raise SwitchError(f"{self.address} did not finish the OpenFlow handshake") from None
        except (OSError, EOFError, OpenFlowError) as error:
            self.malformed = isinstance(error, OpenFlowError)
            raise SwitchError(f"{self.address} broke off the OpenFlow handshake: {error}") from None

    async def serve(self) -> str:
        """Read until the connection ends; says why it did."""
        why = "closed"
        echo = asyncio.create_task(self._echo())
        try:
            while True:
                self._take(await self._read())
        except EOFError:
            why = "the switch closed the connection"
        except OSError as error:
            why = f"connection lost: {error.strerror or error}"
        except OpenFlowError as error:
            self.malformed = True
            why = f"not understood: {error}"
        finally:
            echo.cancel()
            self.close(why)
        return why

    def close(self, why: str = "closed") -> None:
        """End the connection; requests under way fail."""
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(SwitchError(f"switch {self.dpid:#x} is gone: {why}"))
                waiting.exception()  # seen, even if nobody waits any more
        self._waiting.clear()
        with suppress(OSError, RuntimeError):
            self._writer.close()

    async def _echo(self) -> None:
        while True:
            await asyncio.sleep(self._echo_interval)
            try:
                await self._ask(codec.message(codec.ECHO_REQUEST, xid := self._next()), xid)
            except SwitchError:
                self._writer.transport.abort()
                return

    async def _read(self) -> Received:
        head = await self._reader.readexactly(codec.HEADER.size)
        body = await self._reader.readexactly(codec.frame_length(head) - len(head))
        return codec.decode(head + body)

    def _take(self, message: Received) -> None:
        if isinstance(message, PacketIn):
            self.packets_in += 1
            self._on_packet(self, message)
        elif isinstance(message, codec.Echo) and message.request:
            self._send(codec.message(codec.ECHO_REPLY, message.xid, message.data))
        elif message.xid in self._waiting:
            self._answer(message)
        elif isinstance(message, Error):
            self.errors += 1
            self._refused[message.xid] = message

    def _answer(self, message: Received) -> None:
        parts = self._parts.setdefault(message.xid, [])
        parts.append(message)
        if isinstance(message, codec.FlowStats) and message.more:
            return
        waiting = self._waiting.pop(message.xid)
        del self._parts[message.xid]
        if waiting.done():
            return
        if isinstance(message, Error):
            self.errors += 1
            waiting.set_exception(SwitchError(f"switch {self.dpid:#x} refused: {message}"))
        else:
            waiting.set_result(parts)

    @property
    def all_or_none(self) -> bool:
        """Whether a refused change of entries has changed nothing: the switch knows bundles."""
        return self._bundles

    # -- requests ------------------------------------------------------------------------------

    def packet_out(self, port: int, frame: bytes) -> None:
        """Send a frame by a port; nothing tells whether it went."""
        self.packets_out += 1
        self._send(codec.packet_out(self._next(), port, frame))

    async def barrier(self) -> None:
        """Wait until everything before has been processed. Raises `SwitchError`."""
        await self._ask(codec.message(codec.BARRIER_REQUEST, xid := self._next()), xid)

    async def entries(self, cookie: int, mask: int) -> list[EntryStats]:
        """The switch's entries with this cookie. Raises `SwitchError`."""
        parts = await self._ask(codec.flow_stats(xid := self._next(), cookie, mask), xid)
        return [
            each for part in parts if isinstance(part, codec.FlowStats) for each in part.entries
        ]

    async def apply(self, changes: Sequence[Change]) -> None:
        """Change entries, all or none where the switch can. Raises `SwitchError` when refused."""
        if not changes:
            return
        self._refused.clear()
        if self._bundles and not await self._open_bundle():
            LOG.warning("switch %#x knows no bundles; entries change one by one", self.dpid)
            self._bundles = False
        if self._bundles:
            await self._commit(changes)
            return
        sent = {self._next(): change for change in changes}
        step = None
        for xid, change in sent.items():
            before, step = step, _step(change)
            if before not in (None, step):
                # Without it a switch may take them in any order (§6.2). Nobody waits for it.
                self._send(codec.message(codec.BARRIER_REQUEST, self._next()))
            self._send(codec.flow_mod(xid, change))
        await self.barrier()
        self._raise_refused(sent)

    async def _open_bundle(self) -> bool:
        self._bundle = self._next()
        try:
            await self._ask(
                codec.bundle_control(self._bundle, self._bundle, codec.BUNDLE_OPEN), self._bundle
            )
        except SwitchError as error:
            if "refused" not in str(error):
                raise  # it is slow, or gone, which says nothing of what it knows
            return False
        return True

    async def _commit(self, changes: Sequence[Change]) -> None:
        bundle = self._bundle
        sent = {self._next(): change for change in changes}
        added = (
            codec.bundle_add(xid, bundle, codec.flow_mod(xid, change))
            for xid, change in sent.items()
        )
        self._send(b"".join(added))
        xid = self._next()
        try:
            await self._ask(codec.bundle_control(xid, bundle, codec.BUNDLE_COMMIT), xid)
        except SwitchError:
            self._raise_refused(sent)
            raise
        self._raise_refused(sent)

    def _raise_refused(self, sent: dict[int, Change]) -> None:
        for xid, change in sent.items():
            error = self._refused.get(xid)
            if error is not None:
                entry = change.entry
                raise SwitchError(
                    f"switch {self.dpid:#x} refused an entry (table {entry.table}, priority "
                    f"{entry.priority}): {error}"
                )

    async def _ask(self, message: bytes, xid: int) -> list[Received]:
        waiting: asyncio.Future[list[Received]] = asyncio.get_running_loop().create_future()
        if self._writer.is_closing():
            raise SwitchError(f"switch {self.dpid:#x} is gone")
        self._waiting[xid] = waiting
        self._send(message)
        try:
            async with asyncio.timeout(self._timeout):
                return await waiting
        except TimeoutError:
            raise SwitchError(
                f"switch {self.dpid:#x} did not answer within {self._timeout:g} s"
            ) from None
        finally:
            self._waiting.pop(xid, None)
            self._parts.pop(xid, None)

    def _send(self, message: bytes) -> None:
        if not self._writer.is_closing():
            self._writer.write(message)

    def _next(self) -> int:
        self._xid = self._xid % 0xFFFFFFFF + 1
        return self._xid


def _step(change: Change) -> tuple[bool, int, int]:
    """Changes of one step may come in any order: none of them takes another's packets."""
    return change.remove, change.entry.table, change.entry.priority


def _incompatible(xid: int) -> bytes:
    return codec.message(codec.ERROR, xid, bytes(4) + b"OpenFlow 1.3 only")


def _peer(writer: asyncio.StreamWriter) -> str:
    name = writer.get_extra_info("peername")
    return f"{name[0]}:{name[1]}" if isinstance(name, tuple) else "a switch"
