"""A change of rules: what a handover is to bring about, and how it is undone.

How it is undone in part stands in `remainder`.

Pure. A change can be applied to any model that has moved on in the meantime, since handovers whose
flows do not overlap run side by side.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flowferry.controller.match import ALL, covers, overlaps, parse, text
from flowferry.controller.model import (
    HIGHEST_PRIORITY,
    Model,
    ModelError,
    Rule,
)
from flowferry.wire import Match

#: Of the first rule where none overlaps it.
USUAL_PRIORITY = 100


@dataclass(frozen=True)
class Change:
    """Rules of one group that come, in place of those with their ids, and rules that go."""

    group: str
    put: tuple[Rule, ...] = ()
    drop: tuple[int, ...] = ()
    #: The instance that the default leads to from now on.
    default: int | None = None
    #: What is to be where it is already: it waits for whoever moves that, and changes nothing.
    there: tuple[Match, ...] = ()

    def apply(self, model: Model) -> Model:
        """The model after it."""
        for number in self.drop:
            model = model.without_rule(number)
        for rule in self.put:
            model = model.with_rule(rule)
        return model if self.default is None else model.with_default(self.group, self.default)

    def inverse(self, model: Model) -> Change:
        """What undoes it, once applied to `model`."""
        touched = {rule.id for rule in self.put} | set(self.drop)
        default = None if self.default is None else model.defaults.get(self.group)
        return Change(
            self.group,
            tuple(model.rules[number] for number in sorted(touched & set(model.rules))),
            tuple(sorted(touched - set(model.rules))),
            default,
        )

    def concerns(self, model: Model) -> list[Match]:
        """Everything whose way it may change."""
        found = [*self.there, *(rule.match for rule in self.put)]
        found += [model.rules[number].match for number in self.drop if number in model.rules]
        found += [model.rules[rule.id].match for rule in self.put if rule.id in model.rules]
        return found if self.default is None else [*found, ALL]

    def as_json(self) -> dict[str, Any]:
        """For the journal."""
        rules = [
            {**{k: getattr(rule, k) for k in _PLAIN}, "match": text(rule.match)}
            for rule in self.put
        ]
        return {
            "group": self.group, "put": rules, "drop": list(self.drop), "default": self.default,
            "there": [text(match) for match in self.there],
        }  # fmt: skip

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Change:
        """The inverse of `as_json`."""
        put = tuple(Rule(**{**rule, "match": parse(rule["match"])}) for rule in data["put"])
        there = tuple(parse(match) for match in data.get("there", ()))
        return cls(data["group"], put, tuple(data["drop"]), data["default"], there)


_PLAIN = ("id", "group", "priority", "target", "one_way", "before_equal", "other_way")


def moving(
    model: Model,
    group: str,
    match: Match,
    target: int,
    priority: int | None,
    one_way: bool,
    new: int,
) -> Change:
    """The change that brings all flows of a match to an instance.

    A rule that is the same but for its target is replaced; one of another priority is another
    rule, if a priority is asked for. Without a priority the rule goes above all that overlap it, so
    that every flow that matches moves; with one, higher rules keep theirs.
    `new` is the id for a new rule. Raises `ModelError`.
    """
    there = [rule for rule in model.rules.values() if rule.group == group]
    same = [
        rule
        for rule in there
        if (rule.match, rule.one_way) == (match, one_way) and priority in (None, rule.priority)
    ]
    others = [rule for rule in there if overlaps(rule.match, match) and rule not in same]
    if priority is None:
        above = max((rule.priority for rule in others), default=0)
        own = max((rule.priority for rule in same), default=0)
        priority = own if own > above else above + 1 if above else USUAL_PRIORITY
    if not 1 <= priority <= HIGHEST_PRIORITY:
        raise ModelError(
            f"priority {priority} is not possible; "
            f"give one from 1 to {HIGHEST_PRIORITY}, or remove rules that it overlaps"
        )
    equal = [rule for rule in others if rule.priority == priority]
    if equal:
        raise ModelError(
            f"rule {equal[0].id} ({text(equal[0].match)}) overlaps at priority {priority} too; "
            "give another priority"
        )
    # What it hides altogether has no effect any more: left-overs of earlier moves do not pile up.
    hidden = [
        rule.id
        for rule in others
        if rule.priority < priority and covers(match, rule.match) and (rule.one_way or not one_way)
        and rule.before_equal
    ]  # fmt: skip
    ids = sorted(rule.id for rule in same) or [new]
    rule = Rule(ids[0], group, match, priority, target, one_way)
    return Change(group, (rule,), (*hidden, *ids[1:]))
