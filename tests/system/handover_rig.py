"""A testbed with controller and agents, echoed probe traffic over it, and its outside witnesses."""

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from hsl_pcap import Numbers, Records, Tcpdump, until

from flowferry import probe
from flowferry.controller import Platform
from flowferry.testbed import Testbed

#: Where adapters take state.
STATE_PORT = 7200
#: First octets of the probe's compact header: what is sent, and what is sent back.
DATA, REPLY = 0xF1C0, 0xF1C1


class Echo:
    """Probe traffic from h1 to h2 and back, for as long as the block lasts.

    `there` (the sink's account of the way there), `back` (the sender's of the way back) and `sent`
    are there afterwards.
    """

    def __init__(
        self, bed: Testbed, *, flows: int, rate: float, to: str | None = None, **more: Any
    ) -> None:
        """`to`: an address of h2 and of nobody else's traffic; `more` is for the sender."""
        self._bed = bed
        self._to = to
        self._request: dict[str, Any] = {
            "flows": flows,
            "rate": rate,
            "duration": 3600.0,
            "frame": 58,
        }
        self._request |= {"echo": True, **more}
        self._stop, self.arrived = probe.Control(), probe.Control()
        self._pool = ThreadPoolExecutor(2)
        self._reports: list[Future[Any]] = []

    def __enter__(self) -> Self:
        spaces, h2 = self._bed.namespaces, self._bed.hosts["h2"]
        sink = self._pool.submit(
            probe.sink,
            netns=spaces["h2"],
            address=self._to,
            wait=20.0,
            echo=self._request["echo"],
            control=self.arrived,
        )
        self._reports.append(sink)
        until(lambda: self._look() and self.arrived.ready, "the sink")
        self._reports.append(
            self._pool.submit(
                probe.send,
                self._to or h2.ip4,
                netns=spaces["h1"],
                control=self._stop,
                **self._request,
            )
        )
        until(lambda: self._look() and self.arrived.packets > 50, "traffic")
        return self

    def _look(self) -> bool:
        for report in self._reports:
            if report.done():
                report.result()
        return True

    @property
    def sent_packets(self) -> int:
        """Packets that h1 has sent so far."""
        return self._stop.packets

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.stop()
        with self._pool:
            if error is None:
                self.there: probe.SinkReport = self._reports[0].result(timeout=60)
                self.sent: probe.SendReport = self._reports[1].result(timeout=60)


@contextmanager
def witnesses(
    bed: Testbed, folder: Path, *, buffer_kib: int = 32 << 10
) -> Iterator[dict[str, Tcpdump]]:
    """tcpdump at both hosts and, on the switches' side, at every instance's two ports.

    Each records one way only at each place, by the addresses: what goes to the function at its
    near port, what comes out of it at its far port.
    """
    h1, h2 = bed.hosts["h1"].ip4, bed.hosts["h2"].ip4
    with ExitStack() as stack:
        found = {}
        sides = {"up": bed.switches["ingress"].role, "down": bed.switches["egress"].role}
        places = [("h1", "eth0"), ("h2", "eth0")]
        places += [(sw, f"{i.name}-{dev}") for i in bed.instances for dev, sw in sides.items()]
        for role, dev in places:
            for way, source in (("there", h1), ("back", h2)):
                name = f"{role if dev == 'eth0' else dev} {way}"
                path = folder / f"{name.replace(' ', '-')}.pcap"
                expression = f"udp and src host {source}"
                dump = Tcpdump(bed, role, dev, path, expression, buffer_kib=buffer_kib)
                found[name] = stack.enter_context(dump)
        yield found


@dataclass(frozen=True)
class Numbered:
    """Probe packets as a witness saw them: the flow and the number of each, in order."""

    flows: Numbers
    numbers: Numbers

    @classmethod
    def of(cls, records: Records, run: int, way: str) -> "Numbered":
        """Those of a run on their way `there` or `back`."""
        kind = DATA if way == "there" else REPLY
        ours = (records.number(42, 2) == kind) & (records.number(44, 2) == run & 0xFFFF)
        data = records.only(ours)
        return cls(data.number(46, 3), data.number(49, 4))

    def __len__(self) -> int:
        return len(self.flows)

    @property
    def places(self) -> Numbers:
        """Flow and number in one."""
        return (self.flows << np.uint64(40)) | self.numbers

    def extremes(self, most: bool) -> dict[int, int]:
        """The greatest (or least) number of each flow that occurs."""
        order = np.argsort(self.places)
        flows, numbers = self.flows[order], self.numbers[order]
        names, first = np.unique(flows, return_index=True)
        last = np.append(first[1:], len(flows)) - 1
        at = last if most else first
        return dict(zip(names.tolist(), numbers[at].tolist(), strict=True))


