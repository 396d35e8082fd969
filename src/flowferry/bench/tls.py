"""What TLS costs between instances: state from adapter to adapter, strays from agent to agent.

Two testbeds side by side, alike but for `tls`; one is measured at a time. State: a flow is moved to
and fro between two instances, with so many bytes by shell hooks that do nothing else. Strays:
frames of 1,000 bytes come as fast as the path carries them, and all go after their flow.
"""

import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from flowferry import probe
from flowferry.bench import statistics
from flowferry.bench.arms import say
from flowferry.bench.report import Case, Report
from flowferry.bench.settings import Settings
from flowferry.controller import ControllerError, Platform
from flowferry.controller.wiring import STRAYS_PORT
from flowferry.testbed import Testbed

TITLE = "Streams between instances over TLS against plain ones"
PLAIN, SECURED = "plain", "tls"
#: Bytes of state of a move.
STATE = 64 << 20
STATE_PORT = 7200
FRAME = 1000
#: Strays before the measurement begins.
FIRST = 1000


@dataclass(frozen=True)
class _Place:
    name: str
    platform: Platform


def run(settings: Settings) -> Report:
    """Both kinds of streams; the settings choose."""
    report = Report("tls", TITLE, {**settings.to_dict(), "state_bytes": STATE, "frame": FRAME})
    kinds = {
        "state": (_state, "MB/s", "state by hooks"),
        "strays": (_strays, "packets/s", "strays"),
    }
    chosen = {name: kind for name, kind in kinds.items() if settings.wants(name)}
    if not chosen:
        return report
    with ExitStack() as stack:
        say("tls: two testbeds")
        places = [stack.enter_context(_place(name)) for name in (PLAIN, SECURED)]
        for name, (measure, unit, title) in chosen.items():
            say(f"tls: {name}")
            samples: dict[str, list[float]] = {place.name: [] for place in places}
            for number, order in enumerate(statistics.passes(places, settings.passes + 1)):
                for place in order:
                    figure = measure(place.platform, settings.seconds)
                    if number > 0:
                        samples[place.name].append(figure)
            title = f"{title}, TLS 1.3 against plain"
            report.cases.append(Case(name, title, unit, PLAIN, SECURED, samples))
    return report


@contextmanager
def _place(name: str) -> Iterator[_Place]:
    with ExitStack() as stack:
        bed = stack.enter_context(
            Testbed(f"bench-{name}", instances=2, steering=True, tls=name == SECURED)
        )
        platform = stack.enter_context(Platform(bed, function_sockets=True))
        for one in bed.instances:
            stack.enter_context(_adapter(platform, one.name, one.mgmt_ip))
        bed.run("h1", ["ping", "-c1", "-W5", bed.hosts["h2"].ip4])  # the flow that is moved
        yield _Place(name, platform)


@contextmanager
def _adapter(platform: Platform, instance: str, address: str) -> Iterator[None]:
    """The hooks adapter of an instance: state out of nowhere, into nothing."""
    bed, key = platform.bed, platform.keys[0]
    words = [sys.executable, "-c", "from flowferry.cli import main; main()", "hsl", "adapter"]
    words += ["--socket", str(bed.owner.directory / f"fn-{instance}.sock")]
    words += ["--listen", f"{address}:{STATE_PORT}", "--key", f"{key.id}:{key.file}"]
    words += ["--export", f"head -c {STATE} /dev/zero", "--import", "cat >/dev/null"]
    tls = platform.agents[instance].config.tls
    if tls is not None:
        words += ["--tls-ca", tls.ca, "--tls-certificate", tls.cert, "--tls-key", tls.key]
    child = bed.popen(instance, words, stderr=subprocess.PIPE, text=True)
    try:
        assert child.stderr is not None
        said = child.stderr.readline().strip()
        if said != "ready":
            raise RuntimeError(f"the adapter of {instance} did not start: {said}")
        yield
    finally:
        child.terminate()
        child.communicate(timeout=20)


def _state(platform: Platform, _seconds: float) -> float:
    """Megabytes a second of a move to the other instance."""
    flows = platform.client.flows()["flows"]
    at = next(one["instance"] for one in flows if one["flow"].startswith("icmp,"))
    to = "i1" if at == "i2" else "i2"
    done = platform.client.move("icmp", to, wait=True)
    if done["state"] != "done" or not done["flows"]:
        raise ControllerError(f"the move to {to} was not done: {done['error'] or 'no flow'}")
    return STATE / 1e6 / (float(done["transfer_ms"]) / 1e3)


def _strays(platform: Platform, seconds: float) -> float:
    """Packets a second that the other agent has taken as strays."""
    bed = platform.bed
    other = bed.instances[1]
    stop = probe.Control()
    with platform.agents["i1"].client() as client, ThreadPoolExecutor(2) as pool:
        peer = f"{other.mgmt_ip}:{STRAYS_PORT}"
        hold = client.hold("udp", role="stray", peer=peer, sides=["upstream"])
        jobs: list[Future[Any]] = [
            pool.submit(probe.sink, netns=bed.namespaces["h2"], wait=20.0),
            pool.submit(
                probe.send,
                bed.hosts["h2"].ip4,
                netns=bed.namespaces["h1"],
                flows=16,
                rate=None,
                duration=3600.0,
                frame=FRAME,
                control=stop,
            ),
        ]

        def taken() -> int:
            return next(int(h["stray_packets"]) for h in client.holds() if h["id"] == hold)

        try:
            while taken() < FIRST:
                for job in jobs:
                    if job.done():
                        job.result()
                time.sleep(0.01)
            began, before = time.monotonic(), taken()
            time.sleep(seconds)  # the length of the measurement
            rate = (taken() - before) / (time.monotonic() - began)
        finally:
            stop.stop()
            for job in jobs:
                job.result(60)
            client.release(hold)
            client.wait(hold, 30)
            client.forget_ended()
    return rate
