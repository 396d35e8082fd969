"""Moves of live flows: how long, how much delay, and is anything lost, reordered or doubled?

On a testbed with the real controller, agents and switches. At each rate a control run without moves
comes first: a rate at which that one loses packets is the path's limit, and no goal holds there.
Then the flows are moved to and fro. With 1 and 100 flows all of them move between two instances.
With 5,000 flows, half of them quiet, four instances serve a quarter each by rules; a rule over all
takes them to the fourth, which serves its quarter already, from three sources, and its removal
brings them home.

*Longest delay* of a move: that of any packet sent from its request to its end. Each move is
followed by a time as long as itself in which nothing is moved, and whose longest delay is the
yardstick: a machine that is shared stands still now and then, and delays packets without any move.
*Added delay* is what the moves put on top: a percentile of the moves' longest delays less the same
percentile of the yardstick's. Delays are one way, between the hosts' own clocks, which are one.
"""

import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from flowferry import probe
from flowferry.bench.arms import say
from flowferry.bench.report import Report
from flowferry.bench.settings import Settings
from flowferry.bench.survey import Figure, Survey
from flowferry.controller import Client, Platform
from flowferry.testbed import Testbed

TITLE = "Moves of live flows without state, by rate, size and number of flows"
RATES = (100, 1_000, 5_000, 10_000, 20_000)
FRAMES = (58, 1_000)
#: Milliseconds that each move waits for what shows no packet.
SETTLING_MS = 300
#: Seconds of the control run, at least.
CONTROL = 10.0
#: Seconds between a move and its yardstick, and between that and the next move.
PAUSE = 0.05
#: Packets sent this long before a window, ns, may still be under way when it begins.
BEFORE = 20_000_000
#: A timeline's record (docs/probe.md).
ARRIVAL = np.dtype(
    [("flow", "<u4"), ("kind", "<u4"), ("seq", "<u8"), ("sent", "<u8"), ("received", "<u8")]
)
PATIENCE = 60.0
FIGURES = (
    Figure("moves", "moves"),
    Figure("lost", "lost", 0),
    Figure("reordered", "late", 0),
    Figure("duplicated", "twice", 0),
    Figure("not_done", "failed", 0),
    Figure("longest_p50_ms", "longest p50"),
    Figure("longest_p99_ms", "p99"),
    Figure("still_p50_ms", "still p50"),
    Figure("still_p99_ms", "p99"),
    Figure("added_p50_ms", "added p50", 3.0),
    Figure("added_p99_ms", "p99", 10.0),
    Figure("fence_p50_ms", "fence p50"),
    Figure("fence_p99_ms", "p99"),
    Figure("duration_p50_ms", "whole p50"),
    Figure("captured_bytes_peak", "peak B"),
    Figure("captured_packets", "captured"),
    Figure("stray_packets", "strays"),
    Figure("markers", "markers"),
    Figure("controller_packets", "at ctrl", 0),
)


@dataclass(frozen=True)
class Scene:
    """How many flows, on how many instances, and what a move is."""

    flows: int
    instances: int
    quiet: float
    #: Do one move, the Nth; the handover.
    move: Callable[[Client, int], dict[str, Any]]
    #: Once, before anything is measured.
    prepare: Callable[[Client], None]


def _to_and_fro(client: Client, number: int) -> dict[str, Any]:
    to = "i2" if number % 2 == 0 else "i1"
    return client.move("udp", to, priority=10, wait=True, timeout=PATIENCE)


def _over_all(client: Client, number: int) -> dict[str, Any]:
    if number % 2 == 0:
        return client.move("udp", "i4", priority=100, wait=True, timeout=PATIENCE)
    rule = next(rule for rule in client.rules() if rule["priority"] == 100)
    return client.remove_rule(rule["id"], wait=True, timeout=PATIENCE)


def _quarters(client: Client) -> None:
    """A quarter of the flows for each instance, by the last two bits of the port they go to."""
    for quarter in (1, 2, 3):
        match = f"udp,tp_dst={quarter:#x}/0x3"
        done = client.move(match, f"i{quarter + 1}", priority=10, wait=True, timeout=PATIENCE)
        assert done["state"] == "done", done


