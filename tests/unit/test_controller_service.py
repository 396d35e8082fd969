"""The controller's shell, with scripts for switches and strategies: order, undoing, restarts."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
from test_controller_tables import frame, sent_to
from test_partition import model

from flowferry.controller import strategies
from flowferry.controller.change import Change, moving
from flowferry.controller.handover import Handover
from flowferry.controller.losses import Losses
from flowferry.controller.match import parse
from flowferry.controller.model import Instance, Model, ModelError
from flowferry.controller.openflow.channel import Channel, SwitchError
from flowferry.controller.openflow.codec import Change as EntryChange
from flowferry.controller.openflow.codec import Entry, EntryStats, PacketIn
from flowferry.controller.openflow.oxm import Oxm
from flowferry.controller.service import Service
from flowferry.controller.store import Store, read_peer
from flowferry.controller.strategies.base import (
    AbortRequested,
    Action,
    Decided,
    Event,
    Finished,
    HandoverState,
    InstanceDead,
    Journal,
    Plan,
    Received,
    Report,
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
from flowferry.wire import (
    Command,
    Counter,
    Flags,
    InReplyTo,
    KeyRing,
    Match,
    Message,
    Opener,
    Sealer,
    Side,
)

KEYS = KeyRing(1, bytes(32))
FLOW = parse("udp,nw_src=10.0.0.1,nw_dst=10.0.0.2,tp_src=5,tp_dst=80")


class Switch:
    """A switch that keeps its entries; `refuses` makes it refuse the next change."""

    def __init__(self, dpid: int) -> None:
        self.dpid, self.address = dpid, "test"
        self.entries_now: dict[tuple[int, int, Oxm], Entry] = {}
        self.refuses = False
        self.sent: list[tuple[int, bytes]] = []
        self.closed = False

    async def entries(self, cookie: int, mask: int) -> list[EntryStats]:
        return [
            EntryStats(one, one.cookie, one.table, one.priority, 0, 0)
            for one in self.entries_now.values()
            if one.cookie & mask == cookie
        ]

    async def apply(self, changes: Sequence[EntryChange]) -> None:
        await asyncio.sleep(0)
        if self.refuses and changes:
            raise SwitchError(f"switch {self.dpid} refused an entry")
        for change in changes:
            if change.remove:
                del self.entries_now[change.entry.key]
            else:
                self.entries_now[change.entry.key] = change.entry

    def packet_out(self, port: int, sent: bytes) -> None:
        self.sent.append((port, sent))

    def close(self, why: str = "") -> None:
        self.closed = True


def obey(event: Event) -> list[Action]:
    """A strategy that lets itself be called off, and does nothing else."""
    return [Decided(True)] if isinstance(event, AbortRequested) else []


class Script:
    """A strategy that does what the test says, and keeps what it is told."""

    made: list["Script"]

    def __init__(self) -> None:
        self.name = "script"
        self.plan: Plan
        self.events: list[Event] = []
        self.restored: Mapping[str, Any] | None = None
        self.answers: Callable[[Event], list[Action]] = obey
        self.state = HandoverState.PREPARING
        self.next_due: float | None = None
        Script.made.append(self)

    def start(self, plan: Plan, now: float) -> list[Action]:
        self.plan = plan
        return [Journal("preparing", {"x": 1})]

    def restore(self, plan: Plan, data: Mapping[str, Any], now: float) -> list[Action]:
        self.plan, self.restored = plan, data
        return []

    def handle(self, event: Event, now: float) -> list[Action]:
        self.events.append(event)
        return self.answers(event)

    def report(self, now: float) -> Report:
        return Report(duration_ms=1.0)


class World:
    """A service with two switches."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.switches = {1: Switch(1), 2: Switch(2)}

    async def up(self, *, connected: bool = True) -> Service:
        made = model()
        for one in list(made.instances.values()):
            peer = read_peer(one.id, f"172.31.0.{one.id}:7001")
            made = made.with_instance(Instance(one.name, one.id, "nf", *(10 + one.id,) * 2, peer))
        service = Service(
            made, Store(self.path), KEYS, first_table=10, heartbeat=9.0, dead_after=5,
            echo_interval=9.0, timeout=1.0, greeting=0.0,
        )  # fmt: skip
        service.start()
        if connected:
            await self.connect(service)
        return service

    async def connect(self, service: Service) -> None:
        for dpid, switch in self.switches.items():
            service.listener.channels[dpid] = cast(Channel, switch)
            await service.board.greet(cast(Channel, switch))

    def way(self, packet: Match = FLOW) -> int:
        """The port that the upstream switch sends a flow's packets by."""
        (port,) = sent_to(self.switches[1].entries_now.values(), frame(packet, 1))
        return port


Case = Callable[[World], Awaitable[None]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Case], None]:
    """Run a case in an event loop of its own."""
    Script.made = []
    monkeypatch.setattr(strategies, "make", lambda name, hook=None: Script())

    def work(case: Case) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(20):
                await case(World(tmp_path / "journal.db"))

        asyncio.run(bounded())

    return work


def ask(
    service: Service,
    words: str,
    to: int,
    priority: int | None = None,
    settings: Settings | None = None,
) -> Handover:
    number = service.store.next_number("handover")
    rule = service.store.next_number("rule")
    settings = settings or Settings()
    handover = Handover(number, "nf", words, f"i{to}", "script", False, settings, time.time())

    def build(now: Model) -> Change:
        return moving(now, "nf", parse(words), to, priority, False, rule)

    return service.submit(handover, build)


async def settle() -> None:
    """Let everything that is ready to run do so."""
    for _ in range(20):
        await asyncio.sleep(0)


async def act(service: Service, number: int, *actions: Action) -> None:
    """Have the strategy of a handover answer something with these actions."""
    script = next(one for one in reversed(Script.made) if one.plan.number == number)
    script.answers = lambda event: []
    first = [list(actions)]
    script.answers = lambda event: first.pop() if first else []
    conductor = service._conductors[number]
    conductor.feed(SwitchGone(99, ()))
    await settle()


def done(script: Script) -> Finished:
    return Finished(HandoverState.DONE, None, tuple(p.number for p in script.plan.parts))


def aborted(why: str) -> Finished:
    return Finished(HandoverState.ABORTED, why, ())


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
