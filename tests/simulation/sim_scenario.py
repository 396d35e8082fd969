"""What a seed stands for: topology, traffic, delays, and a fault or two beside a bad network."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from random import Random
from typing import TYPE_CHECKING

from sim_clock import MS, US, S

from flowferry import _native
from flowferry.controller.strategies.base import Settings
from flowferry.controller.strategies.direct_table import TRANSITIONS

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
    "controller_stopped": 4,
    "cut": 6,
    "cut_for_good": 3,
    "source_killed": 6,
    "destination_killed": 6,
    "source_stopped": 5,
    "destination_stopped": 5,
    "paused": 6,
    "pressure": 4,
    "return_fails": 3,
    "unheard_source": 4,
    "unheard_destination": 4,
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
        "controller_stopped",
        "paused",
        "pressure",
        "return_fails",
        "unheard_source",
        "unheard_destination",
    }
)

#: State does not come, or too late.
STATE_FAULTS = frozenset({"export_fails", "import_fails", "transfer_late"})

#: What may happen before the fault, so that it meets the way back or a restart.
PRELUDES = ("abort", "refuse", "controller_killed", "source_killed", "destination_killed")
#: What brings a handover to its way back, and the steps that are taken there.
TURNS_BACK = ("abort", "abort", "refuse", "cut", "cut_for_good", "export_fails")
WAY_BACK = ("withdrawing", "halting", "regaining", "reverting", "returning", "alone", "clearing",
            "resuming")  # fmt: skip
#: Rows of the controller's table, and steps of an agent's, at which a fault may come.
STEPS = (
    *(row.name for row in TRANSITIONS),
    *sorted({row["to"] for row in json.loads(_native.hsl_handover_table())}),
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
    #: The step at which it comes instead, if that is taken.
    fault_on: str | None = None
    #: How long the fault lasts, where it does.
    fault_for: int = 0
    #: Another one before it, and when.
    prelude: str = "none"
    prelude_at: int = 0
    fault_part: int = 1
    there_and_back: bool = False
    #: Nanoseconds that giving and taking state costs at most, each.
    slow: int = 5 * MS
    #: Functions serve flows that begin meanwhile.
    new_flows: bool = True
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
        # A step may be overdue before its agent is taken for dead; not by bad luck with frames.
        short = not bad and random.random() < 0.4
        settings = replace(SETTINGS, deadline_ms=150) if short else SETTINGS
        step = random.choice(STEPS) if random.random() < 0.4 else None
        prelude = random.choice(PRELUDES) if random.random() < 0.15 else "none"
        if fault == "return_fails" or (step is not None and step.startswith(WAY_BACK)):
            prelude = random.choice(TURNS_BACK)
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
            fault_on=step,
            prelude=prelude,
            prelude_at=int(30 * MS * random.random() ** 3),
            settings=settings,
            slow=random.choice((*[5 * MS] * 4, 60 * MS, 400 * MS, 1_500 * MS)),
            new_flows=random.random() < 0.8,
        )

    @property
    def faults(self) -> tuple[str, str]:
        """Both."""
        return (self.prelude, self.fault)
