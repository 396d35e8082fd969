"""After the end of a handover: agents that have not heard of it, and losses that are told late."""

from collections.abc import Callable
from typing import cast

import pytest
from controller_stage import KEYS, Case, Script, World, aborted, act, ask, done
from controller_stage import run as run  # the fixture

from flowferry.controller.handover import Handover
from flowferry.controller.losses import Losses
from flowferry.controller.openflow.channel import Channel
from flowferry.controller.openflow.codec import PacketIn
from flowferry.controller.service import Service
from flowferry.controller.strategies.base import (
    Finished,
    HandoverState,
    Report,
    Settings,
    Turn,
    TurnBack,
)
from flowferry.wire import (
    Command,
    Counter,
    Flags,
    InReplyTo,
    Message,
    Opener,
    Sealer,
)


def beat(service: Service, world: World, sender: Sealer, epoch: int, lost: int) -> None:
    """Instance 2's answer to a heartbeat."""
    counts = {Counter.LOST_PACKETS: lost}
    status = Message(command=Command.STATUS, epoch=epoch, counts=counts)
    sealed, _ = sender.seal(status, destination=bytes(6), source=bytes(6))
    packet = PacketIn(0, 12, 0, 0, len(sealed), sealed)
    service.agents.on_packet(cast(Channel, world.switches[1]), packet)


@pytest.mark.parametrize(("boot", "total"), [(2, 7), (1, 10)])
@pytest.mark.parametrize("back_in_time", [True, False])
def test_what_an_agent_held_when_it_failed_is_a_loss_of_its_handover(
    run: Callable[[Case], None], boot: int, total: int, back_in_time: bool
) -> None:
    """Another process counts from zero; one that was stopped goes on from the 3 of before."""

    async def case(world: World) -> None:
        service = await world.up()
        sealers = {number: Sealer(KEYS, sender=2, boot=number) for number in (1, 2)}
        beat(service, world, sealers[1], epoch=1, lost=3)
        handover = ask(service, "udp", 2)
        other = ask(service, "tcp", 3)
        end = Finished(HandoverState.ABORTED, "it is dead", ())
        service._dead(service.model.instances[2], "silent")
        if back_in_time:
            beat(service, world, sealers[boot], epoch=2, lost=total)
            await act(service, 1, end)
        else:
            await act(service, 1, end)
            beat(service, world, sealers[boot], epoch=2, lost=total)
        assert handover.as_json(service.model)["lost_packets"] == 7
        assert any("had held 7 packets" in line for _, line in handover.timeline)
        assert other.as_json(service.model)["lost_packets"] == 0
        for value in (
            total,
            total + 1,
        ):  # told again; and a loss of another kind, in the same epoch
            beat(service, world, sealers[boot], epoch=2, lost=value)
        await service.stop()
        again = await world.up()
        assert again.handovers[1].lost_packets == 7
        assert b'flowferry_packets_total{kind="lost"} 7.0' in service.metrics.text()

    run(case)


def test_what_was_lost_before_a_handover_is_none_of_its_losses(
    run: Callable[[Case], None],
) -> None:
    async def case(world: World) -> None:
        service = await world.up()
        sealer = Sealer(KEYS, sender=2, boot=1)
        beat(service, world, sealer, epoch=1, lost=0)
        beat(service, world, sealer, epoch=2, lost=5)
        handover = ask(service, "udp", 2)
        beat(service, world, sealer, epoch=2, lost=5)
        assert handover.lost_packets == 0

    run(case)


def test_what_the_strategy_has_heard_of_is_not_counted_twice() -> None:
    handover = Handover(1, "nf", "udp", "i2", "script", False, Settings(), 0.0)
    losses = Losses()
    losses.begin(handover, (2,))
    losses.died(2)
    assert losses.tell(2, 7, fresh=False, since=0.0) is handover
    handover.report = Report(lost_packets=7, lost_of={2: 7})
    assert handover.lost_packets == 7
    losses.died(2)
    assert losses.tell(2, 4, fresh=True, since=1.0) is handover
    assert Handover.from_record(handover.as_record()).lost_packets == 7 + 7 + 4


LET_GO = Command.RELEASE, Flags.UNFENCED | Flags.STATE_LOST
THROW_AWAY = Command.ABORT, Flags.TURNED | Flags.STATE_LOST
HEARD = Command.RELEASE, Flags.NONE
#: By what has become of a move from 1 to 2, and who says what then: the answer.
LATE = {
    ("moved", 2, "seen"): LET_GO,
    ("moved", 2, "imported"): (Command.COMMIT, Flags.NONE),
    ("moved", 2, "released"): HEARD,
    ("moved", 1, "seen"): THROW_AWAY,
    ("moved", 1, "exported"): THROW_AWAY,
    ("back", 1, "seen"): LET_GO,
    ("back", 1, "regaining"): LET_GO,
    ("back", 1, "prepared"): (Command.ABORT, Flags.NONE),
    ("back", 1, "aborted"): HEARD,
    ("back", 2, "seen"): THROW_AWAY,
    ("back", 2, "armed"): THROW_AWAY,
    ("back", 2, "imported"): THROW_AWAY,
    ("back", 2, "aborted"): HEARD,
    ("not turned", 1, "prepared"): (Command.ABORT, Flags.NONE),
    ("not turned", 2, "armed"): (Command.ABORT, Flags.NONE),
    ("moved", 2, "over"): None,
    ("back", 2, "discarding"): None,
}


@pytest.mark.parametrize(("end", "number", "says"), LATE)
def test_an_agent_that_missed_the_end_is_told_what_has_become_of_it(
    run: Callable[[Case], None], end: str, number: int, says: str
) -> None:
    async def case(world: World) -> None:
        service = await world.up()
        ask(service, "udp", 2)
        script = Script.made[0]
        if end != "not turned":
            await act(service, 1, Turn())
        if end == "back":
            await act(service, 1, TurnBack((1,)))
        await act(service, 1, done(script) if end == "moved" else aborted("no"))
        sent = len(world.switches[1].sent)
        named = says.upper() in Command.__members__
        late = Message(
            command=Command[says.upper()] if named else Command.STATUS,
            handover=1 << 8 | 1,
            counts={},
            step=None if named else says,
            sender=number,
        )
        service._message(service.model.instances[number], late)
        answers = [Opener(KEYS, own=number).open(one) for _, one in world.switches[1].sent[sent:]]
        expected = LATE[end, number, says]
        assert [(one.command, one.flags) for one in answers] == ([expected] if expected else [])

    run(case)


def test_what_is_thrown_away_after_the_end_is_a_loss_of_the_handover(
    run: Callable[[Case], None],
) -> None:
    async def case(world: World) -> None:
        service = await world.up()
        handover = ask(service, "udp", 2)
        await act(service, 1, Turn())
        await act(service, 1, TurnBack((1,)))
        await act(service, 1, aborted("no"))
        for lost in (4, 4, 5):  # a report is repeated until it is heard
            counts = {Counter.LOST_PACKETS: lost}
            late = Message(command=Command.ABORTED, handover=1 << 8 | 1, counts=counts, sender=2)
            service._message(service.model.instances[2], late)
        # An answer, of one that had failed: a heartbeat tells of that.
        counts, asked = {Counter.LOST_PACKETS: 9}, InReplyTo(Command.ABORT, 0)
        late = Message(
            command=Command.ABORTED, handover=1 << 8 | 1, counts=counts, sender=2, in_reply_to=asked
        )
        service._message(service.model.instances[2], late)
        assert handover.lost_packets == 5
        (record,) = service.store.handovers()
        assert Handover.from_record(record.body).lost_packets == 5

    run(case)
