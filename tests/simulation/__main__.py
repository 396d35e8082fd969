"""Run seeds: `python tests/simulation SEED [--trace]` replays one, `... FIRST LAST` tries many."""

import argparse
import sys
import time
from collections import Counter

from sim_clock import MS, S
from sim_runs import simulate_many
from sim_scenario import Scenario
from sim_world import simulate


def replay(seed: int, trace: bool) -> bool:
    """Show what happens in one run."""
    scenario = Scenario.draw(seed)
    print(scenario)
    outcome = simulate(scenario, _show if trace else None)
    print("\n".join(outcome.wrong) or f"nothing wrong; ended {', '.join(outcome.ends)}")
    return bool(outcome.wrong)


def _show(at: int, text: str) -> None:
    print(f"{(at - S) / MS:10.3f}  {text}")


def many(first: int, last: int) -> bool:
    """Run all seeds from `first` up to, without, `last`; print those that fail."""
    began, failed = time.perf_counter(), 0
    ends: Counter[str] = Counter()
    for outcome in simulate_many(range(first, last)):
        ends.update(outcome.ends)
        if outcome.wrong:
            failed += 1
            print(f"seed {outcome.seed} ({outcome.fault}): {outcome.wrong[0]}", flush=True)
    print(f"{failed} of {last - first} seeds failed, {time.perf_counter() - began:.0f} s;", end=" ")
    print("handovers ended", ", ".join(f"{end} {n}" for end, n in sorted(ends.items())))
    return bool(failed)


def main() -> int:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="tests/simulation", description="Replay one seed, or run all from FIRST up to LAST."
    )
    parser.add_argument("first", type=int, metavar="FIRST", help="the seed, or the first of many")
    parser.add_argument("last", type=int, metavar="LAST", nargs="?", help="not run any more")
    parser.add_argument("--trace", action="store_true", help="show what happens to the one seed")
    asked = parser.parse_args()
    if asked.last is None:
        return replay(asked.first, asked.trace)
    if asked.trace or asked.last <= asked.first:
        parser.error("LAST has to be greater than FIRST, and --trace is for one seed")
    return many(asked.first, asked.last)


if __name__ == "__main__":
    sys.exit(main())
