"""How many small packets per second the probe carries, next to iperf3 on the same path.

Both send 18-byte payloads as fast as they can over one veth pair between two namespaces, in turns:
each pair of runs gives one ratio, and the order within a pair alternates, so that whatever else the
machine does hits both alike. What counts is packets *delivered* per second of sending; iperf3 loses
up to two thirds of its own, so the ratio to what it *sent* is given as well. Variants of the probe
show what one thread, one flow and many flows do.

    python -m flowferry.bench.probe results/probe
"""

from __future__ import annotations

import csv
import json
import random
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from flowferry import probe
from flowferry.testbed import Pair

__all__ = ["run"]

PAYLOAD = 18
#: Name of a variant to the options of `probe.send`; the first is the one run next to iperf3.
VARIANTS: dict[str, dict[str, Any]] = {
    "probe": {"flows": 64, "threads": 2},
    "probe-1-thread": {"flows": 64},
    "probe-1-flow": {"flows": 1},
    "probe-5000-flows": {"flows": 5000, "threads": 2},
    "probe-20000-flows": {"flows": 20_000, "threads": 2},
}
RESAMPLES = 10_000


@dataclass(frozen=True)
class Sample:
    """One run of one program."""

    pair: int
    program: str
    sent_per_second: float
    delivered_per_second: float
    lost: int


def run(out_dir: Path, quick: bool = False) -> dict[str, Any]:
    """Measure, write `probe.csv` and `probe.json` to `out_dir`, and return what the latter holds.

    Raises `RuntimeError` if iperf3 is not installed or fails, `TestbedError` without the rights.
    """
    if shutil.which("iperf3") is None:
        raise RuntimeError("iperf3 is not installed; install it to have something to compare with")
    pairs, seconds = (3, 1.0) if quick else (15, 2.0)
    samples: list[Sample] = []
    with Pair(static_neighbours=True) as path:
        for number in range(pairs):
            order: list[tuple[str, Callable[[], Sample]]] = [
                ("iperf3", lambda number=number: _iperf3(path, number, seconds)),  # type: ignore[misc]
                ("probe", lambda number=number: _probe(path, number, "probe", seconds)),  # type: ignore[misc]
            ]
            for _, measure in order if number % 2 == 0 else reversed(order):
                samples.append(measure())
            samples += [_probe(path, number, name, seconds) for name in list(VARIANTS)[1:]]
    out_dir.mkdir(parents=True, exist_ok=True)
    with (out_dir / "probe.csv").open("w", newline="") as file:
        rows = csv.DictWriter(file, list(asdict(samples[0])))
        rows.writeheader()
        rows.writerows(asdict(sample) for sample in samples)
    result = _summary(samples, seconds)
    (out_dir / "probe.json").write_text(json.dumps(result, indent=2) + "\n")
    return result


def _probe(path: Pair, number: int, name: str, seconds: float) -> Sample:
    with ThreadPoolExecutor(1) as pool:
        control = probe.Control()
        sunk = pool.submit(
            probe.sink, netns=path.namespaces["h2"], control=control, per_flow="none"
        )
        try:
            sent = probe.send(
                path.hosts["h2"].ip4,
                netns=path.namespaces["h1"],
                payload=PAYLOAD,
                duration=seconds,
                **VARIANTS[name],
            )
        except BaseException:
            control.stop()
            raise
        got = sunk.result()
    took = sent["duration_ns"] / 1e9
    return Sample(number, name, sent["sent"] / took, got["received"] / took, got["lost"])


def _iperf3(path: Pair, number: int, seconds: float) -> Sample:
    enter = ["ip", "netns", "exec"]
    server = subprocess.Popen(
        [*enter, path.namespaces["h2"], "iperf3", "-s", "-1", "--forceflush"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert server.stdout is not None
        for line in server.stdout:
            if "listening" in line:
                break
        words = f"iperf3 -u -l {PAYLOAD} -b 0 -t {seconds:g} -J -c {path.hosts['h2'].ip4}".split()
        client = subprocess.run(
            [*enter, path.namespaces["h1"], *words], capture_output=True, text=True, check=False
        )
        report = json.loads(client.stdout)
        if "error" in report:
            raise RuntimeError(f"iperf3 failed: {report['error']}")
        server.communicate(timeout=10)
    finally:
        server.kill()
        server.wait()
    # "sum" counts on the receiving side; packets are those the sender numbered.
    total = report["end"]["sum"]
    took, lost = total["seconds"], total["lost_packets"]
    return Sample(number, "iperf3", total["packets"] / took, (total["packets"] - lost) / took, lost)


def _summary(samples: Sequence[Sample], seconds: float) -> dict[str, Any]:
    programs = list(dict.fromkeys(sample.program for sample in samples))
    delivered = {
        name: [s.delivered_per_second for s in samples if s.program == name] for name in programs
    }
    yardstick = {s.pair: s for s in samples if s.program == "iperf3"}

    def ratio(name: str, base: Callable[[Sample], float]) -> dict[str, Any]:
        values = [
            s.delivered_per_second / base(yardstick[s.pair]) for s in samples if s.program == name
        ]
        return {"median": statistics.median(values), "ci95": _interval(values)}

    return {
        "payload_bytes": PAYLOAD,
        "seconds_per_run": seconds,
        "pairs": len(yardstick),
        "median_delivered_per_second": {
            name: round(statistics.median(values)) for name, values in delivered.items()
        },
        "median_lost": {
            name: statistics.median(s.lost for s in samples if s.program == name)
            for name in programs
        },
        "ratio_to_iperf3_delivered": {
            name: ratio(name, lambda s: s.delivered_per_second) for name in VARIANTS
        },
        "ratio_to_iperf3_sent": {
            name: ratio(name, lambda s: s.sent_per_second) for name in VARIANTS
        },
    }


def _interval(values: Sequence[float]) -> tuple[float, float]:
    """95 % confidence interval of the median, by the bootstrap's percentiles."""
    draw = random.Random(1)
    medians = sorted(
        statistics.median(draw.choices(values, k=len(values))) for _ in range(RESAMPLES)
    )
    return medians[int(RESAMPLES * 0.025)], medians[int(RESAMPLES * 0.975)]


if __name__ == "__main__":
    print(json.dumps(run(Path(sys.argv[1]), quick="--quick" in sys.argv[2:]), indent=2))
