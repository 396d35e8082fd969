"""The controller's side of `direct`: dead and silent agents, a controller that stood still."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from direct_scene import SETTINGS, A, B, Scene, part

from flowferry.controller.strategies.base import (
    AbortRequested,
    Finished,
    HandoverState,
    InstanceDead,
    Turn,
    TurnAccepted,
    TurnBack,
    TurnedBack,
    TurnRefused,
)
from flowferry.wire import Command, Counter, Flags, Reason


def test_who_has_started_over_has_imported_nothing() -> None:
    scene = Scene()
    scene.freeze()
    scene.tell(AbortRequested("by hand"))
    scene.answer(Command.ABORT, B, error=Reason.WRONG_EPOCH)
    assert not scene.sent(Command.COMMIT, A), "the source has the only state there is"
    assert scene.sent(Command.ABORT, A)


def test_a_controller_that_stood_still_turns_nothing() -> None:
    """Its agents may have given up meanwhile; a move without their holds would lose the order."""
    scene = Scene()
    scene.answer(Command.PREPARE, B)
    scene.now += 3.1 * SETTINGS.settling_ms / 1e3
    scene.answer(Command.PREPARE, A)
    scene.say(A, Command.ABORTED)
    scene.say(B, Command.ABORTED)
    assert not any(isinstance(action, Turn) for action in scene.actions)
    assert scene.end.state is HandoverState.ABORTED
    assert "stood still for 4.7 s" in (scene.end.error or "")


def test_a_dead_source_costs_its_own_flows_their_state_and_no_others() -> None:
    scene = Scene(part(1), part(2, source=3))
    scene.turn()
    scene.tell(InstanceDead(3, "no heartbeat"))
    scene.run(SETTINGS.cache_ms / 1e3)
    (release, *_) = scene.sent(Command.RELEASE, B, 2)
    assert release.message.flags & (Flags.STATE_LOST | Flags.UNFENCED) == 0x18
    assert not scene.sent(Command.RELEASE, B, 1)
    scene.say(B, Command.RELEASED, 2, flags=Flags.STATE_LOST | Flags.UNFENCED)
    scene.answer(Command.RELEASE, B, 2)
    scene.answer(Command.FREEZE, A)
    scene.say(B, Command.IMPORTED)
    scene.answer(Command.COMMIT, A)
    scene.say(B, Command.RELEASED)
    scene.close()
    assert (scene.end.state, scene.end.moved) == (HandoverState.FAILED, (1, 2))
    assert scene.end.error == "state lost: no heartbeat"
    assert "state_lost" in scene.direct.report(scene.now).flags


def test_without_its_destination_a_part_goes_back_and_waits_for_no_fence() -> None:
    scene = Scene()
    scene.freeze()
    scene.tell(InstanceDead(B, "no heartbeat"))
    scene.answer(Command.ABORT, A)
    assert scene.actions[-1] == TurnBack((1,))
    scene.tell(TurnedBack((1,)))
    (release,) = scene.sent(Command.RELEASE, A)
    assert release.message.flags & Flags.UNFENCED
    scene.say(A, Command.ABORTED, counts={Counter.LOST_PACKETS: 4})
    scene.answer(Command.RELEASE, A)
    assert scene.end == Finished(HandoverState.ABORTED, "no heartbeat", ())
    assert scene.direct.report(scene.now).lost_packets == 4


def test_with_both_agents_gone_the_flows_are_back_all_the_same() -> None:
    scene = Scene()
    scene.freeze()
    scene.tell(InstanceDead(B, "no heartbeat"))
    scene.answer(Command.ABORT, A)
    scene.tell(TurnedBack((1,)))
    scene.tell(InstanceDead(A, "no heartbeat either"))
    assert "alone+source_gone" in [row.name for row in scene.rows]
    assert scene.end == Finished(HandoverState.ABORTED, "no heartbeat", ())


@pytest.mark.parametrize("steps", range(1, 7))
def test_waiting_is_bounded_whatever_falls_silent(steps: int) -> None:
    """After some steps of a move everybody falls silent, but for the shell's own answers."""
    scene = Scene()
    moves: list[Callable[[], None]] = [
        lambda: scene.answer(Command.PREPARE, B),
        lambda: scene.answer(Command.PREPARE, A),
        lambda: scene.tell(TurnAccepted()),
        lambda: scene.answer(Command.FREEZE, A),
        lambda: scene.say(B, Command.IMPORTED),
        lambda: scene.say(B, Command.RELEASED),
    ]
    for move in moves[:steps]:
        move()
    for _ in range(20):
        if scene.direct.state.is_over:
            break
        scene.run(SETTINGS.transfer_ms / 1e3)
        if isinstance(scene.actions[-1], Turn):
            scene.tell(TurnRefused("no answer"))
        if any(isinstance(action, TurnBack) for action in scene.actions):
            scene.tell(TurnedBack((1,)))
    assert scene.direct.state.is_over
