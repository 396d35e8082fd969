"""What a change of rules is left to be when some of its parts go back.

Some flows of an old rule then go where the change says, others where they went before. Its slot,
and one more directly before it, have to express that: the slot keeps one target, and flows that go
elsewhere have rules in the one before. Switches do not say which of two overlapping entries of one
priority wins, so rules that share it are cut until none overlaps another.

Protocols have no bits to cut by, so three rules inside each other may take hundreds, and deeper
ones more than a table holds: `check` refuses those while nothing has begun.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice, takewhile

from flowferry.controller.change import Change
from flowferry.controller.match import both, covers, families, outside, text
from flowferry.controller.model import BOTH_SIDES, DEFAULT_RULE, UPSTREAM, Model, ModelError, Rule
from flowferry.controller.partition import Part
from flowferry.wire import Match, Side

Sides = tuple[Side, ...]
#: Entries that what is left of one old rule may need.
MOST_PIECES = 1_000


@dataclass(frozen=True, slots=True)
class _Way:
    """Flows that match go to the target, unless an earlier one of the list takes them."""

    match: Match
    target: int


@dataclass(frozen=True, slots=True)
class _Face:
    """An old rule on one side: the ways of its flows, and what stands directly before it."""

    ways: tuple[_Way, ...]
    #: What is left of earlier moves.
    there: tuple[Match, ...]

    def stays(self, old: Rule) -> bool:
        """Whether all flows go as before."""
        return all(way.target == old.target for way in self.ways)

    def pieces(self, kept: int | None) -> Iterator[_Way]:
        """Rules that do not overlap, for whatever does not go to `kept`."""
        for at, way in enumerate(self.ways):
            if way.target == kept:
                continue
            ahead = [other.match for other in self.ways[:at] if other.target != way.target]
            for piece in outside(way.match, [*self.there, *ahead]):
                yield _Way(piece, way.target)


def check(change: Change, before: Model) -> None:
    """Whether each of the change's parts could go back by itself. Raises `ModelError`."""
    after = change.apply(before)
    for old in before.rules_of(change.group):
        for face in _faces(old, before, after, None).values():
            if face.stays(old):
                continue
            apart = tuple(replace(way, target=at) for at, way in enumerate(face.ways))
            pieces = replace(face, ways=apart).pieces(None)
            if len(list(islice(pieces, MOST_PIECES))) == MOST_PIECES:
                raise ModelError(
                    f"the rules that overlap {text(old.match)} are too many, one inside the other, "
                    "to be changed at once; move some of their flows first"
                )


def turned_back(
    change: Change,
    before: Model,
    parts: Sequence[Part],
    back: Iterable[int],
    ids: Iterable[int],
) -> Change:
    """What is left of `change`.

    before   the model that the change was applied to
    back     numbers of the parts whose flows are to go where they went before
    ids      for rules that this needs

    All parts back: the change is nothing.
    """
    gone = set(back)
    moved = [part for part in parts if part.number not in gone]
    after, numbers = change.apply(before), iter(ids)
    put: list[Rule] = []
    drop: list[int] = []
    default: int | None = None
    for old in before.rules_of(change.group):
        faces = _faces(old, before, after, moved)
        if all(face.stays(old) for face in faces.values()):
            continue
        kept, pieces = _fewest(old, faces)
        if kept is None:
            drop.append(old.id)
        elif kept != old.target and old.id == DEFAULT_RULE:
            default = kept
        elif kept != old.target:
            put.append(replace(old, target=kept))
        for way, sides in pieces.items():
            put.append(
                Rule(
                    next(numbers),
                    change.group,
                    way.match,
                    old.priority,
                    way.target,
                    one_way=sides == (UPSTREAM,),
                    before_equal=True,
                    other_way=UPSTREAM not in sides,
                )
            )
    return Change(change.group, tuple(put), tuple(drop), default)


def _faces(
    old: Rule, before: Model, after: Model, moved: Sequence[Part] | None
) -> dict[Side, _Face]:
    """`moved`: flows go by these parts, the others stay; `None`: all of them go."""
    faces = {}
    for side in filter(old.on, BOTH_SIDES):
        there = tuple(
            one.match
            for one in before.rules_of(old.group)
            if one.on(side) and one.before_equal and one.priority == old.priority
        )
        ways = _ways(old, before, after, moved, side)
        faces[side] = _Face(tuple(ways), () if old.before_equal else there)
    return faces


def _ways(
    old: Rule, before: Model, after: Model, moved: Sequence[Part] | None, side: Side
) -> list[_Way]:
    """Where the flows of an old rule go that come from a side, the first that matches decides."""
    above = [one.match for one in _higher(old, before) if one.on(side)]
    found: list[_Way] = []
    for new in after.rules_of(old.group):
        inside = both(old.match, new.match) if new.on(side) else None
        for match in () if inside is None else families(inside):
            if any(covers(way.match, match) for way in found):
                continue
            goes = moved is None or any(
                (part.match, part.source, part.destination) == (match, old.target, new.target)
                and side in part.sides
                for part in moved
            )
            mine = not any(covers(one, match) for one in above)
            found.append(_Way(match, new.target if goes and mine else old.target))
    return found


def _higher(old: Rule, before: Model) -> Iterator[Rule]:
    return takewhile(lambda one: one.id != old.id, before.rules_of(old.group))


def _fewest(old: Rule, faces: Mapping[Side, _Face]) -> tuple[int | None, dict[_Way, Sides]]:
    """The target that the old rule's slot keeps, and the rules before it: as few as there can be.

    What is itself directly before another rule has no slot before it, and is cut up whole.
    """
    targets = {way.target for face in faces.values() for way in face.ways} - {old.target}
    candidates = [None] if old.before_equal else [old.target, *sorted(targets)]
    choices = [(kept, _by_side(faces, kept)) for kept in candidates]
    return min(choices, key=lambda choice: len(choice[1]))


def _by_side(faces: Mapping[Side, _Face], kept: int | None) -> dict[_Way, Sides]:
    """The pieces of both faces, with the sides that each is for."""
    pieces: dict[_Way, Sides] = {}
    for side, face in faces.items():
        for piece in face.pieces(kept):
            pieces[piece] = (*pieces.get(piece, ()), side)
    return pieces
