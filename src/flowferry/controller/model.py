"""What the controller knows: switches' ports, groups, instances and rules, as plain values.

Pure: nothing here does I/O or reads a clock. `Model` is immutable; a change gives a new one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from flowferry.controller.match import ALL
from flowferry.wire import Match, Peer, Side

#: Priorities r of rules; 0 is the group's default. A rule's entries have 2r.
HIGHEST_PRIORITY = 16_000
UPSTREAM, DOWNSTREAM = Side.UPSTREAM, Side.DOWNSTREAM
BOTH_SIDES = (UPSTREAM, DOWNSTREAM)
#: Id of every group's default rule: `*`, priority 0.
DEFAULT_RULE = 0

InstanceState = Literal["active", "draining"]


class ModelError(Exception):
    """Something that the model does not allow; one line with the remedy."""


@dataclass(frozen=True, slots=True)
class Attachment:
    """One end of a group: the switch, and where packets go that leave the group there."""

    dpid: int
    #: OpenFlow ports towards hosts, or none if `group` says that another group follows.
    ports: tuple[int, ...] = ()
    #: Name of the group that follows in a chain.
    group: str | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """Interchangeable instances between the same two switches."""

    name: str
    #: From 0, for tables and cookies.
    number: int
    upstream: Attachment
    downstream: Attachment

    def at(self, side: Side) -> Attachment:
        """The group's end on a side."""
        return self.upstream if side is UPSTREAM else self.downstream


@dataclass(frozen=True, slots=True)
class Instance:
    """One running copy of the function."""

    name: str
    #: What control frames address it by, from 1.
    id: int
    group: str
    #: OpenFlow ports on the upstream and on the downstream switch.
    upstream_port: int
    downstream_port: int
    #: Where the ordered stream of its support layer listens; `None`: it can take part in no move.
    peer: Peer | None = None
    #: MAC addresses by which `--to` may name it.
    macs: tuple[str, ...] = ()
    state: InstanceState = "active"

    def port(self, side: Side) -> int:
        """Its OpenFlow port on a side."""
        return self.upstream_port if side is UPSTREAM else self.downstream_port


@dataclass(frozen=True, slots=True)
class Rule:
    """Flows that match go through the target. Read from upstream; `one_way`: only that way."""

    #: From 1; `DEFAULT_RULE` for the default of a group.
    id: int
    group: str
    match: Match
    priority: int
    #: Instance id.
    target: int
    one_way: bool = False
    #: Goes before the rule of the same priority: what is left of a move that was done in part.
    #: Rules of one priority that do so do not overlap, or lead to the same instance.
    before_equal: bool = False
    #: The other way of `one_way`, for packets from downstream alone; of what is left only.
    other_way: bool = False

    @property
    def rank(self) -> int:
        """Priority of its entries."""
        return 2 * self.priority + self.before_equal

    def on(self, side: Side) -> bool:
        """Whether it is in force for packets that come from a side."""
        return not (self.other_way if side is UPSTREAM else self.one_way)


@dataclass(frozen=True)
class Model:
    """Everything configured, and the rules in force."""

    groups: Mapping[str, Group] = field(default_factory=dict)
    #: By id.
    instances: Mapping[int, Instance] = field(default_factory=dict)
    #: By id, without the defaults.
    rules: Mapping[int, Rule] = field(default_factory=dict)
    #: Group to instance id: where flows go that no rule claims.
    defaults: Mapping[str, int] = field(default_factory=dict)

    def members(self, group: str) -> tuple[Instance, ...]:
        """Instances of a group by id."""
        found = (one for one in self.instances.values() if one.group == group)
        return tuple(sorted(found, key=lambda one: one.id))

    def first(self, group: str) -> Instance | None:
        """The instance that broadcast and what is not IP goes through: the first active one."""
        members = self.members(group)
        return next((one for one in members if one.state == "active"), next(iter(members), None))

    def default(self, group: str) -> Rule | None:
        """The lowest rule of a group; `None` while it has no instances."""
        target = self.defaults.get(group)
        if target is None or target not in self.instances:
            first = self.first(group)
            if first is None:
                return None
            target = first.id
        return Rule(DEFAULT_RULE, group, ALL, 0, target)

    def rules_of(self, group: str) -> tuple[Rule, ...]:
        """Rules of a group, highest first, the default last."""
        found = [rule for rule in self.rules.values() if rule.group == group]
        found.sort(key=lambda rule: -rule.rank)
        default = self.default(group)
        return (*found, *(() if default is None else (default,)))

    def with_rule(self, rule: Rule) -> Model:
        """The model with a rule added or, by its id, replaced."""
        return replace(self, rules={**self.rules, rule.id: rule})

    def without_rule(self, number: int) -> Model:
        """The model without a rule."""
        return replace(self, rules={k: v for k, v in self.rules.items() if k != number})

    def with_instance(self, instance: Instance) -> Model:
        """The model with an instance added or, by its id, replaced."""
        return replace(self, instances={**self.instances, instance.id: instance})

    def without_instance(self, number: int) -> Model:
        """The model without an instance. Raises `ModelError` while rules lead to it."""
        left = [rule.id for rule in self.rules.values() if rule.target == number]
        name = self.instances[number].name
        if left:
            raise ModelError(
                f"instance {name} is the target of rule {left[0]}; "
                f"drain it first: flowferry instances drain {name}"
            )
        return replace(self, instances={k: v for k, v in self.instances.items() if k != number})

    def with_default(self, group: str, target: int) -> Model:
        """The model with another default for a group."""
        return replace(self, defaults={**self.defaults, group: target})
