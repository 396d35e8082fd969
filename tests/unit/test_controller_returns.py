"""What goes and comes back: switches that were away or restarted, and the controller itself."""

import asyncio
from collections.abc import Callable
from typing import cast

import pytest
from controller_stage import Case, Script, World, act, ask, done, settle
from controller_stage import run as run  # the fixture

from flowferry.controller.model import Model
from flowferry.controller.openflow.channel import Channel
from flowferry.controller.store import Store
from flowferry.controller.strategies.base import (
    Finished,
    HandoverState,
    Journal,
    Send,
    Settings,
    SwitchGone,
    SwitchInLine,
    Tick,
    Turn,
    TurnBack,
    TurnRefused,
)
from flowferry.wire import (
    Command,
    Message,
    Side,
)


@pytest.mark.parametrize("forward", [False, True])
def test_a_switch_that_is_away_is_brought_in_line_when_it_is_known_what_is_right(
    run: Callable[[Case], None], forward: bool
) -> None:
    """Turned meanwhile, it would send packets a new way whose old way is said to be fenced."""

    async def case(world: World) -> None:
        service = await world.up()
        switch = cast(Channel, world.switches[1])
        del service.listener.channels[1]
        service._switch_down(switch, "gone")
        ask(service, "udp", 2)
        await act(service, 1, Turn())
        told = Script.made[0].events[-1]
        assert isinstance(told, TurnRefused)
        assert "not connected" in told.why
        await world.connect(service)
        assert world.way() == 11
        if forward:  # the state was in already
            await act(service, 1, done(Script.made[0]))
        else:
            await act(service, 1, TurnBack((1,)))
        await settle()
        assert world.way() == (12 if forward else 11)

    run(case)


def test_a_marker_goes_by_a_switch_that_is_in_line_or_not_at_all(
    run: Callable[[Case], None],
) -> None:
    async def case(world: World) -> None:
        service = await world.up()
        ask(service, "udp", 2)
        marker = Message(
            command=Command.MARKER, to=1, handover=1 << 8 | 1, side=Side.UPSTREAM, round=7
        )
        send = Send(1, Side.UPSTREAM, marker, request=1)
        switch = world.switches[1]
        sent = len(switch.sent)
        service.board._switches[1].has, has = None, service.board._switches[1].has
        await act(service, 1, send)  # it is connected, and not known yet
        assert len(switch.sent) == sent
        service.board._switches[1].has = has
        await act(service, 1, send)
        assert len(switch.sent) == sent + 1

    run(case)


def test_the_strategy_is_told_of_a_switch_that_is_back(run: Callable[[Case], None]) -> None:
    async def case(world: World) -> None:
        service = await world.up()
        ask(service, "udp", 2)
        switch = cast(Channel, world.switches[1])
        del service.listener.channels[1]
        service._switch_down(switch, "gone")
        await world.connect(service)
        told = [event for event in Script.made[0].events if not isinstance(event, Tick)]
        assert told[:2] == [SwitchGone(1, (Side.UPSTREAM,)), SwitchInLine(1, (Side.UPSTREAM,))]

    run(case)


def test_a_switch_that_was_restarted_has_nothing_to_keep(run: Callable[[Case], None]) -> None:
    """While the turn is not decided; what it lacks would lead flows to a third instance."""

    async def case(world: World) -> None:
        service = await world.up()
        ask(service, "udp", 2)
        await act(service, 1, Turn(), done(Script.made[0]))
        assert world.way() == 12
        ask(service, "udp", 3)  # from i2 to i3; the group's default is i1
        switch = cast(Channel, world.switches[1])
        del service.listener.channels[1]
        service._switch_down(switch, "gone")
        await act(service, 2, Turn())
        assert isinstance(Script.made[1].events[-1], TurnRefused)
        world.switches[1].entries_now.clear()
        await world.connect(service)
        assert world.way() == 13

    run(case)


def test_nothing_is_prepared_while_a_switch_may_use_entries_of_before_it_came(
    run: Callable[[Case], None],
) -> None:
    async def case(world: World) -> None:
        service = await world.up()
        service._greeting = 0.001
        handover = ask(service, "udp", 2, settings=Settings(cache_ms=200))
        loop = asyncio.get_running_loop()
        while not hasattr(Script.made[0], "plan"):
            await asyncio.sleep(0.005)
        assert loop.time() >= service.board._switches[1].since + 0.2
        assert not handover.is_over

    run(case)


@pytest.mark.parametrize("turned", [False, True])
def test_after_a_restart_the_strategy_decides_and_nothing_changes_before(
    run: Callable[[Case], None], turned: bool
) -> None:
    async def case(world: World) -> None:
        service = await world.up()
        ask(service, "udp", 2)
        before = {dpid: dict(switch.entries_now) for dpid, switch in world.switches.items()}
        await act(service, 1, Journal("turning", {"x": 2}), Turn())
        if not turned:  # it died after it had written down what it would do
            for dpid, entries in before.items():
                world.switches[dpid].entries_now = entries
        way = world.way()
        await service.stop()

        again = await world.up()
        await settle()
        script = Script.made[-1]
        assert script.restored == {"x": 2}
        assert world.way() == way == (12 if turned else 11)
        await act(again, 1, Turn())
        assert world.way() == 12
        await act(again, 1, TurnBack((1,)))
        assert world.way() == 11
        await act(again, 1, Finished(HandoverState.ABORTED, None, ()))
        await again.stop()
        third = await world.up()
        assert third.handovers[1].state is HandoverState.ABORTED
        assert third.model.rules == {}
        assert third.store.next_number("handover") == 2

    run(case)


def test_a_restart_does_not_shorten_a_handover(run: Callable[[Case], None]) -> None:
    """It began before; the script says that its own part of it took a millisecond."""

    async def case(world: World) -> None:
        service = await world.up()
        handover = ask(service, "udp", 2)
        assert handover.began is not None
        handover.began -= 100
        await act(service, 1, Journal("turning", {}), Turn())
        await service.stop()
        again = await world.up()
        await settle()
        await act(again, 1, done(Script.made[-1]))
        took = again.handovers[1].report.duration_ms
        assert took is not None
        assert took > 100_000

    run(case)


def test_a_change_that_moves_no_flow_is_written_down_whole_or_not_at_all(
    run: Callable[[Case], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The journal's rules are written anew; a controller that dies in between has the old ones."""

    async def case(world: World) -> None:
        service = await world.up()
        ask(service, "udp", 2)
        await act(service, 1, Turn(), done(Script.made[0]))

        def die(store: Store, model: Model) -> None:
            store._db.execute("DELETE FROM rules")
            raise RuntimeError

        monkeypatch.setattr(Store, "save_rules", die)
        with pytest.raises(RuntimeError):
            ask(service, "udp,tp_dst=80", 2)  # they are there already
        await service.stop()
        monkeypatch.undo()
        assert set((await world.up(connected=False)).model.rules) == {1}

    run(case)
