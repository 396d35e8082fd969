"""Changes of rules: what they do, how they are undone, and what is left when parts go back."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_partition import WORDS, holding, model, packets, rule, rule_sets, served_by

from flowferry.controller.change import Change, moving, turned_back
from flowferry.controller.match import covers, parse
from flowferry.controller.model import BOTH_SIDES, HIGHEST_PRIORITY, Model, ModelError
from flowferry.controller.partition import parts
from flowferry.wire import Match, Side


def move(made: Model, words: str, target: int, priority: int | None = None) -> Change:
    return moving(made, "nf", parse(words), target, priority, False, 99)


@given(rule_sets(), st.sampled_from(WORDS), st.integers(1, 3), packets, st.sampled_from(BOTH_SIDES))
def test_without_a_priority_everything_that_matches_moves(
    before: Model, words: str, target: int, packet: Match, side: Side
) -> None:
    after = move(before, words, target).apply(before)
    expected = target if holds(words, packet) else served_by(before, side, packet)
    # Only what is one-way is not replaced by a rule for both ways on its own side.
    assert served_by(after, side, packet) == expected


def holds(words: str, packet: Match) -> bool:
    return covers(parse(words), packet)


@given(rule_sets(), rule_sets(), packets, st.sampled_from(BOTH_SIDES))
def test_the_inverse_undoes(before: Model, other: Model, packet: Match, side: Side) -> None:
    before = before.with_default("nf", 1)
    change = Change("nf", tuple(other.rules.values()), tuple(before.rules)[:1], default=2)
    after = change.apply(before)
    back = change.inverse(before).apply(after)
    assert back.rules == before.rules
    assert served_by(back, side, packet) == served_by(before, side, packet)
    assert Change.from_json(change.as_json()) == change


@given(
    rule_sets(),
    st.sampled_from(WORDS),
    st.integers(1, 3),
    st.sets(st.integers(1, 8)),
    packets,
    st.sampled_from(BOTH_SIDES),
)
def test_parts_that_go_back_go_where_they_went_and_the_others_stay(
    before: Model, words: str, target: int, back: set[int], packet: Match, side: Side
) -> None:
    if any(one.one_way for one in before.rules.values()):
        before = Model(before.groups, before.instances, {})
    change = move(before, words, target)
    after = change.apply(before)
    found = parts(before, after, "nf")
    left = turned_back(change, before, found, back, itertools.count(100)).apply(before)
    mine = holding(found, side, packet)
    moved = [part for part in mine if part.number not in back]
    expected = moved[0].destination if moved else served_by(before, side, packet)
    assert served_by(left, side, packet) == expected


def test_moving_back_and_forth_keeps_one_rule() -> None:
    made = model()
    for target in (2, 1, 3, 2):
        made = move(made, "udp", target).apply(made)
    (one,) = made.rules.values()
    assert (one.target, one.priority) == (2, 100)


def test_a_move_goes_above_what_it_overlaps_unless_told() -> None:
    made = model().with_rule(rule(1, "udp,tp_dst=80", 500, 2))
    assert move(made, "udp", 3).put[0].priority == 501
    assert move(made, "tcp", 3).put[0].priority == 100
    assert move(made, "udp", 3, priority=7).put[0].priority == 7


@pytest.mark.parametrize(
    ("priority", "remedy"),
    [(500, "another priority"), (0, "from 1"), (HIGHEST_PRIORITY + 1, "from 1")],
)
def test_a_priority_that_would_leave_it_to_chance_is_refused(priority: int, remedy: str) -> None:
    made = model().with_rule(rule(1, "udp,tp_dst=80", 500, 2))
    with pytest.raises(ModelError, match=remedy):
        move(made, "udp", 3, priority=priority)


def test_an_instance_that_rules_lead_to_cannot_go() -> None:
    made = model().with_rule(rule(1, "udp", 500, 2))
    with pytest.raises(ModelError, match="instances drain i2"):
        made.without_instance(2)
    assert 3 not in made.without_instance(3).instances


def test_a_rule_over_all_stands_beside_one_with_the_same_match() -> None:
    made = model()
    low = move(made, "*", 2, 1).apply(made)
    high = moving(low, "nf", parse("*"), 3, 100, False, 98).apply(low)
    assert sorted(one.priority for one in high.rules.values()) == [1, 100]
    assert high.without_rule(98) == low
