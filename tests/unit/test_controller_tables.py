"""Entries: a switch that has them sends each packet where the rules say; chains share no entry."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_partition import packets, rule_sets, served_by

from flowferry.controller.match import mirror, parse
from flowferry.controller.model import (
    BOTH_SIDES,
    DOWNSTREAM,
    UPSTREAM,
    Attachment,
    Group,
    Instance,
    Model,
    Rule,
)
from flowferry.controller.openflow import oxm, tables
from flowferry.controller.openflow.codec import PORT_CONTROLLER, Change, Entry, Output
from flowferry.controller.openflow.oxm import Oxm
from flowferry.wire import CONTROLLER, Match, Side, address_of

#: A frame: every field that it has.
Frame = dict[int, int]
FIRST = 10
CONTROL = (oxm.CONTROL_ETHERTYPE, None)


def frame(match: Match, port: int) -> Frame:
    """A unicast frame with the headers of a match that names all of them."""
    outer = replace(match, inner_vlan=None)
    fields = {number: value for number, (value, _) in oxm.of_match(outer).fields.items()}
    return {**fields, oxm.IN_PORT: port, oxm.ETH_DST: 0x020000000001}


def takes(entry: Entry, it: Frame) -> bool:
    return all(
        number in it and it[number] & (-1 if mask is None else mask) == value
        for number, (value, mask) in entry.match.fields.items()
    )


def sent_to(entries: Iterable[Entry], it: Frame) -> list[int]:
    """Ports that a switch with these entries sends a frame by."""
    table = 0
    while True:
        found = [entry for entry in entries if entry.table == table and takes(entry, it)]
        found.sort(key=lambda entry: -entry.priority)
        if not found:
            return []
        best = found[0]
        assert [e.priority for e in found].count(best.priority) == 1, "which one is chance"
        if best.goto is None:
            return [output.port for output in best.outputs]
        assert best.goto > table
        table = best.goto


def on(model: Model, side: Side) -> list[Entry]:
    found = tables.entries(model, FIRST)
    return list(found[model.groups["nf"].at(side).dpid].values())


@given(rule_sets(), packets, st.sampled_from(BOTH_SIDES))
def test_packets_go_where_the_rules_say(model: Model, packet: Match, side: Side) -> None:
    seen = packet if side is UPSTREAM else mirror(packet)
    (port,) = sent_to(on(model, side), frame(seen, 1))
    assert port == model.instances[served_by(model, side, packet)].port(side)


@given(rule_sets(), packets)
def test_every_instance_sends_out(model: Model, packet: Match) -> None:
    for instance in model.instances.values():
        assert sent_to(on(model, DOWNSTREAM), frame(packet, instance.downstream_port)) == [1]


@given(rule_sets(), rule_sets())
def test_changes_lead_from_one_to_the_other(before: Model, after: Model) -> None:
    have = tables.entries(before, FIRST)[1]
    want = tables.entries(after, FIRST)[1]
    for change in tables.changes(have, want):
        if change.remove:
            del have[change.entry.key]
        else:
            have[change.entry.key] = change.entry
    assert have == want
    assert tables.changes(want, want) == []


def ways(entries: Iterable[Entry], it: Frame, table: int = 0) -> set[tuple[int, ...]]:
    """All ways that a frame may go while two entries of one priority both take it."""
    found = [entry for entry in entries if entry.table == table and takes(entry, it)]
    highest = max((entry.priority for entry in found), default=0)
    best = [entry for entry in found if entry.priority == highest]
    out = {tuple(o.port for o in entry.outputs) for entry in best if entry.goto is None}
    return out.union(*(ways(entries, it, each.goto) for each in best if each.goto)) or {()}


def on_the_way(before: tables.Entries, after: tables.Entries) -> Iterator[list[Entry]]:
    """A switch's entries after each change, made one by one as without bundles."""
    have = dict(before)
    for change in tables.changes(before, after):
        if change.remove:
            del have[change.entry.key]
        else:
            have[change.entry.key] = change.entry
        yield list(have.values())


@given(rule_sets(), rule_sets(), packets, st.booleans(), st.randoms(use_true_random=False))
def test_packets_go_their_old_way_or_their_new_one_all_along(
    before: Model, after: Model, packet: Match, anew: bool, random: Random
) -> None:
    """`anew`: on a switch that has nothing yet, packets wait and are never led astray."""
    have = {} if anew else tables.entries(before, FIRST)[1]
    want = list(tables.entries(after, FIRST)[1].items())
    random.shuffle(want)  # what a switch has and should have are compared in no order
    it = frame(packet, 1)
    right = ways(have.values(), it) | ways(dict(want).values(), it)
    for entries in on_the_way(have, dict(want)):
        assert ways(entries, it) <= right


