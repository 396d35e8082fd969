"""The controller's side of `direct`: where it goes on when the controller was restarted."""

from __future__ import annotations

from direct_scene import SIDES, A, B, Scene

from flowferry.controller.strategies.base import (
    AbortRequested,
    HandoverState,
    Journal,
    Turn,
    TurnAccepted,
    TurnBack,
    TurnedBack,
)
from flowferry.controller.strategies.direct import Direct
from flowferry.wire import Command, Flags


def journal_of(scene: Scene) -> Journal:
    return [action for action in scene.actions if isinstance(action, Journal)][-1]


def restart(scene: Scene) -> Scene:
    """The controller is killed and comes back with its journal."""
    again = Scene.__new__(Scene)
    again.__dict__.update(scene.__dict__)
    again.rows, again.actions, again.now = [], [], 5.0
    again.direct = Direct(again.rows.append)
    again.take(again.direct.restore(scene.plan, journal_of(scene).data, again.now))
    return again


def test_restarted_before_the_turn_it_rolls_back() -> None:
    scene = Scene()
    scene.answer(Command.PREPARE, B)
    scene = restart(scene)
    for instance in (A, B):
        scene.say(instance, Command.ABORTED)
    assert scene.end.state is HandoverState.ABORTED
    assert Turn() not in scene.actions


def test_restarted_when_the_agents_have_gone_back_alone_it_turns_the_switches_back() -> None:
    scene = Scene()
    scene.freeze()
    scene.tell(AbortRequested("by hand"))
    scene = restart(scene)
    for instance in (B, A):  # each remembers how its part ended
        scene.say(instance, Command.ABORTED)
    assert TurnBack((1,)) in scene.actions
    scene.tell(TurnedBack((1,)))
    scene.say(A, Command.ABORTED)
    scene.run(30.0)
    assert scene.end.state is HandoverState.ABORTED


def status(scene: Scene, instance: int, step: str, flags: Flags = Flags.NONE) -> None:
    scene.say(instance, Command.STATUS, step=step, flags=flags)


def test_restarted_after_the_turn_it_asks_and_goes_on() -> None:
    scene = Scene()
    scene.freeze()
    scene = restart(scene)
    status(scene, A, "exported")
    assert Turn() not in scene.actions
    status(scene, B, "armed")
    assert scene.actions[-1] == Turn()
    scene.tell(TurnAccepted())
    scene.answer(Command.FREEZE, A)
    scene.say(B, Command.IMPORTED)
    assert scene.sent(Command.COMMIT, A)


def test_restarted_it_finds_that_the_agents_have_finished_alone() -> None:
    scene = Scene()
    scene.freeze()
    scene = restart(scene)
    status(scene, A, "over")
    status(scene, B, "over", Flags.UNFENCED)
    scene.tell(TurnAccepted())
    for each in (A, B):
        if scene.sent(Command.RELEASE, each):
            scene.answer(Command.RELEASE, each)
    assert scene.end.state is HandoverState.DONE
    assert "unfenced" in scene.direct.report(scene.now).flags


def test_restarted_on_the_way_back_it_goes_on_back() -> None:
    scene = Scene()
    scene.freeze()
    scene.tell(AbortRequested("by hand"))
    scene = restart(scene)
    assert scene.sent(Command.ABORT, B)
    scene.answer(Command.ABORT, B)
    for side in SIDES:
        scene.say(A, Command.FENCED, side=side, round=0xFFFFFFFF)
    scene = restart(scene)
    assert [row.name for row in scene.rows] == ["waiting+fenced"]
    assert scene.sent(Command.ABORT, A)
    scene.answer(Command.ABORT, A)
    assert scene.actions[-1] == TurnBack((1,))
    scene = restart(scene)
    assert scene.actions[-1] == TurnBack((1,))


def test_called_off_after_a_restart_is_decided_when_the_agents_are_found() -> None:
    scene = Scene()
    scene.freeze()
    data = next(a.data for a in reversed(scene.actions) if isinstance(a, Journal))
    for step, called_off in (("armed", True), ("imported", False)):
        again = Scene()
        again.actions.clear()
        again.direct = Direct()
        again.take(again.direct.restore(again.plan, data, again.now))
        again.tell(AbortRequested("by hand"))
        assert again.decided == []
        again.say(A, Command.STATUS, step="exporting")
        again.say(B, Command.STATUS, step=step)
        again.tell(TurnAccepted())
        if called_off:
            assert again.decided == []
            again.answer(Command.ABORT, B)
        assert again.decided == [called_off]
