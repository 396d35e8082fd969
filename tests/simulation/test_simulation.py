"""Handovers under random traffic, stale caches and faults: nothing lost, doubled or overtaken.

The real strategy leads the real cores of the agents. Each seed stands for a scenario
(`sim_scenario`); `python tests/simulation SEED --trace` shows what happens in one.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import islice

import pytest
from sim_clock import S
from sim_plants import PLANTS, Plant
from sim_runs import simulate_many
from sim_scenario import Scenario
from sim_world import simulate

from flowferry.controller.strategies import late
from flowferry.wire import Command, Flags, Message
from handover_rows import BEYOND_AGENT, BEYOND_CONTROLLER, beyond


def judge(seeds: range) -> set[str]:
    """Fail with the first few seeds that went wrong; the rows that were taken."""
    failed: list[str] = []
    taken: set[str] = set()
    for outcome in simulate_many(seeds):
        taken |= outcome.rows | outcome.agent_rows
        if outcome.wrong:
            failed.append(f"seed {outcome.seed} ({outcome.fault}): {outcome.wrong[0]}")
    few = "\n".join(islice(failed, 5))
    replay = "replay with: python tests/simulation SEED --trace"
    assert not failed, f"{len(failed)} of {len(seeds)} seeds went wrong; {replay}\n{few}"
    return taken


def test_hundreds_of_seeds() -> None:
    judge(range(500))


@pytest.mark.soak
@pytest.mark.timeout(7_200)
def test_a_hundred_thousand_seeds() -> None:
    taken = judge(range(1_000, 101_000))
    missed = {*beyond(BEYOND_CONTROLLER), *beyond(BEYOND_AGENT)} - taken
    assert not missed, f"taken by no cell of the crash grid, and not here either: {missed}"


@pytest.mark.parametrize("plant", PLANTS.values(), ids=PLANTS.keys())
def test_a_planted_fault_is_found(plant: Plant) -> None:
    scenarios = (plant.into(Scenario.draw(seed)) for seed in range(400))
    assert any(simulate(scenario).wrong for scenario in scenarios), "400 seeds do not show it"


def test_letting_out_what_is_late_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A destination that is not heard of finishes a move that went back without it."""
    scenarios = [
        replace(drawn, fault="unheard_destination", fault_for=S, prelude="none")
        for drawn in map(Scenario.draw, range(400))
        if drawn.fault_on is None
    ]
    assert not any(simulate(scenario).wrong for scenario in scenarios)

    def let_go(to: int, handover: int, at: int | None) -> Message:
        flags = Flags.UNFENCED | Flags.STATE_LOST
        return Message(command=Command.RELEASE, to=to, handover=handover, flags=flags)

    monkeypatch.setattr(late, "last_word", let_go)
    assert any(simulate(scenario).wrong for scenario in scenarios), "these do not show it"


def test_without_a_planted_fault_the_same_scenarios_are_right() -> None:
    for seed in range(60):
        for fault in ("none", "abort", "refuse"):
            outcome = simulate(Plant(fault=fault).into(Scenario.draw(seed)))
            assert not outcome.wrong, (seed, fault)
