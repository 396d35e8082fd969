"""Requests and answers over one TCP connection: quiet in between, broken if one goes missing."""

import hashlib
import socket
import threading
import time
from types import TracebackType
from typing import Any, Self

from flowferry.demo.cues import SESSION_PORT
from flowferry.testbed import Testbed, namespace

#: Seconds between two requests.
INTERVAL = 0.01
REQUEST, ANSWER = 200, 1200
PATIENCE = 15.0


class Session:
    """Asks from h1, answers at h2; each answer is a hash of its request, stretched."""

    def __init__(self, bed: Testbed) -> None:
        """Nothing is asked yet."""
        self._hosts = bed.hosts
        self._halt = threading.Event()
        self._threads: list[threading.Thread] = []
        self._ends: list[socket.socket] = []
        self._errors: list[str] = []
        self.asked = self.answered = self.wrong = 0
        #: (CLOCK_MONOTONIC seconds of the request, milliseconds to its answer).
        self.trips: list[tuple[float, float]] = []

    def __enter__(self) -> Self:
        """Connect and begin."""
        h1, h2 = self._hosts["h1"], self._hosts["h2"]
        listener = namespace.call(
            h2.namespace, lambda: socket.create_server((h2.ip4, SESSION_PORT), reuse_port=True)
        )
        with listener:
            client = namespace.call(
                h1.namespace, lambda: socket.create_connection((h2.ip4, SESSION_PORT), PATIENCE)
            )
            self._ends.append(client)
            listener.settimeout(PATIENCE)
            server, _ = listener.accept()
            self._ends.append(server)
        for end in self._ends:
            end.settimeout(PATIENCE)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for work, end in ((self._ask, client), (self._answer, server)):
            thread = threading.Thread(target=self._guarded, args=(work, end), name="session")
            thread.start()
            self._threads.append(thread)
        return self

    def _guarded(self, work: Any, end: socket.socket) -> None:
        try:
            work(end)
        except OSError as error:
            self._errors.append(str(error))

    def _ask(self, end: socket.socket) -> None:
        while not self._halt.wait(INTERVAL):
            request = self.asked.to_bytes(8, "big") * (REQUEST // 8)
            began = time.monotonic()
            end.sendall(request)
            self.asked += 1
            answer = _whole(end, ANSWER)
            if not answer:
                raise ConnectionError("closed in the middle")
            self.trips.append((began, (time.monotonic() - began) * 1e3))
            self.answered += 1
            self.wrong += answer != _answer_to(request)
        end.shutdown(socket.SHUT_WR)

    def _answer(self, end: socket.socket) -> None:
        while request := _whole(end, REQUEST):
            end.sendall(_answer_to(request))

    def finish(self) -> dict[str, Any]:
        """End it in order; what became of it."""
        self._stop()
        return {
            "connected": not self._errors,
            "error": self._errors[0] if self._errors else None,
            "asked": self.asked,
            "answered": self.answered,
            "wrong": self.wrong,
            "longest_ms": round(max((ms for _, ms in self.trips), default=0.0), 3),
        }

    def _stop(self) -> None:
        self._halt.set()
        for thread in self._threads:
            thread.join(PATIENCE)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close both ends."""
        self._halt.set()
        for end in self._ends:
            end.close()
        self._stop()


def _whole(end: socket.socket, size: int) -> bytes:
    """`size` bytes, or none at the end of the stream."""
    found = b""
    while len(found) < size:
        piece = end.recv(size - len(found))
        if not piece:
            return b""
        found += piece
    return found


def _answer_to(request: bytes) -> bytes:
    digest = hashlib.sha256(request).digest()
    return (digest * (ANSWER // len(digest) + 1))[:ANSWER]