@pytest.mark.parametrize("upgrade", [True, False])
def test_control_frames_find_their_entries_all_along(upgrade: bool) -> None:
    """Once instances could speak to the controller alone, by one entry in table 0."""
    now = {entry.key: entry for entry in on(three(), UPSTREAM)}
    once = {
        key: replace(entry, outputs=(Output(PORT_CONTROLLER, 0xFFFF),), goto=None)
        if entry.goto is not None and entry.priority == tables.CONTROL_FRAMES
        else entry
        for key, entry in now.items()
        if entry.table == 0 or entry.priority < tables.CONTROL_FRAMES - 1
    }
    steps = list(on_the_way(once, now) if upgrade else on_the_way(now, once))
    assert len(steps) == 7  # three instances' in table 0; one to each, and to the controller
    for entries in steps:
        assert sent_to(entries, control(CONTROLLER, port=12)) == [PORT_CONTROLLER]


def three() -> Model:
    made = Model(groups={"nf": Group("nf", 0, Attachment(1, (1,)), Attachment(2, (1,)))})
    for k in (1, 2, 3):
        made = made.with_instance(Instance(f"i{k}", k, "nf", 10 + k, 10 + k))
    return made


def test_broadcast_and_what_is_not_ip_take_one_path() -> None:
    model = three().with_rule(Rule(1, "nf", parse("*"), 100, 3))
    broadcast = {oxm.IN_PORT: 1, oxm.ETH_DST: 2**48 - 1, oxm.ETH_TYPE: 0x0800}
    arp = {oxm.IN_PORT: 1, oxm.ETH_DST: 0x020000000001, oxm.ETH_TYPE: 0x0806}
    for one in (broadcast, {**broadcast, oxm.ETH_TYPE: 0x86DD}, arp):
        assert sent_to(on(model, UPSTREAM), one) == [11]
    for port, out in ((11, [1]), (12, []), (13, [])):
        assert sent_to(on(model, DOWNSTREAM), {**broadcast, oxm.IN_PORT: port}) == out
        assert sent_to(on(model, DOWNSTREAM), {**arp, oxm.IN_PORT: port}) == [1]


def control(to: int, port: int) -> Frame:
    """A control frame to an instance, or to the controller."""
    address = int.from_bytes(address_of(to), "big")
    return {oxm.ETH_DST: address, oxm.ETH_TYPE: oxm.CONTROL_ETHERTYPE, oxm.IN_PORT: port}


@pytest.mark.parametrize("side", BOTH_SIDES)
def test_control_frames_come_from_instances_only(side: Side) -> None:
    for to in (CONTROLLER, 2):
        assert sent_to(on(three(), side), control(to, port=1)) == []
    assert sent_to(on(three(), side), control(CONTROLLER, port=12)) == [PORT_CONTROLLER]
    assert sent_to(on(three(), side), control(3, port=12)) == [13]


def test_instances_of_two_groups_do_not_hear_each_other() -> None:
    middle = list(tables.entries(chain(), FIRST)[2].values())
    assert sent_to(middle, control(1, port=22)) == [21]
    assert sent_to(middle, control(3, port=14)) == [13]
    # The controller hears it, and knows that it is none for it.
    assert sent_to(middle, control(3, port=22)) == [PORT_CONTROLLER]


def chain() -> Model:
    """Groups a (instances 1 and 2) and b (3 and 4), which meet at switch 2."""
    model = Model(
        groups={
            "a": Group("a", 0, Attachment(1, (1,)), Attachment(2, group="b")),
            "b": Group("b", 1, Attachment(2, group="a"), Attachment(3, (1,))),
        }
    )
    for k, group in ((1, "a"), (2, "a"), (3, "b"), (4, "b")):
        model = model.with_instance(Instance(f"i{k}", k, group, 10 + k, 20 + k))
    return model


def test_groups_in_a_chain_follow_each_other_and_share_nothing() -> None:
    model = chain().with_rule(Rule(1, "b", parse("udp"), 100, 4))
    middle = list(tables.entries(model, FIRST)[2].values())
    udp = frame(parse("udp,nw_src=10.0.0.1"), 0)
    tcp = frame(parse("tcp,nw_src=10.0.0.1"), 0)
    # From an instance of a, at its downstream port, into b by b's rules; and back into a by a's.
    assert sent_to(middle, {**udp, oxm.IN_PORT: 22}) == [14]
    assert sent_to(middle, {**tcp, oxm.IN_PORT: 22}) == [13]
    assert sent_to(middle, {**udp, oxm.IN_PORT: 14}) == [21]
    packets = [entry for entry in middle if entry.match.fields.get(oxm.ETH_TYPE) != CONTROL]
    reached = {
        table: {o.port for entry in packets if entry.table == table for o in entry.outputs}
        for table in {entry.table for entry in middle} - {0}
    }
    assert reached == {11: {21}, 12: {13, 14}}
    keys = [entry.key for entry in middle]
    assert len(keys) == len(set(keys))


def test_cookies_are_ours_and_name_the_rule() -> None:
    model = three().with_rule(Rule(7, "nf", parse("udp"), 100, 2))
    for entry in on(model, UPSTREAM):
        assert entry.cookie & tables.COOKIE_MASK == tables.COOKIE
    (udp,) = [entry for entry in on(model, UPSTREAM) if entry.priority == 200]
    assert tables.rule_of(udp.cookie) == 7
    assert tables.rule_of(0xF10FE0001) is None
    assert udp.outputs == (Output(12),)
    assert Change(udp).entry.match == Oxm({oxm.ETH_TYPE: (0x800, None), oxm.IP_PROTO: (17, None)})
