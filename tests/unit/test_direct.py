"""The controller's side of `direct`: what it says in which order, and its way out of each fault.

Scripted: the agents' answers are given by hand. Whether packets keep their order is what the
simulation shows (tests/simulation).
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address
from itertools import count

import pytest

from flowferry.controller.strategies.base import (
    AbortRequested,
    Action,
    Decided,
    Event,
    Finished,
    HandoverState,
    InstanceDead,
    Journal,
    Note,
    Part,
    Plan,
    Received,
    Send,
    Settings,
    SwitchGone,
    SwitchInLine,
    Tick,
    Turn,
    TurnAccepted,
    TurnBack,
    TurnedBack,
    TurnRefused,
)
from flowferry.controller.strategies.direct import Direct
from flowferry.controller.strategies.direct_duties import FINAL_ROUND
from flowferry.controller.strategies.direct_table import (
    FINAL,
    TRANSITIONS,
    Cue,
    IllegalMoveError,
    State,
    Transition,
)
from flowferry.wire import Command, Counter, Flags, Match, Message, Peer, Reason, Report, Side

A, B = 1, 2
SIDES = (Side.UPSTREAM, Side.DOWNSTREAM)
SETTINGS = Settings()


def part(number: int = 1, source: int = A, destination: int = B) -> Part:
    return Part(number, Match(family=4), (), source, destination, SIDES, 1)


def plan(*parts: Part, settings: Settings = SETTINGS) -> Plan:
    peers = {i: Peer(i, IPv4Address("192.0.2.1"), 7000 + i) for i in (1, 2, 3)}
    return Plan(7, parts or (part(),), peers, settings)


class Scene:
    """A strategy, the time, and everything it has asked for so far."""

    def __init__(self, *parts: Part, settings: Settings = SETTINGS) -> None:
        self.now = 100.0
        self.plan = plan(*parts, settings=settings)
        self.rows: list[Transition] = []
        self.direct = Direct(self.rows.append)
        self.actions: list[Action] = []
        self.timed: list[tuple[float, Send]] = []
        self.boot = count(1)
        self.take(self.direct.start(self.plan, self.now))

    def take(self, actions: list[Action]) -> None:
        self.actions += actions
        self.timed += [(self.now, action) for action in actions if isinstance(action, Send)]

    def tell(self, event: Event) -> None:
        self.take(self.direct.handle(event, self.now))

    @property
    def decided(self) -> list[bool]:
        """What has become of requests to call it off."""
        return [action.called_off for action in self.actions if isinstance(action, Decided)]

    def run(self, seconds: float) -> None:
        """Let time pass, tick by tick as the shell would."""
        end = self.now + seconds
        while (due := self.direct.next_due) is not None and due <= end:
            self.now = max(self.now, due)
            self.tell(Tick())
        self.now = end

    def sent(self, command: Command, to: int, number: int = 1) -> list[Send]:
        wire_id = self.plan.number << 8 | number
        return [
            action
            for action in self.actions
            if isinstance(action, Send)
            and (action.message.command, action.instance) == (command, to)
            and action.message.handover == wire_id
        ]

    def say(self, instance: int, command: Command, number: int = 1, **fields: object) -> None:
        """An instance says something of its own accord."""
        message = Message(
            command=command,
            sender=instance,
            handover=self.plan.number << 8 | number,
            **fields,  # type: ignore[arg-type]
        )
        self.tell(Received(instance, message))

    def answer(
        self,
        command: Command,
        to: int,
        number: int = 1,
        error: Reason | None = None,
        **fields: object,
    ) -> None:
        """Answer the last request of that kind: ACK, or NACK with a reason."""
        send = self.sent(command, to, number)[-1]
        message = Message(
            command=Command.ACK if error is None else Command.NACK,
            sender=to,
            handover=send.message.handover,
            error=None if error is None else Report(error, "no"),
            **fields,  # type: ignore[arg-type]
        )
        self.tell(Received(to, message, send.request))

    def prepare(self) -> None:
        for each in self.plan.parts:
            self.answer(Command.PREPARE, each.destination, each.number)
            self.answer(Command.PREPARE, each.source, each.number, counts={Counter.FLOWS: 3})

    def turn(self) -> None:
        self.prepare()
        self.tell(TurnAccepted())

    def freeze(self) -> None:
        self.turn()
        self.answer(Command.FREEZE, A)

    def settle(self) -> None:
        self.freeze()
        self.say(B, Command.IMPORTED)
        self.answer(Command.COMMIT, A)
        self.run(self.plan.settings.settling_ms / 1e3)

    def close(self) -> None:
        for each in (A, B):
            self.answer(Command.RELEASE, each)

    @property
    def end(self) -> Finished:
        last = self.actions[-1]
        assert isinstance(last, Finished)
        return last

    def kinds(self) -> list[object]:
        """The order of what was done, without repeats of a kind."""
        kinds: list[object] = []
        for action in self.actions:
            kind: object = None
            if isinstance(action, Send):
                kind = (action.message.command, action.instance)
            elif isinstance(action, Journal):
                kind = action.step
            elif isinstance(action, Turn | TurnBack | Finished):
                kind = type(action)
            if kind is not None and kind not in kinds[-1:]:
                kinds.append(kind)
        return kinds


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


# --- the table ---


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
