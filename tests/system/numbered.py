"""Numbered datagrams from h1 to h2: which arrived, in which order, and which never did."""

import itertools
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from flowferry.testbed import namespace
from flowferry.testbed.bare import Chain

NUMBER = struct.Struct("!IQ")
PORT = 7000


def until(
    condition: Callable[[], bool], what: str | Callable[[], str], timeout: float = 10.0
) -> None:
    """Poll a condition; fail, naming it, when it does not come true in time (seconds)."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            text = what if isinstance(what, str) else what()
            raise AssertionError(f"never came true within {timeout} s: {text}")
        time.sleep(0.002)


@dataclass
class Arrivals:
    """What the sink saw, per flow in order of arrival."""

    numbers: dict[int, list[int]] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """Datagrams that arrived."""
        return sum(map(len, self.numbers.values()))

    def disorder(self) -> list[str]:
        """What is out of order or doubled; empty when nothing is."""
        found = []
        for flow, numbers in self.numbers.items():
            for before, after in itertools.pairwise(numbers):
                if after <= before:
                    kind = "doubled" if after == before else "late"
                    found.append(f"flow {flow}: {after} {kind}, after {before}")
        return found


class Traffic:
    """A source in h1 and a sink in h2, joined by the chain; both real UDP sockets."""

    def __init__(self, chain: Chain, flows: int = 1) -> None:
        """Open the sockets. Flow i is the source port 6000 + i."""
        self.arrivals = Arrivals()
        self.sent = 0
        self._target = (chain.hosts["h2"].ip4, PORT)
        self._next = [0] * flows
        self._sources = namespace.call(chain.namespaces["h1"], lambda: self._open_sources(flows))
        self._sink = namespace.call(chain.namespaces["h2"], self._open_sink)
        self._ends = threading.Event()
        self._threads = [threading.Thread(target=self._receive, daemon=True)]
        self._threads[0].start()

    @staticmethod
    def _open_sources(flows: int) -> list[socket.socket]:
        sources = []
        for flow in range(flows):
            source = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            source.bind(("", 6000 + flow))
            sources.append(source)
        return sources

    @staticmethod
    def _open_sink() -> socket.socket:
        sink = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sink.setsockopt(socket.SOL_SOCKET, 33, 64 << 20)  # SO_RCVBUFFORCE
        sink.bind(("", PORT))
        sink.settimeout(0.05)
        return sink

    def _receive(self) -> None:
        numbers = self.arrivals.numbers
        while not self._ends.is_set():
            try:
                data = self._sink.recv(2048)
            except TimeoutError:
                continue
            flow, number = NUMBER.unpack_from(data)
            numbers.setdefault(flow, []).append(number)

    def send(self, count: int = 1) -> None:
        """Send `count` datagrams, the flows taking turns."""
        for _ in range(count):
            self.send_of(self.sent % len(self._sources))

    def send_of(self, flow: int) -> None:
        """Send one datagram of one flow."""
        self._sources[flow].sendto(NUMBER.pack(flow, self._next[flow]), self._target)
        self._next[flow] += 1
        self.sent += 1

    def keep_sending(self, per_second: int) -> "Sending":
        """Send in the background, until the returned context ends."""
        return Sending(self, per_second)

    def settled(self, lost: int, timeout: float = 10.0) -> None:
        """Wait until all but `lost` have arrived, then check order and number."""
        until(
            lambda: self.arrivals.total >= self.sent - lost,
            lambda: f"{self.sent} sent, {lost} lost, {self.arrivals.total} arrived",
            timeout,
        )
        # More than that would be doubled; the sink is given the time of one empty read to see it.
        self._drain()
        assert self.arrivals.disorder() == []
        assert self.arrivals.total == self.sent - lost

    def _drain(self) -> None:
        seen = -1
        while seen != self.arrivals.total:
            seen = self.arrivals.total
            time.sleep(0.06)

    def __enter__(self) -> Self:
        """The traffic itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the sockets."""
        self._ends.set()
        for thread in self._threads:
            thread.join()
        for each in (*self._sources, self._sink):
            each.close()


class Sending:
    """Background sending at a set rate."""

    def __init__(self, traffic: Traffic, per_second: int) -> None:
        """Ready to be entered."""
        self._traffic = traffic
        self._interval = 1 / per_second
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        due = time.monotonic()
        while not self._ends.is_set():
            while due <= time.monotonic():
                self._traffic.send()
                due += self._interval
            self._ends.wait(max(0.0, due - time.monotonic()))

    def __enter__(self) -> Self:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End."""
        self._ends.set()
        self._thread.join()
