"""Many seeds on all CPUs that we may use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

from sim_world import Outcome, simulate_seed


def simulate_many(seeds: range) -> Iterator[Outcome]:
    """The outcomes of many seeds, in their order."""
    with ProcessPoolExecutor(max_workers=len(os.sched_getaffinity(0))) as pool:
        yield from pool.map(simulate_seed, seeds, chunksize=max(1, min(100, len(seeds) // 8)))
