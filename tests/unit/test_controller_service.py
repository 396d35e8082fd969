"""The controller's shell: which moves wait, how one is called off, what turns do to the rules."""

import asyncio
from collections.abc import Callable

import pytest
from controller_stage import Case, Script, World, act, ask, done, settle
from controller_stage import run as run  # the fixture

from flowferry.controller.match import parse
from flowferry.controller.model import Instance, ModelError
from flowferry.controller.strategies.base import (
    AbortRequested,
    Decided,
    Finished,
    HandoverState,
    Turn,
    TurnAccepted,
    TurnBack,
    TurnedBack,
    TurnRefused,
)


def test_moves_of_different_flows_run_side_by_side_and_others_wait(
    run: Callable[[Case], None],
) -> None:
    async def case(world: World) -> None:
        service = await world.up()
        ask(service, "udp,tp_dst=80", 2)
        ask(service, "tcp", 2)
        later = ask(service, "udp", 3)
        latest = ask(service, "tcp,tp_dst=80", 3)
        assert [script.plan.number for script in Script.made] == [1, 2]
        assert any("waits" in line for _, line in later.timeline)
        await act(service, 1, Turn(), done(Script.made[0]))
        assert [script.plan.number for script in Script.made] == [1, 2, 3]
        # Planned now: flows to port 80 come from instance 2, all others from instance 1.
        found = {(part.source, part.destination) for part in Script.made[2].plan.parts}
        assert found == {(2, 3), (1, 3)}
        await service.abort(latest, "no longer wanted")
        assert latest.state is HandoverState.ABORTED
        with pytest.raises(ModelError, match="is over"):
            await service.abort(latest, "again")

    run(case)


@pytest.mark.parametrize("called_off", [True, False])
def test_a_call_is_answered_when_it_is_known_what_becomes_of_it(
    run: Callable[[Case], None], called_off: bool
) -> None:
    async def case(world: World) -> None:
        service = await world.up()
        handover = ask(service, "udp", 2)
        script = Script.made[0]
        script.answers = lambda event: []
        call = asyncio.create_task(service.abort(handover, "no longer wanted"))
        again = asyncio.create_task(service.abort(handover, "no longer wanted"))
        await settle()
        assert sum(isinstance(event, AbortRequested) for event in script.events) == 2
        assert not any(asked.done() for asked in (call, again))
        await act(service, 1, Decided(called_off))
        assert not handover.is_over
        for asked in (call, again):
            if called_off:
                await asked
            else:
                with pytest.raises(ModelError, match="handover 1 is preparing: too late"):
                    await asked

    run(case)


@pytest.mark.parametrize("end", [HandoverState.DONE, HandoverState.ABORTED])
def test_a_strategy_that_does_not_say_has_decided_when_it_is_over(
    run: Callable[[Case], None], end: HandoverState
) -> None:
    async def case(world: World) -> None:
        service = await world.up()
        handover = ask(service, "udp", 2)
        Script.made[0].answers = lambda event: []
        call = asyncio.create_task(service.abort(handover, "no longer wanted"))
        await settle()
        await act(service, 1, Finished(end, None, ()))
        if end is HandoverState.DONE:
            with pytest.raises(ModelError, match="handover 1 is done: too late"):
                await call
        else:
            await call

    run(case)


def test_a_turn_changes_the_way_and_its_undoing_restores_it(run: Callable[[Case], None]) -> None:
    async def case(world: World) -> None:
        service = await world.up()
        assert world.way() == 11
        handover = ask(service, "udp", 2)
        await act(service, 1, Turn())
        assert world.way() == 12
        assert TurnAccepted() in Script.made[0].events
        await act(service, 1, TurnBack((1,)))
        assert TurnedBack((1,)) in Script.made[0].events
        assert world.way() == 11
        assert service.model.rules == {}
        await act(service, 1, Finished(HandoverState.ABORTED, "why", ()))
        assert (handover.state, handover.error) == (HandoverState.ABORTED, "why")

    run(case)


def test_one_part_goes_back_and_the_other_stays_moved(run: Callable[[Case], None]) -> None:
    other = parse("udp,nw_src=10.0.0.1,nw_dst=10.0.0.2,tp_src=5,tp_dst=81")

    async def case(world: World) -> None:
        service = await world.up()
        ask(service, "udp,tp_dst=80", 2)
        await act(service, 1, Turn(), done(Script.made[0]))
        ask(service, "udp", 3)
        (from_2,) = [part.number for part in Script.made[1].plan.parts if part.source == 2]
        await act(service, 2, Turn())
        assert (world.way(), world.way(other)) == (13, 13)
        await act(service, 2, TurnBack((from_2,)))
        assert (world.way(), world.way(other)) == (12, 13)
        await act(service, 2, Finished(HandoverState.FAILED, "one part went back", ()))
        ask(service, "udp", 1)
        await act(service, 3, Turn())
        assert (world.way(), world.way(other)) == (11, 11)

    run(case)


def test_a_refused_turn_is_told_and_taken_back_on_request(run: Callable[[Case], None]) -> None:
    async def case(world: World) -> None:
        service = await world.up()
        world.switches[2].refuses = True
        ask(service, "udp", 2)
        await act(service, 1, Turn())
        told = Script.made[0].events[-1]
        assert isinstance(told, TurnRefused)
        assert "refused an entry" in told.why
        # The other switch has turned: what to do about it is the strategy's to say.
        assert world.way() == 12
        await act(service, 1, TurnBack((1,)))
        assert world.way() == 11

    run(case)


def test_an_instance_without_a_support_layer_takes_part_in_nothing(
    run: Callable[[Case], None],
) -> None:
    async def case(world: World) -> None:
        service = await world.up()
        await service.adopt(service.model.with_instance(Instance("i9", 9, "nf", 19, 19)))
        with pytest.raises(ModelError, match="give it a peer"):
            ask(service, "udp", 9)
        assert service.handovers == {}

    run(case)
