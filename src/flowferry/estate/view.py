"""What global reads ask for and find."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Literal, TypeAlias, TypeVar

from flowferry._native import EstateFound as Item

__all__ = ["Cached", "Consistency", "Event", "GlobalRead", "Item", "Live", "Snapshot", "View"]

T_co = TypeVar("T_co", covariant=True)

Value: TypeAlias = bytes | str | int | float
"""What an item can hold without a codec. Ints have 64 bits with sign."""

Require: TypeAlias = Literal["all", "quorum"] | int
"""How many members have to answer."""


@dataclass(frozen=True, slots=True)
class Live:
    """Every member is asked now, and each answers with what it has when it is asked."""


@dataclass(frozen=True, slots=True)
class Cached:
    """A view that is kept here, at most `max_age` seconds old (1 ms at least)."""

    max_age: float


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Every member answers as of one instant: a consistent cut."""


Consistency: TypeAlias = Live | Cached | Snapshot

LIVE = Live()


@dataclass(frozen=True, slots=True)
class View(Generic[T_co]):
    """What a global read found, and who said so."""

    value: T_co | None
    """What the reducer made of it; None if nobody has a matching item (`count`: 0)."""
    items: Sequence[Item]
    """The items that went into a function of yours, or the siblings for `causal`."""
    answered: tuple[str, ...]
    """Members whose items are in it, by name."""
    missing: tuple[str, ...]
    """Members that were expected and have not answered, by name."""
    complete: bool
    """Whether nobody is missing."""
    oldest: float | None
    """How old the oldest part may be, in seconds; None for an answer given now."""


@dataclass(frozen=True, slots=True)
class Event:
    """An item was written, or has gone."""

    node: str
    key: str
    item: Item | None
    """The item as it is now; None if it has gone."""


@dataclass(frozen=True, slots=True)
class GlobalRead:
    """Another member has read globally what is here."""

    by: str
    """Who asked."""
    pattern: str
    """The key or the pattern that it asked for."""
