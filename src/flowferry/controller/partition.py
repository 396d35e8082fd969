"""Which flows move from where to where when rules change.

The rules before and the rules after cut the flows into regions; in each, all flows have one old
instance and one new one. Regions where both are the same vanish: nothing is touched there. What is
left are the *parts* of a handover, each with exactly one source and one destination, one match and
a list of excepts. So every flow has one source that its headers alone determine, whether rules are
added, moved or removed, and whatever they overlap.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from flowferry.controller.match import both, covers, families, group_addresses
from flowferry.controller.model import BOTH_SIDES, Model, ModelError, Rule
from flowferry.wire import Match, Side

#: A part's number is the lowest byte of its handover id on the wire.
MOST_PARTS = 255


@dataclass(frozen=True, slots=True)
class Part:
    """Flows that move from one instance to one other."""

    #: From 1; on the wire the part is `handover number << 8 | number`.
    number: int
    #: Names one IP version, read from upstream.
    match: Match
    #: Not these: what higher rules claim, and group addresses. All inside `match`.
    excepts: tuple[Match, ...]
    #: Instance ids.
    source: int
    destination: int
    #: Sides of the instances that packets arrive on.
    sides: tuple[Side, ...]
    #: Of the rule that now takes the flows.
    priority: int


def parts(before: Model, after: Model, group: str) -> tuple[Part, ...]:
    """The parts of the change from one model to another. Raises `ModelError` if too many."""
    per_side = {
        side: _regions(_on(before, group, side), _on(after, group, side)) for side in BOTH_SIDES
    }
    found: dict[Part, tuple[Side, ...]] = {}
    for side, regions in per_side.items():
        for region in regions:
            found[region] = (*found.get(region, ()), side)
    if len(found) > MOST_PARTS:
        raise ModelError(
            f"the change has {len(found)} parts and a handover at most {MOST_PARTS}; "
            "move fewer flows at once, or remove rules that overlap"
        )
    return tuple(
        replace(region, number=number, sides=sides)
        for number, (region, sides) in enumerate(found.items(), start=1)
    )


def _on(model: Model, group: str, side: Side) -> list[Rule]:
    return [rule for rule in model.rules_of(group) if rule.on(side)]


def _regions(before: Sequence[Rule], after: Sequence[Rule]) -> list[Part]:
    """Regions of different source and destination; `number` and `sides` are not yet set."""
    found = []
    for new_at, new in enumerate(after):
        for old_at, old in enumerate(before):
            if old.target == new.target:
                continue
            region = both(old.match, new.match)
            if region is None:
                continue
            claimed = [rule.match for rule in (*before[:old_at], *after[:new_at])]
            for match in families(region):
                excepts = _cut([*claimed, *group_addresses(match)], match)
                if excepts is not None:
                    found.append(Part(0, match, excepts, old.target, new.target, (), new.priority))
    return found


def _cut(claimed: Iterable[Match], match: Match) -> tuple[Match, ...] | None:
    """`claimed` inside `match`, the widest only; `None` if nothing of `match` is left."""
    widest: list[Match] = []
    for each in claimed:
        inside = both(each, match)
        if inside is None:
            continue
        if inside == match:
            return None
        if any(covers(one, inside) for one in widest):
            continue
        widest = [one for one in widest if not covers(inside, one)]
        widest.append(inside)
    return tuple(widest)
