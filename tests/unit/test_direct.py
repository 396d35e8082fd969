"""The controller's side of `direct`: what it says, in which order, and its table of moves.

Scripted: the agents' answers are given by hand. Whether packets keep their order is what the
simulation shows (tests/simulation).
"""

from __future__ import annotations

import pytest
from direct_scene import SETTINGS, A, B, Scene

from flowferry.controller.strategies.base import (
    Finished,
    HandoverState,
    Plan,
    Send,
    Settings,
    SwitchInLine,
    Turn,
    TurnAccepted,
)
from flowferry.controller.strategies.direct import Direct
from flowferry.controller.strategies.direct_duties import FINAL_ROUND
from flowferry.controller.strategies.direct_table import (
    FINAL,
    TRANSITIONS,
    Cue,
    IllegalMoveError,
    State,
)
from flowferry.wire import Command, Counter, Flags, Side


def test_a_move_goes_through_its_steps_in_order() -> None:
    scene = Scene()
    scene.settle()
    assert scene.direct.report(scene.now).duration_ms is None
    scene.say(B, Command.RELEASED, counts={Counter.CAPTURED_PACKETS: 5, Counter.FLOWS: 2})
    scene.close()
    assert scene.kinds() == [
        "preparing",
        (Command.PREPARE, B),
        (Command.PREPARE, A),
        "turning",
        Turn,
        (Command.FREEZE, A),
        "committed",
        (Command.COMMIT, B),
        (Command.COMMIT, A),
        (Command.MARKER, A),
        (Command.RELEASE, B),
        (Command.RELEASE, A),
        Finished,
    ]
    assert scene.end == Finished(HandoverState.DONE, None, (1,))
    report = scene.direct.report(scene.now + 100)
    assert (report.flows, report.captured_packets, report.lost_packets) == (3, 5, 0)
    assert report.duration_ms == pytest.approx(SETTINGS.settling_ms)


@pytest.mark.parametrize("settling_ms", [100, 300, 1500])
def test_once_all_is_fenced_nobody_waits_for_old_entries(settling_ms: int) -> None:
    scene = Scene(settings=Settings(settling_ms=settling_ms))
    scene.settle()
    assert not scene.sent(Command.RELEASE, A)
    scene.say(B, Command.RELEASED, counts={})
    assert scene.sent(Command.RELEASE, A)
    scene.close()
    assert scene.end.state is HandoverState.DONE
    assert scene.direct.report(scene.now).duration_ms == pytest.approx(settling_ms)


def test_fences_are_timed_where_packets_wait() -> None:
    scene = Scene()
    scene.settle()
    assert scene.direct.report(scene.now).fence_ms is None
    scene.say(B, Command.RELEASED, counts={Counter.FENCE_US: 1_500, Counter.MARKERS: 3})
    report = scene.direct.report(scene.now)
    assert scene.sent(Command.MARKER, A)  # final ones, which answer no SEEN
    assert (report.fence_ms, report.markers) == (1.5, 3)


def test_nothing_to_move_is_done_at_once_and_touches_nothing() -> None:
    direct = Direct()
    none = Plan(7, (), {})
    assert direct.start(none, 1.0) == [Finished(HandoverState.DONE, None, ())]


def test_a_marker_answers_each_seen_by_its_own_switch_but_not_before_the_turn() -> None:
    scene = Scene()
    scene.prepare()
    scene.say(B, Command.SEEN, side=Side.DOWNSTREAM, round=1, flows=())
    assert not scene.sent(Command.MARKER, A)
    scene.tell(TurnAccepted())
    (early,) = scene.sent(Command.MARKER, A)
    assert (early.side, early.message.side, early.message.round) == (2, Side.DOWNSTREAM, 1)
    for _ in range(2):  # a repeated SEEN gets a repeated marker
        scene.say(B, Command.SEEN, side=Side.UPSTREAM, round=1, flows=())
    assert [send.side for send in scene.sent(Command.MARKER, A)] == [2, 1, 1]
    assert scene.direct.report(scene.now).markers == 3


@pytest.mark.parametrize("cache_ms", [0, 500])
def test_no_final_marker_goes_by_a_switch_that_may_have_turned_just_now(cache_ms: int) -> None:
    scene = Scene(settings=Settings(cache_ms=cache_ms, settling_ms=1_000))
    scene.prepare()
    scene.tell(TurnAccepted())
    scene.answer(Command.FREEZE, A)
    scene.run(0.9)
    scene.tell(SwitchInLine(5, (Side.UPSTREAM,)))
    back = scene.now
    scene.say(B, Command.IMPORTED)  # and with it another state, which asks anew
    scene.run(1.0)
    at = {send.side: when for when, send in reversed(scene.timed) if send in finals(scene)}
    assert at[Side.DOWNSTREAM] == pytest.approx(back + 0.1)
    assert at[Side.UPSTREAM] == pytest.approx(back + (0.5 if cache_ms else 0.1))


@pytest.mark.parametrize("steps", [0, 1])
def test_a_switch_that_comes_before_the_turn_calls_it_off(steps: int) -> None:
    """By its old entries packets may have come to the destination; they would prove nothing."""
    scene = Scene()
    for to in (B, A)[:steps]:
        scene.answer(Command.PREPARE, to)
    scene.tell(SwitchInLine(5, (Side.UPSTREAM,)))
    for instance in (A, B):
        scene.say(instance, Command.ABORTED)
    assert scene.end.state is HandoverState.ABORTED
    assert scene.end.error == "switch 0x5 has come just now; ask again"
    assert Turn() not in scene.actions


def finals(scene: Scene) -> list[Send]:
    """The markers that fence what nobody has seen."""
    return [send for send in scene.sent(Command.MARKER, A) if send.message.round == FINAL_ROUND]


def test_requests_are_repeated_with_growing_pauses_under_one_number() -> None:
    scene = Scene()
    scene.run(0.5)
    sends = scene.sent(Command.PREPARE, B)
    assert len(sends) == 5  # at 0, 30, 90, 210 and 450 ms
    assert len({send.request for send in sends}) == 1
    assert [bool(send.message.flags & Flags.RETRY) for send in sends] == [False] + 4 * [True]


def test_an_illegal_move_raises_and_changes_nothing() -> None:
    scene = Scene()
    machine = scene.direct._parts[1]
    before = (machine.state, machine.due, list(scene.actions))
    with pytest.raises(IllegalMoveError):
        machine.fire(Cue.TURNED_BACK, scene.now)
    assert (machine.state, machine.due, scene.actions) == before


def test_every_state_can_be_reached_and_left() -> None:
    reached = {State.WAITING}
    while more := {row.after for row in TRANSITIONS if row.before in reached} - reached:
        reached |= more
    assert reached == set(State)
    leads_out = set(FINAL)
    while more := {row.before for row in TRANSITIONS if row.after in leads_out} - leads_out:
        leads_out |= more
    assert leads_out == set(State)


def test_every_state_but_what_the_shell_answers_has_a_deadline() -> None:
    by_shell = {State.WAITING, State.READY, State.TURNING, State.REVERTING, State.RESUMING}
    with_deadline = {row.before for row in TRANSITIONS if row.cue is Cue.OVERDUE}
    assert set(State) - FINAL - by_shell == with_deadline


def test_moves_are_named_once() -> None:
    names = [row.name for row in TRANSITIONS]
    assert len(set(names)) == len(names)
