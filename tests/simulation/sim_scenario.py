"""What a seed stands for: topology, traffic, delays, and at most one fault beside a bad network."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING

from sim_clock import MS, US, S

from flowferry.controller.strategies.base import Settings

if TYPE_CHECKING:
    from sim_plants import Plant

DESTINATION = 9
SETTINGS = Settings(
    deadline_ms=500,
    transfer_ms=2_000,
    settling_ms=300,
    cache_ms=60,
    retry_ms=10,
    retry_limit_ms=100,
)

#: Faults with their weights. Those in `HARMLESS` may cost time and nothing else.
FAULTS = {
    "none": 30,
    "abort": 12,
    "refuse": 5,
    "switch_gone": 6,
    "export_fails": 4,
    "import_fails": 4,
    "transfer_late": 2,
    "controller_killed": 10,
    "cut": 6,
    "cut_for_good": 3,
    "source_killed": 6,
    "destination_killed": 6,
    "source_stopped": 5,
    "destination_stopped": 5,
    "paused": 6,
    "pressure": 4,
}
HARMLESS = frozenset(
    {
        "none",
        "abort",
        "refuse",
        "switch_gone",
        "export_fails",
        "import_fails",
        "transfer_late",
        "controller_killed",
        "paused",
        "pressure",
    }
)


@dataclass
class Scenario:
    """Everything that is drawn before the run begins."""

    seed: int
    parts: int = 1
    flows: int = 3
    one_way: bool = False
    function: bool = True
    steering: int = 2
    stall: float = 0.0
    stale: int = 0
    loss: float = 0.0
    doubling: float = 0.0
    lateness: float = 0.0
    forgery: bool = False
    fault: str = "none"
    fault_at: int = 0
    #: How long the fault lasts, where it does.
    fault_for: int = 0
    fault_part: int = 1
    there_and_back: bool = False
    #: Planted, to show that it is found.
    plant: Plant | None = None
    settings: Settings = field(default_factory=lambda: SETTINGS)

    @classmethod
    def draw(cls, seed: int) -> Scenario:
        """The scenario of a seed."""
        random = Random(seed)
        fault = random.choices(list(FAULTS), list(FAULTS.values()))[0]
        bad = random.random() < 0.4
        parts = random.choice((1, 1, 1, 2, 3))
        at = random.choice((0, 5 * MS, 20 * MS, 100 * MS, 400 * MS)) * random.random()
        return cls(
            seed=seed,
            parts=parts,
            flows=random.randint(1, 4),
            one_way=random.random() < 0.08,
            function=random.random() < 0.6,
            steering=random.choice((1, 2, 4)),
            stall=random.choice((0.0, 0.01, 0.1)),
            stale=random.choice((0, 1 * MS, 8 * MS, 55 * MS)),
            loss=random.choice((0.02, 0.1, 0.25)) if bad else 0.0,
            doubling=0.1 if bad else 0.0,
            lateness=random.choice((0.0, 0.1)) if bad else 0.0,
            forgery=random.random() < 0.1,
            fault=fault,
            fault_at=int(at + 200 * US * random.random()),
            fault_for=int(random.choice((20 * MS, 150 * MS, 2 * S)) * (0.5 + random.random())),
            fault_part=random.randint(1, parts),
            there_and_back=random.random() < 0.3,
        )
