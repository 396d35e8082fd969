"""A relay between a testbed's switches and its controller: what the controller says and is told."""

import asyncio
import socket
import struct
from functools import partial

from relay import Relay

from flowferry.controller.openflow import codec
from flowferry.controller.wiring import OPENFLOW_PORT
from flowferry.testbed import Testbed, namespace
from flowferry.wire import ETHERTYPE

PORT = OPENFLOW_PORT + 1


class OpenFlowRelay(Relay):
    """Listens beside the controller, port `PORT`; a context manager.

    `seen` and `passed` count control frames, to agents and from.
    """

    def __init__(self, bed: Testbed) -> None:
        """Listen at once; switches are told by `Platform.connect_switches(PORT)`."""
        super().__init__()
        self._address = bed.controller_address
        self._space = bed.namespaces["sw"]
        self._listener = namespace.call(
            self._space, partial(socket.create_server, (self._address, PORT))
        )
        self._tasks: set[asyncio.Task[None]] = set()

    async def _begin(self) -> None:
        self._server = await asyncio.start_server(self._accept, sock=self._listener)

    async def _end(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connect = partial(socket.create_connection, (self._address, OPENFLOW_PORT), 5)
        try:
            onward = await asyncio.to_thread(namespace.call, self._space, connect)
        except OSError:
            writer.close()  # the controller is away; the switch comes again
            return
        there = await asyncio.open_connection(sock=onward)
        for one, other in ((reader, there[1]), (there[0], writer)):
            task = asyncio.create_task(self._carry(one, other))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readexactly(codec.HEADER.size)
                body = await reader.readexactly(codec.frame_length(head) - len(head))
                message = head + body
                frame = control_frame(message)
                if frame is None:
                    writer.write(message)
                else:
                    self._pass(frame, partial(_write, writer, message))
        except (OSError, EOFError):
            pass
        finally:
            writer.close()


def _write(writer: asyncio.StreamWriter, message: bytes) -> None:
    if not writer.is_closing():
        writer.write(message)


def control_frame(message: bytes) -> bytes | None:
    """The control frame in a packet-in or packet-out; `None` if it has none."""
    kind = message[1]
    if kind == codec.PACKET_IN:
        packet = codec.decode(message)
        assert isinstance(packet, codec.PacketIn)
        frame = packet.frame
    elif kind == codec.PACKET_OUT:
        (actions,) = struct.unpack_from("!H", message, 16)
        frame = message[24 + actions :]
    else:
        return None
    return frame if frame[12:14] == ETHERTYPE.to_bytes(2) else None
