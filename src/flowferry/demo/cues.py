"""What moves, where to and with how much state: worked out beforehand, the same for every demo.

Each scene is a rule; a move gives it its other target. Rules lie inside one another: one UDP flow
among all UDP flows, all within everything; a higher rule keeps its flows when a lower one moves.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

#: Bytes of state.
MOST_STATE = 10_000_000
LEAST_STATE = 1_000
#: One move in so many carries no state.
STATELESS = 4
#: Ports of the UDP flows, from here on; of the bulk transfer; of the requests and answers.
FIRST_PORT = 7000
BULK_PORT = 5001
SESSION_PORT = 5002


@dataclass(frozen=True)
class Scene:
    """Traffic that moves together: a rule."""

    #: What people call it.
    title: str
    match: str
    priority: int
    #: Title of the scene that it is part of.
    within: str | None = None

    def holds(self, other: "Scene") -> bool:
        """Whether the other's flows are all among its own."""
        if self.match == "*" or self == other:
            return True
        return other.within == self.title


EVERYTHING = Scene("everything else", "*", 1)
UDP = Scene("all UDP", "udp", 10)
BULK = Scene("TCP bulk", f"tcp,tp_dst={BULK_PORT}", 10)
PING = Scene("ping", "icmp6", 10)
ONE = Scene("one UDP flow", f"udp,tp_dst={FIRST_PORT}", 20, within="all UDP")
OVER_ALL = Scene("all at once", "*", 100)
SCENES = (EVERYTHING, UDP, BULK, PING, ONE, OVER_ALL)
#: The order of the play; the rule over all is added, then removed, so that all go back home.
PLAY = (EVERYTHING, UDP, ONE, BULK, PING, UDP, ONE, OVER_ALL, OVER_ALL, BULK)


@dataclass(frozen=True)
class Cue:
    """One move to come."""

    scene: Scene
    #: The instance that the rule points to afterwards; None: the rule is removed.
    to: str | None
    #: Bytes of state that go with it.
    state: int

    @property
    def title(self) -> str:
        """One line's worth."""
        return f"{self.scene.title} → {self.to or 'home'}"


def plan(moves: int, instances: Sequence[str] = ("i1", "i2"), seed: int = 1) -> list[Cue]:
    """`moves` cues. All begins at the first instance. Raises `ValueError` if there are too few."""
    if moves < 1:
        raise ValueError("at least one move is needed")
    if len(instances) < 2:
        raise ValueError("at least two instances are needed")
    rules: dict[Scene, str] = {}

    def place(scene: Scene) -> str:
        """Where most of the scene's flows are: the highest rule around it says so."""
        around = [rule for rule in rules if rule.holds(scene)]
        return rules[max(around, key=lambda rule: rule.priority)] if around else instances[0]

    cues = []
    for number, size in enumerate(_sizes(moves, seed)):
        scene = PLAY[number % len(PLAY)]
        if scene is OVER_ALL and scene in rules:
            del rules[scene]
            cues.append(Cue(scene, None, size))
            continue
        # What is seen to move by the rule over all is UDP, most of the traffic.
        here = place(UDP if scene is OVER_ALL else scene)
        rules[scene] = instances[(instances.index(here) + 1) % len(instances)]
        cues.append(Cue(scene, rules[scene], size))
    return cues


def _sizes(moves: int, seed: int) -> list[int]:
    """Evenly spaced on a logarithmic scale, some zero, shuffled."""
    stateful = moves - moves // STATELESS
    ratio = MOST_STATE / LEAST_STATE
    sizes = [round(LEAST_STATE * ratio ** (k / max(stateful - 1, 1))) for k in range(stateful)]
    sizes += [0] * (moves - stateful)
    random.Random(seed).shuffle(sizes)
    return sizes
