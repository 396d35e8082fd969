"""Requests to the controller that meet: each waits for those before it that concern its flows."""

from collections.abc import Callable

from controller_stage import Case, Script, World, act, done
from controller_stage import run as run  # the fixture

from flowferry.controller.backend import Controller
from flowferry.controller.strategies.base import Settings, Turn


def test_to_where_flows_still_are_it_waits_for_who_takes_them_away(
    run: Callable[[Case], None],
) -> None:
    """The last request counts, not the place at the time of asking."""

    async def case(world: World) -> None:
        service = await world.up()
        controller = Controller(service, "lab", "direct", Settings())
        there = await controller.move("udp", "i2")
        home = await controller.move("udp,tp_dst=80", "i1")
        elsewhere = await controller.move("tcp", "i1")
        assert service.handovers[elsewhere["id"]].state == "done"  # nobody moves TCP
        assert service.handovers[home["id"]].state == "preparing"
        await act(service, there["id"], Turn(), done(Script.made[0]))
        assert world.way() == 12
        (back,) = Script.made[1].plan.parts
        assert (back.source, back.destination) == (2, 1)
        await act(service, home["id"], Turn(), done(Script.made[1]))
        assert world.way() == 11

    run(case)


def test_to_where_flows_will_be_it_is_done_no_sooner_than_they_are(
    run: Callable[[Case], None],
) -> None:
    """Who moves them can be called off yet."""

    async def case(world: World) -> None:
        service = await world.up()
        controller = Controller(service, "lab", "direct", Settings())
        first = await controller.move("udp", "i2")
        await act(service, first["id"], Turn())
        second = await controller.move("udp", "i2")
        assert service.handovers[second["id"]].state == "preparing"
        await act(service, first["id"], done(Script.made[0]))
        assert service.handovers[second["id"]].state == "done"
        assert len(Script.made) == 1

    run(case)
