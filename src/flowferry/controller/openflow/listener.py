"""Where switches connect: a listening socket, one channel for each datapath id."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable

from flowferry.controller.openflow.channel import Channel, SwitchError
from flowferry.controller.openflow.codec import PacketIn

LOG = logging.getLogger(__name__)
#: Connections that have not yet said who they are.
MOST_STRANGERS = 64


class Listener:
    """Accepts switches. A switch that comes again takes the place of its old connection."""

    def __init__(
        self,
        *,
        on_up: Callable[[Channel], Awaitable[None]],
        on_down: Callable[[Channel, str], None],
        on_packet: Callable[[Channel, PacketIn], None],
        echo_interval: float = 5.0,
        timeout: float = 5.0,
    ) -> None:
        """`on_up` runs beside the channel, once it can be used; `on_down` says why it ended."""
        self._on_up, self._on_down, self._on_packet = on_up, on_down, on_packet
        self._echo_interval, self._timeout = echo_interval, timeout
        self._server: asyncio.Server | None = None
        self._tls: ssl.SSLContext | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._strangers = 0
        #: Connections that were closed because of what came on them.
        self.malformed = 0
        self.channels: dict[int, Channel] = {}

    async def start(self, sock: socket.socket, tls: ssl.SSLContext | None = None) -> None:
        """Serve on a listening socket."""
        self._tls = tls
        self._server = await asyncio.start_server(self._accept, sock=sock)

    async def stop(self) -> None:
        """Close everything; switches keep their entries (fail-secure)."""
        if self._server is not None:
            self._server.close()
        for channel in list(self.channels.values()):
            channel.close("the controller ends")
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._tls is not None:
            writer.transport.pause_reading()  # type: ignore[attr-defined]
        # A task of our own: asyncio would report one of its own that is cancelled as an error.
        task = asyncio.create_task(self._meet(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        channel = Channel(
            reader,
            writer,
            on_packet=self._on_packet,
            echo_interval=self._echo_interval,
            timeout=self._timeout,
        )
        if self._strangers >= MOST_STRANGERS:
            LOG.warning("%s turned away: too many unfinished handshakes", channel.address)
            channel.close()
            return
        self._strangers += 1
        try:
            await self._secure(channel.address, writer)
            await channel.handshake()
        except SwitchError as error:
            LOG.warning("%s", error)
            channel.close()
            return
        finally:
            self._strangers -= 1
            self.malformed += channel.malformed
        await self._serve(channel)

    async def _secure(self, address: str, writer: asyncio.StreamWriter) -> None:
        """TLS, where it is wanted. Not left to the server, which says nothing of a refusal."""
        if self._tls is None:
            return
        try:
            await writer.start_tls(self._tls, ssl_handshake_timeout=self._timeout)
        except (OSError, EOFError) as error:
            why = getattr(error, "verify_message", None) or getattr(error, "reason", None) or error
            raise SwitchError(
                f"{address} turned away: no TLS with it ({why}); give the switch a certificate "
                "that openflow.tls.ca has signed (ovs-vsctl set-ssl) and an ssl: target"
            ) from None

    async def _serve(self, channel: Channel) -> None:
        before = self.channels.get(channel.dpid)
        if before is not None:
            before.close("it connected again")
        self.channels[channel.dpid] = channel
        LOG.info("switch %#x is connected from %s", channel.dpid, channel.address)
        greeting = asyncio.create_task(self._greet(channel))
        why = "the controller ends"
        try:
            why = await channel.serve()
        finally:
            greeting.cancel()
            self.malformed += channel.malformed
            if self.channels.get(channel.dpid) is channel:
                del self.channels[channel.dpid]
            LOG.info("switch %#x is gone: %s", channel.dpid, why)
            self._on_down(channel, why)

    async def _greet(self, channel: Channel) -> None:
        try:
            await self._on_up(channel)
        except SwitchError as error:
            # Without its entries a switch is of no use: it connects again and gets them.
            LOG.error("%s; the connection is closed", error)
            channel.close(str(error))
