"""Which instance a user means, and whether a new one can be told apart from all others.

Raises `LookupError` (no such thing), `ValueError` (not clear) and `Refused` (taken), each with the
remedy. Pure.
"""

from __future__ import annotations

from flowferry.controller.api import Refused
from flowferry.controller.model import BOTH_SIDES, Instance, Model


def find(model: Model, to: str, group: str | None = None) -> Instance:
    """An instance by name, MAC address or OpenFlow port; in one group, or in any."""
    if group is not None:
        known_group(model, group)
    within = [one for one in model.instances.values() if group in (None, one.group)]
    for known in (
        lambda one: one.name == to,
        lambda one: to.lower() in (mac.lower() for mac in one.macs),
        lambda one: to.isdigit() and int(to) == one.upstream_port,
    ):
        found = [one for one in within if known(one)]
        if len(found) > 1:
            places = ", ".join(sorted({one.group for one in found}))
            raise ValueError(f"{to!r} is in several groups; choose a group of: {places}")
        if found:
            return found[0]
    names = ", ".join(one.name for one in within) or "none"
    raise LookupError(f"there is no instance {to!r}; the controller has {names}")


def known_group(model: Model, group: str) -> str:
    """The name of a group that there is."""
    if group not in model.groups:
        raise LookupError(f"there is no group {group!r}; the controller has {_groups(model)}")
    return group


def only_group(model: Model) -> str:
    """The group that is meant when none is named."""
    if len(model.groups) != 1:
        raise ValueError(f"say which group it joins; the controller has {_groups(model)}")
    return next(iter(model.groups))


def _groups(model: Model) -> str:
    return ", ".join(model.groups) or "none"


def refuse_taken(model: Model, new: Instance) -> None:
    """See that no other has its number, its name, or one of its ports."""
    for one in model.instances.values():
        if one.id == new.id:
            raise Refused(f"id {new.id} is {one.name}'s; give another")
        if one.group == new.group and one.name == new.name:
            raise Refused(f"group {new.group} has an instance {new.name}; give another name")
    taken = {
        (model.groups[one.group].at(side).dpid, one.port(side)): one.name
        for one in model.instances.values()
        for side in BOTH_SIDES
    } | {
        (group.at(side).dpid, port): f"the outside of {group.name}"
        for group in model.groups.values()
        for side in BOTH_SIDES
        for port in group.at(side).ports
    }
    for side in BOTH_SIDES:
        place = (model.groups[new.group].at(side).dpid, new.port(side))
        if place in taken:
            raise Refused(
                f"port {place[1]} of switch {place[0]:#x} is {taken[place]}'s; give another"
            )
