"""The probe's packet rate beside iperf3's (`bench/probe.py`), as a report like the others."""

import csv
from pathlib import Path
from tempfile import TemporaryDirectory

from flowferry.bench import probe
from flowferry.bench.report import Case, Goal, Report
from flowferry.bench.settings import Settings

TITLE = "Small UDP packets delivered by the probe against iperf3 on the same path"
YARDSTICK = "iperf3"
TITLES = {
    "probe": "probe, 64 flows, 2 threads",
    "probe-1-thread": "probe, 64 flows, 1 thread",
    "probe-1-flow": "probe, 1 flow",
    "probe-5000-flows": "probe, 5,000 flows",
    "probe-20000-flows": "probe, 20,000 flows",
}


def run(settings: Settings) -> Report:
    """Every variant of the probe; the goal is judged on the first."""
    report = Report("probe", TITLE, settings.to_dict())
    chosen = [name for name in probe.VARIANTS if settings.wants(name)]
    if not chosen:
        return report
    with TemporaryDirectory() as directory:
        probe.run(Path(directory), quick=settings == Settings.quick(settings.only))
        with (Path(directory) / "probe.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
    delivered = {
        name: [float(row["delivered_per_second"]) for row in rows if row["program"] == name]
        for name in (YARDSTICK, *chosen)
    }
    for name in chosen:
        both = {YARDSTICK: delivered[YARDSTICK], name: delivered[name]}
        goal = Goal(2.0) if name == "probe" else None
        title = TITLES.get(name, name)
        report.cases.append(Case(name, title, "packets/s", YARDSTICK, name, both, goal))
    return report
