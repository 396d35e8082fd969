"""Figures for Prometheus. A registry of their own, so that several controllers fit one process."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

CONTENT_TYPE = CONTENT_TYPE_LATEST
#: Seconds: from one marker round to long state transfers.
BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)


class Metrics:
    """What the controller counts; `flowferry_…`."""

    def __init__(self) -> None:
        """All zero."""
        self.registry = CollectorRegistry()
        there = self.registry
        self.handovers = Counter(
            "flowferry_handovers_total",
            "Handovers that have ended.",
            ["state", "strategy"],
            registry=there,
        )
        self.packets = Counter(
            "flowferry_packets_total",
            "Packets by what handovers did with them.",
            ["kind"],
            registry=there,
        )
        self.frames = Counter(
            "flowferry_control_frames_total",
            "Control frames by direction and outcome.",
            ["direction", "outcome"],
            registry=there,
        )
        self.duration = Histogram(
            "flowferry_handover_seconds", "From beginning to end.", buckets=BUCKETS, registry=there
        )
        self.fence = Histogram(
            "flowferry_fence_seconds",
            "From first packet to fence.",
            buckets=BUCKETS,
            registry=there,
        )
        self.under_way = Gauge("flowferry_handovers_under_way", "Not ended yet.", registry=there)
        self.switches = Gauge("flowferry_switches_connected", "Switches connected.", registry=there)
        self.instances = Gauge("flowferry_instances", "Instances known.", registry=there)
        self.rules = Gauge("flowferry_rules", "Rules in force.", registry=there)

    def ended(self, handover: dict[str, object]) -> None:
        """Count a handover that is over, by its JSON."""
        self.handovers.labels(str(handover["state"]), str(handover["strategy"])).inc()
        for kind in ("captured", "stray", "lost", "controller"):
            value = handover[f"{kind}_packets"]
            assert isinstance(value, int)
            self.packets.labels(kind).inc(value)
        for name, histogram in (("duration_ms", self.duration), ("fence_ms", self.fence)):
            took = handover[name]
            if isinstance(took, int | float):
                histogram.observe(took / 1e3)

    def text(self) -> bytes:
        """The exposition."""
        return generate_latest(self.registry)
