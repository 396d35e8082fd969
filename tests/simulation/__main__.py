"""Replay a seed: `python tests/simulation SEED [--trace]`; or try many: `… FIRST LAST`."""

import sys
import time

from sim_clock import MS, S
from sim_scenario import Scenario
from sim_world import simulate


def main() -> int:
    seeds = [int(word) for word in sys.argv[1:] if word.isdigit()]
    trace = "--trace" in sys.argv
    if len(seeds) == 1:
        scenario = Scenario.draw(seeds[0])
        print(scenario)
        show = (lambda at, text: print(f"{(at - S) / MS:10.3f}  {text}")) if trace else None
        wrong = simulate(scenario, show)
        print("\n".join(wrong) or "nothing wrong")
        return bool(wrong)
    began, failed = time.perf_counter(), 0
    for seed in range(*seeds):
        scenario = Scenario.draw(seed)
        try:
            wrong = simulate(scenario)
        except Exception as error:
            wrong = [repr(error)]
        if wrong:
            failed += 1
            print(seed, scenario.fault, wrong[:2])
    print(f"{failed} failed of {len(range(*seeds))}, {time.perf_counter() - began:.1f} s")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
