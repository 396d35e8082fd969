"""A relay between a testbed's switches and its controller, which deals with control frames as told.

To the controller and the agents it is the data plane between them that loses, doubles or delays.
"""

import asyncio
import socket
import struct
import threading
from collections.abc import Callable, Sequence
from functools import partial
from types import TracebackType
from typing import Self

from hsl_pcap import until

from flowferry.controller.openflow import codec
from flowferry.controller.wiring import OPENFLOW_PORT
from flowferry.testbed import Testbed, namespace
from flowferry.wire import ETHERTYPE

PORT = OPENFLOW_PORT + 1
#: When a control frame goes on, in seconds from now; as often as it does.
Fate = Callable[[bytes], Sequence[float]]


def as_it_comes(_frame: bytes) -> Sequence[float]:
    """The fate of a frame on a good day."""
    return (0.0,)


class Relay:
    """Listens beside the controller, port `PORT`; a context manager.

    `fate` may be changed at any time. `seen` and `passed` count control frames, to agents and from.
    """

    def __init__(self, bed: Testbed) -> None:
        """Listen at once; switches are told by `Platform.connect_switches(PORT)`."""
        self.fate: Fate = as_it_comes
        self.seen = self.passed = 0
        self._address = bed.controller_address
        self._space = bed.namespaces["sw"]
        self._listener = namespace.call(
            self._space, partial(socket.create_server, (self._address, PORT))
        )
        self._loop = asyncio.new_event_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, name="relay")

    def __enter__(self) -> Self:
        self._thread.start()
        serving = asyncio.start_server(self._accept, sock=self._listener)
        asyncio.run_coroutine_threadsafe(serving, self._loop).result(10)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()
        self._listener.close()

    async def _end(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def await_quiet(self) -> None:
        """Wait until no frame waits any more for its time."""
        until(lambda: self._waiting == 0, "the last delayed control frame")

    _waiting = 0

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
                self._pass(writer, head + body)
        except (OSError, EOFError):
            pass
        finally:
            writer.close()

    def _pass(self, writer: asyncio.StreamWriter, message: bytes) -> None:
        frame = control_frame(message)
        if frame is None:
            writer.write(message)
            return
        self.seen += 1
        for pause in self.fate(frame):
            self.passed += 1
            if pause:
                self._waiting += 1
                self._loop.call_later(pause, self._pass_late, writer, message)
            else:
                writer.write(message)

    def _pass_late(self, writer: asyncio.StreamWriter, message: bytes) -> None:
        self._waiting -= 1
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