def in_order(seen: Numbered) -> bool:
    """Whether each flow's numbers rise, one by one or with gaps."""
    places = seen.places[np.argsort(seen.flows, kind="stable")]
    return bool((np.diff(places.astype(np.int64)) > 0).all())


def wait_for(client: Any, handover: int, states: Sequence[str], seconds: float = 30.0) -> Any:
    """The handover once it is in one of these states."""
    found: dict[str, Any] = {}

    def there() -> bool:
        found.update(client.handover(handover))
        return found["state"] in states

    until(there, f"handover {handover} in {states}", seconds=seconds)
    return found


class Function:
    """An instance's function at its control channel: answers at once, or when it is told to.

    A context manager. `heard` are the events so far.
    """

    def __init__(
        self,
        path: Path,
        *,
        holds: Sequence[str] = (),
        fails: Sequence[str] = (),
        new_flows: bool = False,
    ) -> None:
        """`holds`: steps that are not answered before `go`; `fails`: steps that fail."""
        self.heard: list[dict[str, Any]] = []
        self._holds, self._fails = set(holds), set(fails)
        self._held: list[dict[str, Any]] = []
        self._lock = threading.Lock()
        self._end = socket.socket(socket.AF_UNIX)
        self._end.connect(str(path))
        self._say(hello="test", lists_flows=False, new_flows=new_flows)
        self._thread = threading.Thread(target=self._serve, name="function")

    def _say(self, **fields: Any) -> None:
        self._end.sendall(json.dumps(fields).encode() + b"\n")

    def _serve(self) -> None:
        with suppress(OSError), self._end.makefile("r", encoding="utf-8") as lines:
            for line in lines:
                event = json.loads(line)
                with self._lock:
                    self.heard.append(event)
                    if event["event"] in self._holds:
                        self._held.append(event)
                    else:
                        self._answer(event)

    def _answer(self, event: dict[str, Any]) -> None:
        step = event["event"]
        if step in self._fails:
            self._say(failed=step, handover=event["handover"], error="as the test wants it")
        elif step in ("export", "import"):
            self._say(done=step, handover=event["handover"], bytes=0)

    def go(self) -> None:
        """Answer what was held, and hold no more."""
        with self._lock:
            self._holds.clear()
            for event in self._held:
                self._answer(event)
            self._held.clear()

    def names(self) -> list[str]:
        """The events' names so far."""
        with self._lock:
            return [event["event"] for event in self.heard]

    def await_event(self, name: str) -> None:
        """Return when it has come."""
        until(lambda: name in self.names(), f"the event {name}", seconds=20)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._end.shutdown(socket.SHUT_RDWR)
        self._thread.join(10)
        self._end.close()


Bed = Callable[..., Testbed]


@contextmanager
def adapters(platform: Platform, folder: Path, export: str, take: str) -> Iterator[None]:
    """A hooks adapter beside each agent."""
    bed, key = platform.bed, platform.keys[0]
    running = []
    try:
        for one in bed.instances:
            socket = bed.owner.directory / f"fn-{one.name}.sock"
            words = [sys.executable, "-c", "from flowferry.cli import main; main()"]
            words += ["hsl", "adapter", "--socket", str(socket), "--key", f"{key.id}:{key.file}"]
            words += ["--listen", f"{one.mgmt_ip}:{STATE_PORT}", "--rate", "400"]
            words += ["--export", export, "--import", take, "--staging", str(folder)]
            tls = platform.agents[one.name].config.tls
            if tls is not None:
                words += ["--tls-ca", tls.ca, "--tls-certificate", tls.cert, "--tls-key", tls.key]
            child = bed.popen(one.name, words, stderr=subprocess.PIPE, text=True)
            running.append(child)
            assert child.stderr is not None
            assert child.stderr.readline() == "ready\n"
        yield
    finally:
        for child in running:
            child.terminate()
            child.communicate(timeout=20)


#: Of agents: behind a forwarder's last packet nothing but time tells, and it may have to wait for a
#: CPU (docs/hsl.md, "Drain").
TIME_TO_DRAIN = {"drain_quiet_us": 100_000}


def clean(echo: Echo) -> None:
    assert echo.sent["replies"] is not None
    for account in (echo.there, echo.sent["replies"]):
        figures = {k: account[k] for k in ("lost", "reordered", "duplicated", "unclassified")}
        assert not any(figures.values()), figures
