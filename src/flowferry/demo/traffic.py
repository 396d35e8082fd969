"""The traffic: UDP flows that count themselves, a TCP transfer that is checked, and ping;
requests and answers over one more TCP connection stand in `session`.

Each is a context manager: it starts with the block and is stopped, whatever happens, at its end;
`finish` waits for its orderly end and says what became of it.
"""

import hashlib
import random
import re
import signal
import socket
import subprocess
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from flowferry import probe
from flowferry.demo.cues import BULK_PORT, FIRST_PORT
from flowferry.testbed import Host, Testbed, namespace

FLOWS = 6
#: The share of them that sends `QUIET_RATE` packets a second, not `RATE`.
QUIET = 1 / 3
RATE, QUIET_RATE = 1000, 5
#: TCP is paced: unpaced, it would fill the switches' queues, and those drop.
TCP_BYTES_PER_SECOND = 6_250_000
PING_INTERVAL = 0.02
#: Seconds that anything may take to come to its end.
PATIENCE = 15.0


class Udp:
    """Probe flows from h1 to h2, every packet numbered and timed."""

    def __init__(self, bed: Testbed, longest: float, timeline: Path) -> None:
        """At most `longest` seconds; `timeline`: where each arrival is recorded."""
        self.timeline = timeline
        self._hosts = bed.hosts
        self._longest = longest
        self._sending, self._sinking = probe.Control(), probe.Control()
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="udp")
        self._sink: Future[probe.SinkReport] | None = None
        self._send: Future[probe.SendReport] | None = None

    def __enter__(self) -> Self:
        """Start; return when the first packet has arrived."""
        h1, h2 = self._hosts["h1"], self._hosts["h2"]
        self._sink = self._pool.submit(
            probe.sink,
            netns=h2.namespace,
            ports=FLOWS,
            port=FIRST_PORT,
            timeline=self.timeline,
            control=self._sinking,
        )
        self._await(self._sink, lambda: self._sinking.ready, "the probe's sink is not ready")
        self._send = self._pool.submit(
            probe.send,
            h2.ip4,
            netns=h1.namespace,
            port=FIRST_PORT,
            flows=FLOWS,
            flow_rate=RATE,
            quiet=QUIET,
            quiet_rate=QUIET_RATE,
            duration=self._longest,
            control=self._sending,
        )
        self._await(self._send, lambda: self._sinking.packets > 0, "no probe packet arrives")
        return self

    def _await(self, job: "Future[Any]", there: Any, problem: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not there():
            if job.done():
                job.result()  # raises what ended it
            if time.monotonic() > deadline:
                raise probe.ProbeError(f"{problem}; look whether the machine is overloaded")
            time.sleep(0.002)

    @property
    def received(self) -> int:
        """Packets that have arrived."""
        return self._sinking.packets

    def slowest(self) -> float:
        """The longest delay of a packet since this was asked last, in milliseconds."""
        return self._sinking.take_slowest() / 1e6

    def finish(self) -> probe.SinkReport:
        """Send no more, and wait until all is counted."""
        assert self._send is not None
        assert self._sink is not None
        self._sending.stop()
        self._send.result(PATIENCE)
        return self._sink.result(PATIENCE)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop both ends."""
        self._sending.stop()
        self._sinking.stop()
        self._pool.shutdown()


class Tcp:
    """One connection from h1 to h2 that carries random bytes, hashed at both ends."""

    def __init__(self, bed: Testbed) -> None:
        """Nothing is sent yet."""
        self._hosts = bed.hosts
        self._halt = threading.Event()
        self._threads: list[threading.Thread] = []
        self._sockets: list[socket.socket] = []
        self._sent, self._got = hashlib.sha256(), hashlib.sha256()
        self._errors: list[str] = []
        self.bytes_sent = self.bytes_received = 0
        #: Longest time between two arrivals, in seconds.
        self.longest_stall = 0.0
        self._seconds = 0.0
        self._before: dict[str, dict[str, int]] = {}

    def __enter__(self) -> Self:
        """Connect and start to send."""
        h1, h2 = self._hosts["h1"], self._hosts["h2"]
        self._before = {role: counters(host) for role, host in self._hosts.items()}
        listener = namespace.call(
            h2.namespace, lambda: socket.create_server((h2.ip4, BULK_PORT), reuse_port=True)
        )
        with listener:
            client = namespace.call(
                h1.namespace, lambda: socket.create_connection((h2.ip4, BULK_PORT), PATIENCE)
            )
            self._sockets.append(client)
            listener.settimeout(PATIENCE)
            server, _ = listener.accept()
            self._sockets.append(server)
        for end in self._sockets:
            end.settimeout(PATIENCE)
        client.setsockopt(socket.SOL_SOCKET, SO_MAX_PACING_RATE, TCP_BYTES_PER_SECOND)
        for work, end in ((self._send, client), (self._receive, server)):
            thread = threading.Thread(target=self._guarded, args=(work, end), name="tcp")
            thread.start()
            self._threads.append(thread)
        return self

    def _guarded(self, work: Any, end: socket.socket) -> None:
        try:
            work(end)
        except OSError as error:
            if not self._halt.is_set() or work == self._receive:
                self._errors.append(str(error))

    def _send(self, end: socket.socket) -> None:
        content = memoryview(random.Random(0).randbytes(1 << 20))
        size = 64 << 10
        at = 0
        while not self._halt.is_set():
            # A step that is no divisor of the length: blocks differ, so a swap shows.
            block = content[at : at + size]
            at = (at + 40_961) % (len(content) - size)
            end.sendall(block)
            self._sent.update(block)
            self.bytes_sent += len(block)
        end.shutdown(socket.SHUT_WR)

    def _receive(self, end: socket.socket) -> None:
        began = last = time.monotonic()
        while block := end.recv(256 << 10):
            now = time.monotonic()
            self.longest_stall = max(self.longest_stall, now - last)
            last = now
            self._got.update(block)
            self.bytes_received += len(block)
        self._seconds = last - began

    def finish(self) -> dict[str, Any]:
        """End the transfer in order; what became of it."""
        self._halt.set()
        for thread in self._threads:
            thread.join(PATIENCE)
        after = {role: counters(host) for role, host in self._hosts.items()}
        grown = {
            role: {name: after[role][name] - self._before[role][name] for name in after[role]}
            for role in after
        }
        rate = self.bytes_received * 8 / self._seconds if self._seconds else 0.0
        return {
            "connected": not self._errors,
            "error": self._errors[0] if self._errors else None,
            "bytes_sent": self.bytes_sent,
            "bytes_received": self.bytes_received,
            "intact": self._sent.digest() == self._got.digest(),
            "sha256": self._got.hexdigest(),
            "bits_per_second": round(rate),
            "longest_stall_ms": round(self.longest_stall * 1e3, 3),
            "out_of_order_segments": grown["h2"]["TCPOFOQueue"],
            "retransmitted_segments": grown["h1"]["RetransSegs"],
            "loss_probes": grown["h1"]["TCPLossProbes"],
            "timeouts": grown["h1"]["TCPTimeouts"],
        }

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Break the connection if it is still there."""
        self._halt.set()
        if error is not None:
            for end in self._sockets:
                # A thread may be waiting in it; shutting down wakes that up, closing would not.
                try:
                    end.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue
        for thread in self._threads:
            thread.join(PATIENCE)
        for end in self._sockets:
            end.close()


#: Not in Python's socket module; the same number on every Linux but sparc and parisc.
SO_MAX_PACING_RATE = 47


def counters(host: Host) -> dict[str, int]:
    """The TCP counters of a host's namespace, by name."""

    def read() -> dict[str, int]:
        found: dict[str, int] = {}
        for name in ("snmp", "netstat"):
            lines = Path(f"/proc/thread-self/net/{name}").read_text().splitlines()
            for names, values in zip(lines[::2], lines[1::2], strict=True):
                if names.startswith("Tcp"):
                    pairs = zip(names.split()[1:], values.split()[1:], strict=True)
                    found |= {key: int(value) for key, value in pairs}
        return found

    return namespace.call(host.namespace, read)


class Ping:
    """`ping` from h1 to h2 over IPv6: a request and an answer, each through the function."""

    LINE = re.compile(
        r"^\[(?P<at>[\d.]+)\].*icmp_seq=(?P<seq>\d+).* time=(?P<ms>[\d.]+) ms(?P<dup>.*)"
    )

    def __init__(self, bed: Testbed) -> None:
        """It asks until `finish`."""
        self._bed = bed
        #: (when the answer came, CLOCK_REALTIME seconds; round trip, milliseconds).
        self.trips: list[tuple[float, float]] = []
        self._order: list[int] = []
        self._duplicated = 0
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None

    def __enter__(self) -> Self:
        """Start to ask."""
        command = ["ping", "-6", "-n", "-D", f"-i{PING_INTERVAL}"]
        self._process = self._bed.popen(
            "h1", [*command, self._bed.hosts["h2"].ip6], stdout=subprocess.PIPE, text=True
        )
        self._reader = threading.Thread(target=self._read, name="ping")
        self._reader.start()
        return self

    def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        for line in self._process.stdout:
            found = self.LINE.match(line)
            if found is None:
                continue
            if "DUP" in found["dup"]:
                self._duplicated += 1
                continue
            self._order.append(int(found["seq"]))
            self.trips.append((float(found["at"]), float(found["ms"])))

    def finish(self) -> dict[str, Any]:
        """End it; what became of all requests before the last one that was answered."""
        assert self._process is not None
        assert self._reader is not None
        self._process.send_signal(signal.SIGINT)
        self._process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        late = sum(a > b for a, b in zip(self._order, self._order[1:], strict=False))
        sent = max(self._order, default=0)
        return {
            "sent": sent,
            "received": len(self._order),
            "lost": sent - len(self._order),
            "reordered": late,
            "duplicated": self._duplicated,
        }

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End it if it still runs."""
        assert self._process is not None
        assert self._reader is not None
        if self._process.poll() is None:
            self._process.terminate()
        self._process.wait(PATIENCE)
        self._reader.join(PATIENCE)
