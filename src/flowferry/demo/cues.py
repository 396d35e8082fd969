"""What is held, when and how long: worked out beforehand, so that every demo does the same."""

import random
from dataclasses import dataclass

from flowferry.hsl.client import BOTH, Side

#: Milliseconds.
SHORTEST, LONGEST = 1.0, 100.0
#: Seconds before the first hold and after the last one: what the path does by itself.
MARGIN = 1.0
#: Ports of the UDP flows, from here on; the first flow is also held alone.
FIRST_PORT = 7000


@dataclass(frozen=True)
class Cue:
    """One hold to come."""

    #: What people call it.
    title: str
    match: str
    sides: tuple[Side, ...]
    #: Seconds after the traffic has begun.
    at: float
    #: Milliseconds.
    length: float


#: Everything, each kind alone, one flow among others, and one direction only.
SCENES: tuple[tuple[str, str, tuple[Side, ...]], ...] = (
    ("everything", "*", BOTH),
    ("all UDP", "udp", BOTH),
    ("TCP", "tcp", BOTH),
    ("one UDP flow", f"udp,tp_dst={FIRST_PORT}", BOTH),
    ("TCP, answers only", "tcp", ("downstream",)),
    ("ping", "icmp6", BOTH),
)


def plan(holds: int, duration: float, seed: int = 1) -> list[Cue]:
    """`holds` cues of 1 to 100 ms, evenly placed in `duration` seconds.

    The lengths are evenly spaced on a logarithmic scale and then shuffled. Raises `ValueError`
    if they do not fit: each needs its own length and as much again to settle.
    """
    if holds < 1:
        raise ValueError("at least one hold is needed")
    slot = (duration - 2 * MARGIN) / holds
    if slot < 2 * LONGEST / 1e3:
        least = holds * 2 * LONGEST / 1e3 + 2 * MARGIN
        raise ValueError(
            f"{holds} holds do not fit into {duration:g} s; give them {least:g} s or more"
        )
    ratio = LONGEST / SHORTEST
    lengths = [SHORTEST * ratio ** (k / max(holds - 1, 1)) for k in range(holds)]
    random.Random(seed).shuffle(lengths)
    return [
        Cue(*SCENES[k % len(SCENES)], at=MARGIN + k * slot, length=length)
        for k, length in enumerate(lengths)
    ]