SCENES = (
    Scene(1, 2, 0.0, _to_and_fro, lambda client: None),
    Scene(100, 2, 0.5, _to_and_fro, lambda client: None),
    Scene(5_000, 4, 0.5, _over_all, _quarters),
)


def run(settings: Settings) -> Report:
    """All situations that the settings want; `passes` times five is the number of moves."""
    moves = settings.passes * 5
    told = {**settings.to_dict(), "moves": moves, "settling_ms": SETTLING_MS}
    survey = Survey(
        "handover", TITLE, told, figures=FIGURES,
        drawn=(("added_p50_ms", "added delay, median"), ("added_p99_ms", "99th percentile")),
    )  # fmt: skip
    for scene in SCENES:
        wanted = [
            (frame, rate)
            for frame in FRAMES
            for rate in RATES
            if settings.wants(name_of(scene, frame, rate))
        ]
        if wanted:
            _measure(survey, scene, wanted, moves, settings.seconds)
    return survey


def name_of(scene: Scene, frame: int, rate: int) -> str:
    """A case's name."""
    return f"{scene.flows}-flows-{frame}-bytes-{rate}"


def _measure(
    survey: Survey, scene: Scene, wanted: Sequence[tuple[int, int]], moves: int, seconds: float
) -> None:
    with ExitStack() as stack:
        bed = stack.enter_context(
            Testbed(
                "bench-handover",
                instances=scene.instances,
                function="bridge",
                ports="afxdp-nonpmd",
                steering=True,
            )
        )
        platform = stack.enter_context(Platform(bed, settling_ms=SETTLING_MS))
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="flowferry-")))
        client = platform.client
        scene.prepare(client)
        bed.run("h1", ["ping", "-c1", "-W5", bed.hosts["h2"].ip4])
        for frame, rate in wanted:
            name = name_of(scene, frame, rate)
            say(f"handover: {name}")
            control = _Run(bed, scene, frame, rate, scratch / "control")
            with control:
                time.sleep(max(CONTROL, 2 * seconds))  # the length of the control run
            under = _Run(bed, scene, frame, rate, scratch / "moves")
            done: list[dict[str, Any]] = []
            with under:
                for number in range(moves):
                    done.append(_move(scene, client, number))
            values = _figures(control, under, done)
            title = f"{scene.flows:,} x {frame:,} B, {rate:,}/s"
            survey.add(name, title, values, within=control.clean)


def _move(scene: Scene, client: Client, number: int) -> dict[str, Any]:
    """Do a move and let its yardstick pass; the handover, with when either began and ended, ns."""
    asked = time.monotonic_ns()
    handover = scene.move(client, number)
    over = time.monotonic_ns()
    time.sleep(PAUSE)  # the pause between two windows
    still = time.monotonic_ns()
    time.sleep((over - asked) / 1e9)  # the length of the yardstick
    quiet = time.monotonic_ns()
    time.sleep(PAUSE)  # the pause between two windows
    return {**handover, "moving": (asked, over), "resting": (still, quiet)}


