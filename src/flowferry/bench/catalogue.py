"""Which experiments there are."""

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass

from flowferry.bench.report import Report
from flowferry.bench.settings import Settings


@dataclass(frozen=True)
class Experiment:
    """A module with `run(settings) -> Report`, loaded when it is wanted."""

    name: str
    help: str

    @property
    def module(self) -> str:
        """Where it lives."""
        return f"flowferry.bench.{self.name}"

    def installed(self) -> bool:
        """Whether this installation has it."""
        return importlib.util.find_spec(self.module) is not None

    def run(self, settings: Settings) -> Report:
        """Measure."""
        job: Callable[[Settings], Report] = importlib.import_module(self.module).run
        return job(settings)


EXPERIMENTS = {
    each.name: each
    for each in (
        Experiment("passthrough", "what an idle handover layer costs, either shim"),
        Experiment("capture", "capture and release without a pause"),
        Experiment("probe", "the probe's small-packet rate beside iperf3's"),
    )
    if each.installed()
}
