"""What the native cores say of themselves: transition tables, and whether they know a match."""

import json
from dataclasses import dataclass

from flowferry import _native


@dataclass(frozen=True)
class Transition:
    """One row: in state `from_`, on `event`, do `duty` and be in state `to`."""

    from_: str
    event: str
    to: str
    duty: str


def transitions() -> list[Transition]:
    """The life of a flow on one side, all of it; what is not here is refused."""
    return [
        Transition(row["from"], row["event"], row["to"], row["duty"])
        for row in json.loads(_native.hsl_table())
    ]


def transitions_as_dot() -> str:
    """The same as a Graphviz graph."""
    return _native.hsl_table_dot()


def handover_transitions() -> list[Transition]:
    """The steps of one part of a handover at one agent; what is not here is refused."""
    return [
        Transition(row["from"], row["event"], row["to"], row["duty"])
        for row in json.loads(_native.hsl_handover_table())
    ]


def handover_transitions_as_dot() -> str:
    """The same as a Graphviz graph, without what ends with an epoch."""
    return _native.hsl_handover_table_dot()


def check_match(text: str) -> str:
    """`text` if it is a match (docs/hsl.md). Raises `ValueError` that says why not."""
    return _native.hsl_match(text)