class _Run:
    """Probe traffic for the length of the block, and its account afterwards."""

    def __init__(self, bed: Testbed, scene: Scene, frame: int, rate: int, timeline: Path) -> None:
        self._bed, self._scene, self._frame, self._rate = bed, scene, frame, rate
        self.timeline = timeline
        self._sending, self._sinking = probe.Control(), probe.Control()
        self.report: probe.SinkReport

    def __enter__(self) -> "_Run":
        spaces, h2 = self._bed.namespaces, self._bed.hosts["h2"]
        self._pool = ThreadPoolExecutor(2)
        self._sink = self._pool.submit(
            probe.sink, netns=spaces["h2"], wait=20.0, timeline=self.timeline,
            control=self._sinking,
        )  # fmt: skip
        self._until(lambda: self._sinking.ready)
        busy = self._scene.flows - round(self._scene.flows * self._scene.quiet)
        # Quiet flows together send a twentieth of the rate, at most one packet a second each.
        idle = self._scene.flows - busy
        quiet_rate = min(1.0, self._rate / 20 / idle) if idle else 1.0
        self._send = self._pool.submit(
            probe.send, h2.ip4, netns=spaces["h1"], flows=self._scene.flows,
            rate=self._rate - quiet_rate * idle, quiet=self._scene.quiet, quiet_rate=quiet_rate,
            frame=self._frame, duration=3600.0, control=self._sending,
        )  # fmt: skip
        self._until(lambda: self._sinking.packets > min(100, self._rate / 5))
        return self

    def _until(self, there: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not there():
            for job in (self._sink, getattr(self, "_send", None)):
                if job is not None and job.done():
                    job.result()
            if time.monotonic() > deadline:
                raise probe.ProbeError("no packet arrives; look whether the machine is overloaded")
            time.sleep(0.002)

    def __exit__(self, kind: object, *_: object) -> None:
        self._sending.stop()
        if kind is not None:
            self._sinking.stop()
        with self._pool:
            if kind is None:
                self._send.result(PATIENCE)
                self.report = self._sink.result(PATIENCE)

    @property
    def clean(self) -> bool:
        """Nothing lost, reordered or doubled."""
        return self.report["clean"]

    def arrivals(self) -> Any:
        """Every packet that came, as records of `ARRIVAL`."""
        return np.fromfile(self.timeline, ARRIVAL)


def _figures(control: _Run, under: _Run, moves: Sequence[dict[str, Any]]) -> dict[str, Any]:
    calm = control.arrivals()
    usual = float(np.median((calm["received"] - calm["sent"]).astype(np.int64))) / 1e6
    longest = _Longest(under.arrivals())
    moving, resting = (
        _percentiles(longest(m[when] for m in moves)) for when in ("moving", "resting")
    )
    added = {
        which: round(max(0.0, moving[which] - resting[which]), 3)
        for which in moving.keys() & resting
    }
    counts = ("captured_packets", "stray_packets", "controller_packets")
    return {
        "control_lost": control.report["lost"],
        "control_p50_ms": usual,
        "moves": len(moves),
        "packets": under.report["received"],
        **{name: under.report[name] for name in ("lost", "reordered", "duplicated")},
        "not_done": sum(move["state"] != "done" for move in moves),
        "flows": max((move["flows"] for move in moves), default=0),
        **_named("longest", moving),
        **_named("still", resting),
        **_named("added", added),
        **_named("fence", _percentiles(move["fence_ms"] for move in moves)),
        **_named("duration", _percentiles(move["duration_ms"] for move in moves)),
        "captured_bytes_peak": max((move["captured_bytes_peak"] for move in moves), default=0),
        **{name: sum(move[name] for move in moves) for name in counts},
        "markers": sum(move.get("markers") or 0 for move in moves),
    }


class _Longest:
    """The longest delay, ms, of the packets sent within each window (begin and end, ns)."""

    def __init__(self, arrivals: Any) -> None:
        arrivals = arrivals[np.argsort(arrivals["sent"], kind="stable")]
        self._sent = arrivals["sent"]
        self._delay = (arrivals["received"] - arrivals["sent"]).astype(np.int64) / 1e6

    def __call__(self, windows: Iterable[tuple[int, int]]) -> Iterator[float]:
        for begin, end in windows:
            first, last = np.searchsorted(self._sent, [begin - BEFORE, end])
            if last > first:
                yield float(self._delay[first:last].max())


def _percentiles(values: Iterable[float | None]) -> dict[str, float]:
    known = [value for value in values if value is not None]
    if not known:
        return {}
    p50, p99 = np.percentile(known, [50, 99])
    return {"p50": round(float(p50), 3), "p99": round(float(p99), 3), "max": round(max(known), 3)}


def _named(name: str, percentiles: dict[str, float]) -> dict[str, float | None]:
    return {f"{name}_{which}_ms": percentiles.get(which) for which in ("p50", "p99", "max")}
