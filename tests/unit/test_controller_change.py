"""Changes of rules: what they do, how they are undone, and what is left when parts go back."""

import itertools
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_partition import WORDS, holding, model, packets, rule, rule_sets, served_by

from flowferry.controller.change import Change, moving
from flowferry.controller.match import both, covers, overlaps, parse
from flowferry.controller.model import BOTH_SIDES, HIGHEST_PRIORITY, Model, ModelError, Rule
from flowferry.controller.partition import parts
from flowferry.controller.remainder import check, turned_back
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


@st.composite
def changes(draw: st.DrawFn, before: Model) -> Change:
    """A move, the removal of some rules, another target for some, or another default."""
    ids = sorted(before.rules)
    chosen = draw(st.lists(st.sampled_from(ids), unique=True)) if ids else []
    match draw(st.sampled_from(("move", "drop", "retarget", "default"))):
        case "drop":
            return Change("nf", drop=tuple(chosen))
        case "retarget":
            put = (replace(before.rules[k], target=draw(st.integers(1, 3))) for k in chosen)
            return Change("nf", tuple(put))
        case "default":
            return Change("nf", default=draw(st.integers(1, 3)))
        case _:
            words = draw(st.sampled_from(WORDS))
            new = 1 + max([50, *ids])
            return moving(
                before, "nf", parse(words), draw(st.integers(1, 3)), None, draw(st.booleans()), new
            )


def ambiguous(made: Model) -> list[tuple[Rule, Rule]]:
    """Rules of one priority of which a switch may take either."""
    return [
        (one, other)
        for one, other in itertools.combinations(made.rules_of("nf"), 2)
        if one.rank == other.rank
        and one.target != other.target
        and overlaps(one.match, other.match)
        and any(one.on(side) and other.on(side) for side in BOTH_SIDES)
    ]


@settings(max_examples=100, deadline=None)
@given(rule_sets(), st.data())
def test_parts_that_go_back_go_where_they_went_and_the_others_stay(
    before: Model, data: st.DataObject
) -> None:
    """Also where what is left of one change is what the next one is made on."""
    before = before.with_default("nf", 1)
    for numbers in (itertools.count(100), itertools.count(10_000)):
        change = data.draw(changes(before))
        try:
            check(change, before)
        except ModelError:
            return  # refused while nothing has begun
        found = parts(before, change.apply(before), "nf")
        back = data.draw(st.sets(st.integers(1, len(found)))) if found else set()
        left = turned_back(change, before, found, back, numbers).apply(before)
        assert not ambiguous(left)
        for packet in data.draw(st.lists(packets, min_size=5, max_size=5)):
            for side in BOTH_SIDES:
                moved = [one for one in holding(found, side, packet) if one.number not in back]
                went = served_by(before, side, packet)
                expected = moved[0].destination if moved else went
                assert served_by(left, side, packet) == expected
        before = left


def test_of_a_removed_rule_each_part_goes_by_itself() -> None:
    """Two destinations below, and one of them does not take its flows."""
    before = model()
    for number, (words, priority, target) in enumerate(
        [("udp,tp_dst=80", 10, 2), ("udp", 5, 3), ("*", 100, 1)], start=1
    ):
        before = before.with_rule(rule(number, words, priority, target))
    change = Change("nf", drop=(3,))
    found = parts(before, change.apply(before), "nf")
    back = {part.number for part in found if part.destination == 2}
    left = turned_back(change, before, found, back, itertools.count(100)).apply(before)
    flows = {words: parse(f"{words},nw_src=10.0.0.1,nw_dst=10.0.0.2") for words in ("udp", "tcp")}
    to_80 = both(flows["udp"], parse("udp,tp_dst=80"))
    assert to_80 is not None
    assert served_by(left, Side.UPSTREAM, to_80) == 1
    to_81 = both(flows["udp"], parse("udp,tp_dst=81"))
    assert to_81 is not None
    assert served_by(left, Side.UPSTREAM, to_81) == 3
    assert served_by(left, Side.UPSTREAM, flows["tcp"]) == 1
    assert not ambiguous(left)
    assert len(left.rules) < 25
    # The next move of all of them leaves nothing behind.
    done = moving(left, "nf", parse("*"), 2, None, False, 500).apply(left)
    assert not [one for one in done.rules.values() if one.before_equal]


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
