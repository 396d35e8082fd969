"""A chain with its handover support layer, and traffic over it, for the tests of the data plane."""

import os
import random
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from cpus import Busy
from hsl_pcap import until

from flowferry import probe
from flowferry.hsl import Agent, Client, HslError
from flowferry.hsl.agent import Config
from flowferry.hsl.wiring import config_for
from flowferry.testbed import Chain

#: Seconds for a release; longer means that packets come faster than they are released.
PATIENCE = 5.0
#: Which function stands behind which shim.
SHIMS = {"kernel": "bridge", "veth": "forwarder"}


def patient(chain: Chain, **options: Any) -> Config:
    """A configuration in which an agent that gets no CPU for a while is not taken for dead."""
    return config_for(chain, **({"heartbeat_timeout_ms": 60_000} | options))


@contextmanager
def attached(chain: Chain, *, cpu: int | None = None, **options: Any) -> Iterator[Client]:
    """Run an agent (on one CPU, if asked to) in front of the function; a client of it."""
    with Agent(patient(chain, **options), cpu=cpu) as agent, agent.client() as client:
        yield client


def pin_function(chain: Chain, cpu: int) -> None:
    """Keep the forwarder on one CPU: without steering, a thread that moves reorders by itself."""
    for pid in chain.run("nf", ["ip", "netns", "pids", chain.namespaces["fn"]]).stdout.split():
        for task in os.listdir(f"/proc/{pid}/task"):
            os.sched_setaffinity(int(task), {cpu})


def interface_counter(chain: Chain, role: str, dev: str, name: str) -> int:
    """A statistic of a device."""
    return int(chain.run(role, ["cat", f"/sys/class/net/{dev}/statistics/{name}"]).stdout)


class Flood:
    """Probe traffic from h1 to h2 for as long as the block lasts, or for a `duration` in seconds.

    `sent`, `sunk` and `busy`, how many CPUs worked, whoever used them, are there afterwards.
    """

    def __init__(
        self, chain: Chain, *, flows: int, rate: float | None, cpu: int | None = None, **more: Any
    ) -> None:
        self._chain = chain
        # By us: it has no end of its own.
        self._stopped = not more.keys() & {"duration", "count"}
        self._patience = more.get("duration", 0.0) + 60.0  # seconds
        more.setdefault("duration", 3600.0)
        self._request = {"flows": flows, "rate": rate, "cpu": cpu, "frame": 58, **more}
        self._stop = probe.Control()
        self._pool = ThreadPoolExecutor()
        self._reports: list[Future[Any]] = []

    def __enter__(self) -> Self:
        spaces, there = self._chain.namespaces, self._chain.hosts["h2"].ip4
        before = interface_counter(self._chain, "h2", "eth0", "rx_packets")
        self._reports = [
            self._pool.submit(probe.sink, netns=spaces["h2"], wait=20.0),
            self._pool.submit(
                probe.send,
                there,
                netns=spaces["h1"],
                control=self._stop,
                **self._request,
            ),
        ]

        def flowing() -> bool:
            for report in self._reports:
                if report.done():
                    report.result()
            return interface_counter(self._chain, "h2", "eth0", "rx_packets") > before + 100

        until(flowing, "traffic")
        self._cpus = Busy()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._stopped or error is not None:
            self._stop.stop()
        with self._pool:
            if error is None:
                self.sunk: probe.SinkReport = self._reports[0].result(self._patience)
                self.sent: probe.SendReport = self._reports[1].result(self._patience)
                self.busy = self._cpus.look()


@dataclass(frozen=True)
class Cycles:
    """What a series of captures did."""

    holds: int
    captured: int
    #: Seconds spent holding.
    held: float
    #: Holds that did not end by themselves: packets came faster than they could be released.
    outpaced: int


def ladder(count: int, least: float = 1.0, most: float = 200.0) -> list[float]:
    """`count` times from `least` to `most` milliseconds, in equal ratios, in seconds."""
    step = (most / least) ** (1 / max(count - 1, 1))
    return [least * step**number / 1e3 for number in range(count)]


def evenly(count: int, most: float = 200.0) -> list[float]:
    """`count` times up to `most` milliseconds, in equal steps, in seconds."""
    return [most * number / count / 1e3 for number in range(1, count + 1)]


def cycle(client: Client, times: Sequence[float], match: str, seed: int = 1) -> Cycles:
    """Hold and release again and again, in random order, with random pauses of up to 20 ms.

    Every other hold is waited for; after the rest the next hold may come while packets of the last
    one are still on their way out. Ends at the first hold that is outpaced.
    """
    chance = random.Random(seed)
    holds, held, outpaced = [], 0.0, 0
    for number, seconds in enumerate(chance.sample(times, len(times))):
        began = time.monotonic()
        hold = client.hold(match)
        holds.append(hold)
        time.sleep(seconds)  # the length of the capture
        try:
            client.release(hold)
            held += time.monotonic() - began
            if number % 2:
                client.wait(hold, PATIENCE)
        except HslError:
            outpaced += 1
            break
        time.sleep(chance.random() * 0.02)  # the pause
    results = [one for one in client.holds() if one["id"] in holds]
    return Cycles(len(holds), sum(int(one["captured_packets"]) for one in results), held, outpaced)


def at_rest(client: Client) -> dict[str, Any]:
    """Wait until everything is on the fast path again and no count is off; the agent's status."""
    until(lambda: not any(client.status()["flows"].values()), "flows back on the fast path")
    until(lambda: all(hold["ended_ns"] for hold in client.holds()), "the end of all holds")
    status = client.status()
    assert not status["tripped"]
    assert status["buffer"]["used"] == 0
    for side in status["counters"].values():
        assert side["captured"] == side["released"], status
        for name in ("failed_open", "table_full", "discarded"):
            assert side[name] == 0, status
    return status
