"""What agents say, and that they die: whom the controller believes, and whom it tells."""

from collections.abc import Callable
from typing import cast

from controller_stage import KEYS, Case, Script, World, act, ask, settle
from controller_stage import run as run  # the fixture

from flowferry.controller.openflow.channel import Channel
from flowferry.controller.openflow.codec import PacketIn
from flowferry.controller.strategies.base import (
    InstanceDead,
    Received,
    Send,
)
from flowferry.wire import (
    Command,
    InReplyTo,
    Match,
    Message,
    Opener,
    Sealer,
)


def test_frames_find_their_handover_and_answers_their_request(
    run: Callable[[Case], None],
) -> None:
    async def case(world: World) -> None:
        service = await world.up()
        ask(service, "udp", 2)
        query = Message(command=Command.QUERY, handover=1 << 8 | 1)
        await act(service, 1, Send(2, None, query, request=77))
        port, sent = world.switches[1].sent[-1]
        assert port == 12
        asked = Opener(KEYS, own=2).open(sent)
        assert asked.handover == 1 << 8 | 1
        answer = Message(
            command=Command.ACK,
            handover=asked.handover,
            in_reply_to=InReplyTo(asked.command, asked.sequence),
        )
        sealed, _ = Sealer(KEYS, sender=2, boot=1).seal(
            answer, destination=bytes(6), source=bytes(6)
        )

        def arrive(at: int) -> None:
            packet = PacketIn(0, at, 0, 0, len(sealed), sealed)
            service.agents.on_packet(cast(Channel, world.switches[1]), packet)

        arrive(13)  # another instance's port: not believed, though it is signed
        assert service.agents.misplaced == 1
        sealed, _ = Sealer(KEYS, sender=2, boot=2).seal(
            answer, destination=bytes(6), source=bytes(6)
        )
        arrive(12)
        await settle()
        told = Script.made[0].events[-1]
        assert isinstance(told, Received)
        assert (told.instance, told.request) == (2, 77)
        arrive(12)  # a replay
        await settle()
        assert Script.made[0].events[-1] is told
        for direction, outcome, count in (
            ("out", "sent", service.agents.frames_out),
            ("in", "misplaced", 1),
            ("in", "accepted", 1),
            ("in", "rejected", 1),
        ):
            kind = f'{{direction="{direction}",outcome="{outcome}"}}'
            said = f"flowferry_control_frames_total{kind} {float(count)}\n"
            assert said in service.metrics.text().decode()
        assert service.agents.frames_out > 0

    run(case)


def test_the_death_of_an_agent_is_told_once_to_whom_it_concerns(
    run: Callable[[Case], None],
) -> None:
    async def case(world: World) -> None:
        service = await world.up()
        ask(service, "udp", 2)
        ask(service, "tcp", 3)
        for _ in range(2):
            service._dead(service.model.instances[3], "silent")
        assert not any(isinstance(event, InstanceDead) for event in Script.made[0].events)
        told = [event for event in Script.made[1].events if isinstance(event, InstanceDead)]
        assert told == [InstanceDead(3, "instance i3: silent")]

    run(case)


def test_an_agent_that_was_restarted_is_dead_before_it_is_heard(
    run: Callable[[Case], None],
) -> None:
    """What it answers is not for the handover: it would answer for the one that has died."""

    async def case(world: World) -> None:
        service = await world.up()
        ask(service, "udp", 2)
        for boot in (1, 2):
            asked = InReplyTo(Command.PREPARE, 0)
            answer = Message(command=Command.ACK, handover=1 << 8 | 1, in_reply_to=asked)
            sealed, _ = Sealer(KEYS, sender=2, boot=boot).seal(
                answer, destination=bytes(6), source=bytes(6)
            )
            packet = PacketIn(0, 12, 0, 0, len(sealed), sealed)
            service.agents.on_packet(cast(Channel, world.switches[1]), packet)
        await settle()
        kinds = [type(event) for event in Script.made[0].events]
        assert kinds == [Received, InstanceDead, Received]

    run(case)


def test_nothing_is_prepared_for_an_epoch_that_nobody_has_reported(
    run: Callable[[Case], None],
) -> None:
    """The agent is asked for it instead, also if it is another process than the one that did."""

    async def case(world: World) -> None:
        service = await world.up()
        prepare = Message(
            command=Command.PREPARE, handover=1 << 8 | 1, match=Match(), sources=(1,),
            destination=2, priority=1, deadline_ms=100, strategy="direct",
        )  # fmt: skip
        opener = Opener(KEYS, own=2)

        def sends() -> list[tuple[Command, int | None]]:
            before = len(world.switches[1].sent)
            numbers = service.agents.send(2, None, prepare)
            said = [opener.open(frame) for _, frame in world.switches[1].sent[before:]]
            assert numbers == [one.sequence for one in said if one.command is Command.PREPARE]
            return [(one.command, one.epoch) for one in said]

        def says(boot: int, message: Message) -> None:
            sealer = Sealer(KEYS, sender=2, boot=boot)
            frame, _ = sealer.seal(message, destination=bytes(6), source=bytes(6))
            packet = PacketIn(0, 12, 0, 0, len(frame), frame)
            service.agents.on_packet(cast(Channel, world.switches[1]), packet)

        assert sends() == [(Command.QUERY, None)]
        says(1, Message(command=Command.STATUS, counts={}, epoch=7))
        assert sends() == [(Command.PREPARE, 7)]
        says(2, Message(command=Command.IMPORTED, handover=1 << 8 | 1))
        assert sends() == [(Command.QUERY, None)]
        says(3, Message(command=Command.STATUS, counts={}, epoch=9))
        assert sends() == [(Command.PREPARE, 9)]

    run(case)
