"""Parts of a change: every flow that changes its instance is in exactly one, and no other is."""

from dataclasses import replace
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowferry.controller.match import ALL, covers, exact, mirror, parse, text
from flowferry.controller.model import (
    BOTH_SIDES,
    UPSTREAM,
    Attachment,
    Group,
    Instance,
    Model,
    ModelError,
    Rule,
)
from flowferry.controller.partition import Part, parts
from flowferry.wire import Flow, Match, Side


def model(instances: int = 3) -> Model:
    made = Model(groups={"nf": Group("nf", 0, Attachment(1, (1,)), Attachment(2, (1,)))})
    for k in range(1, instances + 1):
        made = made.with_instance(Instance(f"i{k}", k, "nf", 10 + k, 10 + k))
    return made


def rule(number: int, words: str, priority: int, target: int, *, one_way: bool = False) -> Rule:
    return Rule(number, "nf", parse(words), priority, target, one_way)


WORDS = [
    "*", "ip", "udp", "udp,nw_src=10.0.0.1", "udp,nw_dst=10.0.0.2", "udp,tp_dst=80",
    "udp,nw_src=10.0.0.1,tp_dst=80", "tcp", "tcp,tp_src=80", "ip,nw_src=10.0.0.0/31",
]  # fmt: skip


@st.composite
def rule_sets(draw: st.DrawFn) -> Model:
    made = model()
    priorities = draw(st.lists(st.integers(1, 20), unique=True, max_size=5))
    for number, priority in enumerate(priorities, start=1):
        words = draw(st.sampled_from(WORDS))
        one_way = draw(st.booleans())
        made = made.with_rule(
            rule(number, words, priority, draw(st.integers(1, 3)), one_way=one_way)
        )
    return made


addresses = st.sampled_from(["10.0.0.1", "10.0.0.2", "10.0.0.3"]).map(IPv4Address)
packets = st.builds(
    lambda proto, a, b, p, q: exact(Flow(proto, (a, p), (b, q))),
    st.sampled_from([6, 17]),
    addresses,
    addresses,
    st.sampled_from([80, 5]),
    st.sampled_from([80, 5]),
)


def served_by(made: Model, side: Side, packet: Match) -> int:
    """The instance that a packet, read from upstream, goes through."""
    for one in made.rules_of("nf"):
        if one.on(side) and covers(one.match, packet):
            return one.target
    raise AssertionError("a default always matches")


def holding(found: tuple[Part, ...], side: Side, packet: Match) -> list[Part]:
    return [
        part
        for part in found
        if side in part.sides
        and covers(part.match, packet)
        and not any(covers(each, packet) for each in part.excepts)
    ]


@given(rule_sets(), rule_sets(), packets, st.sampled_from(BOTH_SIDES))
def test_each_moving_flow_is_in_one_part(
    before: Model, after: Model, packet: Match, side: Side
) -> None:
    old, new = served_by(before, side, packet), served_by(after, side, packet)
    found = holding(parts(before, after, "nf"), side, packet)
    if old == new:
        assert not found
    else:
        assert [(part.source, part.destination) for part in found] == [(old, new)]


@given(rule_sets(), rule_sets())
def test_excepts_lie_inside_and_leave_something(before: Model, after: Model) -> None:
    found = parts(before, after, "nf")
    assert [part.number for part in found] == list(range(1, len(found) + 1))
    for part in found:
        assert part.match.family is not None
        assert all(covers(part.match, each) and each != part.match for each in part.excepts)


def test_a_move_from_the_default_has_one_part_and_both_sides() -> None:
    words = "udp,nw_src=10.0.0.1,nw_dst=10.0.0.2,tp_src=5,tp_dst=80"
    (part,) = parts(model(), model().with_rule(rule(1, words, 100, 2)), "nf")
    assert (text(part.match), part.excepts) == (words, ())
    assert (part.source, part.destination, part.sides, part.priority) == (1, 2, BOTH_SIDES, 100)


def test_one_way_moves_the_upstream_side_only() -> None:
    after = model().with_rule(rule(1, "udp", 100, 2, one_way=True))
    assert [part.sides for part in parts(model(), after, "nf")] == [(UPSTREAM,)]


def test_removal_gives_flows_back_to_the_next_rules() -> None:
    before = model().with_rule(rule(1, "ip", 100, 3)).with_rule(rule(2, "udp,tp_dst=80", 50, 2))
    found = parts(before, before.without_rule(1), "nf")
    assert {(text(part.match), part.source, part.destination) for part in found} == {
        ("udp,tp_dst=80", 3, 2),
        ("ip", 3, 1),
    }


def test_what_is_there_already_moves_nothing() -> None:
    before = model().with_rule(rule(1, "udp", 100, 2))
    assert parts(before, before.with_rule(rule(2, "udp,tp_dst=80", 200, 2)), "nf") == ()


def test_group_addresses_stay_where_they_are() -> None:
    (part, _) = parts(model(), model().with_rule(Rule(1, "nf", ALL, 1, 2)), "nf")
    assert [text(each) for each in part.excepts] == [
        "ip,nw_dst=224.0.0.0/3",
        "ip,nw_src=224.0.0.0/3",
    ]
    assert mirror(part.excepts[0]) == part.excepts[1]


def test_too_many_parts_are_refused() -> None:
    before = model(2)
    for number in range(1, 300):
        before = before.with_rule(rule(number, f"udp,tp_dst={number}", 1 + number, 2 - number % 2))
    after = replace(
        before, rules={k: replace(r, target=3 - r.target) for k, r in before.rules.items()}
    )
    with pytest.raises(ModelError, match="move fewer"):
        parts(before, after, "nf")
