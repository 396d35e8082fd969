"""The controller's side of `direct`: called off, by request or by what agents and switches say."""

from __future__ import annotations

import pytest
from direct_scene import SETTINGS, SIDES, A, B, Scene, part

from flowferry.controller.strategies.base import (
    AbortRequested,
    Decided,
    Finished,
    HandoverState,
    Note,
    SwitchGone,
    Turn,
    TurnAccepted,
    TurnBack,
    TurnedBack,
    TurnRefused,
)
from flowferry.wire import Command, Flags, Reason, Report, Side


@pytest.mark.parametrize("silent", [A, B])
def test_an_instance_that_does_not_answer_prepare_calls_it_off(silent: int) -> None:
    scene = Scene()
    if silent == A:
        scene.answer(Command.PREPARE, B)
    scene.run(2.1)
    for instance in (A, B):
        scene.say(instance, Command.ABORTED)
    assert scene.end.state is HandoverState.ABORTED
    assert scene.end.error == f"instance {silent} did not answer in time; look at its agent"
    assert Turn() not in scene.actions
    assert not any(isinstance(action, TurnBack) for action in scene.actions)


def test_a_refusal_of_one_part_calls_off_all_of_them() -> None:
    scene = Scene(part(1), part(2, source=3))
    scene.answer(Command.PREPARE, B, 1)
    scene.answer(Command.PREPARE, A, 1)
    scene.answer(Command.PREPARE, B, 2, error=Reason.CAPTURE_FAILED)
    assert scene.sent(Command.ABORT, A, 1)
    assert scene.sent(Command.ABORT, B, 1)
    assert Turn() not in scene.actions


def test_a_switch_that_goes_before_the_turn_calls_it_off() -> None:
    scene = Scene()
    scene.answer(Command.PREPARE, B)
    scene.tell(SwitchGone(5, (Side.UPSTREAM,)))
    assert scene.sent(Command.ABORT, B)
    assert Turn() not in scene.actions


def give_back(scene: Scene) -> None:
    """From HALTING to the end of the way back."""
    assert not any(send.message.flags & Flags.TURNED for send in scene.sent(Command.ABORT, A))
    for side in SIDES:
        scene.say(A, Command.FENCED, side=side, round=0xFFFFFFFF)
    scene.answer(Command.ABORT, A)
    scene.tell(TurnedBack((1,)))
    scene.say(B, Command.FENCED, side=Side.UPSTREAM, round=0xFFFFFFFF)
    scene.say(A, Command.ABORTED)
    scene.close()


@pytest.mark.parametrize("cause", ["refused", "requested", "plea", "late"])
def test_called_off_after_the_turn_the_forward_fence_comes_first(cause: str) -> None:
    scene = Scene()
    if cause == "refused":
        scene.prepare()
        scene.tell(TurnRefused("table full"))
    else:
        scene.freeze()
        if cause == "requested":
            scene.tell(AbortRequested("by hand"))
        elif cause == "plea":
            scene.say(B, Command.ABORT, error=Report(Reason.BUFFER_PRESSURE, "half full"))
        else:
            scene.run(SETTINGS.transfer_ms / 1e3)
    if cause == "refused":
        assert not scene.sent(Command.FREEZE, A)
    scene.answer(Command.ABORT, B)
    scene.run(SETTINGS.cache_ms / 1e3)
    assert {send.side for send in scene.sent(Command.MARKER, A)} == set(SIDES)
    give_back(scene)
    aborts = [scene.sent(Command.ABORT, each)[0] for each in (A, B)]
    assert all(send.message.flags & Flags.TURNED for send in aborts)
    order = scene.kinds()
    steps = [(Command.ABORT, B), (Command.MARKER, A), (Command.ABORT, A), TurnBack]
    if cause == "late":  # the settling time has sent final markers before
        steps.remove((Command.MARKER, A))
    marks = [order.index(step) for step in steps]
    assert marks == sorted(marks)
    assert scene.end.state is HandoverState.ABORTED
    assert scene.end.moved == ()
    assert scene.end.error


def test_a_destination_that_has_imported_is_not_called_off() -> None:
    scene = Scene()
    scene.freeze()
    scene.tell(AbortRequested("by hand"))
    assert scene.decided == []
    scene.answer(Command.ABORT, B, error=Reason.WRONG_STATE)
    assert scene.decided == [False]
    assert not scene.sent(Command.ABORT, A)
    scene.say(B, Command.IMPORTED)
    scene.answer(Command.COMMIT, A)
    scene.say(B, Command.RELEASED)
    scene.run(SETTINGS.cache_ms / 1e3)
    scene.close()
    assert scene.end == Finished(HandoverState.DONE, None, (1,))


def test_called_off_before_the_turn_is_decided_at_once() -> None:
    scene = Scene()
    scene.tell(AbortRequested("by hand"))
    assert scene.decided == [True]


def test_called_off_while_switches_turn_is_decided_when_the_destination_has_promised() -> None:
    scene = Scene()
    scene.prepare()
    scene.tell(AbortRequested("by hand"))
    assert scene.decided == []
    scene.tell(TurnAccepted())
    scene.tell(AbortRequested("once more"))
    assert scene.decided == []
    scene.answer(Command.ABORT, B)
    assert scene.decided == [True]
    scene.tell(AbortRequested("and again"))
    assert scene.decided == [True, True]


def test_called_off_when_the_state_is_in_changes_nothing() -> None:
    scene = Scene()
    scene.freeze()
    scene.say(B, Command.IMPORTED)
    before = len(scene.actions)
    scene.tell(AbortRequested("by hand"))
    assert scene.actions[before:] == [Note("too late to call it off (by hand)"), Decided(False)]


def test_a_switch_that_refused_takes_nothing_back_once_the_state_is_in() -> None:
    scene = Scene()
    scene.prepare()
    scene.tell(TurnRefused("table full"))
    scene.answer(Command.ABORT, B, error=Reason.WRONG_STATE)
    scene.answer(Command.COMMIT, A)
    scene.run(SETTINGS.settling_ms / 1e3 + SETTINGS.deadline_ms / 1e3)  # no word of its release
    assert scene.direct.next_due is not None
    assert scene.sent(Command.RELEASE, B)
    assert TurnBack not in scene.kinds()
    scene.say(B, Command.RELEASED)
    scene.close()
    assert scene.end.state is HandoverState.DONE


def test_after_the_import_nobody_can_call_it_off() -> None:
    scene = Scene()
    scene.settle()
    before = scene.kinds()
    scene.tell(AbortRequested("by hand"))
    assert scene.kinds() == before
