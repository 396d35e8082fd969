"""Which experiments there are."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass

from flowferry.bench.report import Report
from flowferry.bench.settings import Settings


@dataclass(frozen=True)
class Experiment:
    """A module with `run(settings) -> Report`, loaded when it is wanted."""

    name: str
    help: str
    module: str
    #: Whether its testbed has switches.
    switches: bool = False

    def run(self, settings: Settings) -> Report:
        """Measure."""
        module = importlib.import_module(f"flowferry.bench.{self.module}")
        job: Callable[[Settings], Report] = module.run
        return job(settings)


EXPERIMENTS = {
    each.name: each
    for each in (
        Experiment("passthrough", "what an idle handover layer costs, either shim", "passthrough"),
        Experiment("capture", "capture and release without a pause", "capture"),
        Experiment("handover", "moves of live flows: delay, order, loss", "handover", True),
        Experiment("fence", "packets behind a marker: a barrier reply is no fence", "fence", True),
        Experiment("tls", "what TLS costs between instances: state and strays", "tls", True),
        Experiment("state", "the state store beside dict, C, Redis, UDP and ZeroMQ", "state"),
        Experiment("probe", "the probe's small-packet rate beside iperf3's", "small_packets"),
    )
}
