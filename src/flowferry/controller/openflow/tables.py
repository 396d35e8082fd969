"""Which entries the switches must have for a model. Pure: a model in, entries out.

Table 0 sorts by input port, from priority 64000 up; other entries there are nobody's business of
ours. IP goes on to a table of its own for each group and direction, so that groups in a chain share
no entry; there stand the rules: rule r has priority 2r, and 2r + 1 is left to what must go before
it (SHarP §3.3). Broadcast, multicast and what is not IP take one path, through the group's first
instance: parallel instances must not close a loop. Control frames go from instances to the
controller or, by their address, to another instance of the group on the same side: markers have to
pass this very switch. They go nowhere from anybody else.

Every entry carries our cookie, its kind and the number of what it belongs to. Entries without it
are neither read nor touched.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from flowferry.controller.match import families, mirror
from flowferry.controller.model import (
    BOTH_SIDES,
    UPSTREAM,
    Attachment,
    Group,
    Instance,
    Model,
)
from flowferry.controller.openflow import oxm
from flowferry.controller.openflow.codec import PORT_CONTROLLER, Change, Entry, Output
from flowferry.controller.openflow.oxm import Oxm, of_control, of_match, of_port
from flowferry.wire import Side

COOKIE = 0xF10FE << 44
COOKIE_MASK = 0xFFFFF << 44
CONTROL, ENTRANCE, EXIT, RULE = 1, 2, 3, 4
#: Priorities in table 0.
CONTROL_FRAMES, ONE_PATH, IP, REST = 65000, 64300, 64200, 64000
#: Bytes of a control frame that a switch sends on: all.
WHOLE = 0xFFFF
#: The last table that Open vSwitch and others leave to controllers.
LAST_TABLE = 253

Key = tuple[int, int, Oxm]
Entries = Mapping[Key, Entry]


def cookie(kind: int, number: int) -> int:
    """What we mark our entries with; `number` is that of a group or rule."""
    return COOKIE | kind << 32 | number


def rule_of(value: int) -> int | None:
    """The rule that an entry with this cookie belongs to, if any."""
    ours = value & COOKIE_MASK == COOKIE and value >> 32 & 0xFFF == RULE
    return value & 0xFFFFFFFF if ours else None


def table_of(group: Group, side: Side, first_table: int) -> int:
    """The table for packets that enter a group from a side."""
    return first_table + 2 * group.number + (side is not UPSTREAM)


def entries(model: Model, first_table: int) -> dict[int, dict[Key, Entry]]:
    """All entries, by switch (dpid) and key."""
    found: dict[int, dict[Key, Entry]] = {
        group.at(side).dpid: {} for group in model.groups.values() for side in BOTH_SIDES
    }
    for group in model.groups.values():
        for side in BOTH_SIDES:
            for entry in _of_end(model, group, side, first_table):
                found[group.at(side).dpid][entry.key] = entry
    return found


def changes(before: Entries, after: Entries) -> list[Change]:
    """How to get from some entries to others, one by one: a packet goes its old way or its new one.

    First what is added: tables before whatever leads there, and higher priorities before those
    that would take their packets meanwhile. Then, in the opposite order, what goes.
    """
    added = [entry for key, entry in after.items() if before.get(key) != entry]
    gone = [entry for key, entry in before.items() if key not in after]
    added.sort(key=_rank, reverse=True)
    gone.sort(key=_rank)
    return [*map(Change, added), *(Change(entry, remove=True) for entry in gone)]


def _rank(entry: Entry) -> tuple[int, int]:
    return entry.table, entry.priority


def _of_end(model: Model, group: Group, side: Side, first_table: int) -> Iterator[Entry]:
    """The entries of one group on the switch on one of its sides."""
    end = group.at(side)
    for port in end.ports:
        yield Entry(0, CONTROL_FRAMES, _control(port), cookie(CONTROL, group.number))
        yield from _entrance(model, group, side, port, first_table)
    first = model.first(group.name)
    for instance in model.members(group.name):
        port = instance.port(side)
        yield Entry(
            0,
            CONTROL_FRAMES,
            _control(port),
            cookie(CONTROL, group.number),
            goto=table_of(group, side, first_table),
        )
        yield from _exit(model, group, end, instance, port, first_table, first == instance)
    yield from _said_by_instances(model, group, side, first_table)
    yield from _rules(model, group, side, first_table)


def _control(port: int) -> Oxm:
    return of_port(port, ethertype=oxm.CONTROL_ETHERTYPE)


def _said_by_instances(model: Model, group: Group, side: Side, first_table: int) -> Iterator[Entry]:
    """Control frames from instances of a group: to each other by address, or to the controller."""
    table, mark = table_of(group, side, first_table), cookie(CONTROL, group.number)
    for instance in model.members(group.name):
        match = of_control(to=instance.id)
        yield Entry(table, CONTROL_FRAMES, match, mark, (Output(instance.port(side)),))
    to_controller = (Output(PORT_CONTROLLER, WHOLE),)
    yield Entry(table, CONTROL_FRAMES - 1, of_control(), mark, to_controller)


def _entrance(
    model: Model, group: Group, side: Side, port: int, first_table: int
) -> Iterator[Entry]:
    """From a port into a group: IP by its rules, everything else through the first instance."""
    mark = cookie(ENTRANCE, group.number)
    first = model.first(group.name)
    to_first = () if first is None else (Output(first.port(side)),)
    table = table_of(group, side, first_table)
    yield Entry(0, ONE_PATH, of_port(port, group_addressed=True), mark, to_first)
    for ethertype in oxm.ETHERTYPES.values():
        yield Entry(0, IP, of_port(port, ethertype=ethertype), mark, goto=table)
    yield Entry(0, REST, of_port(port), mark, to_first)


def _exit(
    model: Model,
    group: Group,
    end: Attachment,
    instance: Instance,
    port: int,
    first_table: int,
    is_first: bool,
) -> Iterator[Entry]:
    """From an instance out of its group: to the hosts, or into the group that follows."""
    mark = cookie(EXIT, group.number)
    following = None if end.group is None else model.groups[end.group]
    if following is None:
        outputs = tuple(Output(outer) for outer in end.ports)
        yield Entry(0, REST, of_port(port), mark, outputs)
    else:
        side = next(s for s in BOTH_SIDES if following.at(s).group == group.name)
        yield from _entrance(model, following, side, port, first_table)
    if not is_first:
        yield Entry(0, ONE_PATH, of_port(port, group_addressed=True), mark)


def _rules(model: Model, group: Group, side: Side, first_table: int) -> Iterator[Entry]:
    table = table_of(group, side, first_table)
    for rule in model.rules_of(group.name):
        if not rule.on(side):
            continue
        target = (Output(model.instances[rule.target].port(side)),)
        mark = cookie(RULE, rule.id)
        if rule.rank == 0:
            yield Entry(table, 0, Oxm(), mark, target)
            continue
        match = rule.match if side is UPSTREAM else mirror(rule.match)
        for each in families(match):
            yield Entry(table, rule.rank, of_match(each), mark, target)
