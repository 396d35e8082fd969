"""What an agent does with packets that would come late: strays, and what it holds itself."""

from agent_cores import DESTINATION, PACKET, PART, SOURCE, Agent, prepare

from flowferry.wire import Command, Counter, Flags, Message, Reason, Report, Side

FINAL = 0xFFFF_FFFF
SECOND = 1_000_000_000
THROW_AWAY = Message(
    command=Command.ABORT,
    handover=PART,
    flags=Flags.TURNED | Flags.STATE_LOST,
    error=Report(Reason.REQUESTED, "over"),
)


class Destination:
    """An agent's cores, prepared as the destination of a part."""

    def __init__(self) -> None:
        self._agent = Agent(DESTINATION)
        self._core = self._agent.core
        self.hear(prepare(DESTINATION))
        self._agent.link_to(SOURCE)

    def hear(self, message: Message, now: int = 0) -> list[str]:
        """The controller says something; what is done."""
        return [action[0] for action in self._agent.hear(message, now)]

    def answers(self, message: Message) -> list[Message]:
        """The controller says something; what it is answered."""
        self._agent.take(self._agent.seal(message))
        return self._agent.said()

    def start_over(self) -> None:
        """It was stopped for too long."""
        self._core.start_over(0)
        self._core.actions()

    def packet(self) -> bool:
        """A packet comes; whether it goes on to the function."""
        goes_on: bool = self._core.ingress(1, PACKET)
        self._core.read(1, 10, 0)
        return goes_on

    def strays(self) -> int:
        """Packets that leave it for where its strays go."""
        return sum(1 for _ in iter(self._core.next_stray, None))

    def tick(self, now: int) -> list[Message]:
        """Time has passed; what it says."""
        self._core.tick(now)
        self._core.settle(now)
        return self._agent.said()

    @property
    def phase(self) -> str | None:
        return self._agent.phase

    def is_fenced(self, side: Side) -> None:
        """The source says that nothing is behind this."""
        record = bytes([3, 0, *PART.to_bytes(8, "big"), int(side) - 1, *FINAL.to_bytes(4, "big")])
        self._core.record(SOURCE, record, 0)


def release(flags: Flags) -> Message:
    return Message(command=Command.RELEASE, handover=PART, flags=flags)


def test_let_go_without_a_fence_it_hears_no_more_of_the_source() -> None:
    assert "hang_up" in Destination().hear(release(Flags.UNFENCED | Flags.STATE_LOST))


def test_behind_the_fence_there_are_no_strays_to_be_late() -> None:
    agent = Destination()
    for side in (Side.UPSTREAM, Side.DOWNSTREAM):
        agent.is_fenced(side)
    assert "hang_up" not in agent.hear(release(Flags.UNFENCED | Flags.STATE_LOST))


def test_for_want_of_state_alone_strays_are_heard() -> None:
    assert "hang_up" not in Destination().hear(release(Flags.STATE_LOST))


def test_what_belongs_to_a_move_that_went_back_is_thrown_away() -> None:
    agent = Destination()
    assert not agent.packet()
    assert "discard" in agent.hear(THROW_AWAY)
    assert agent.strays() == 1
    assert not agent.packet(), "a switch may still use an old entry"
    assert agent.strays() == 1
    (told,) = [one for one in agent.tick(SECOND) if one.command == Command.ABORTED]
    assert told.counts is not None
    assert told.counts[Counter.STRAY_PACKETS] == 2
    agent.hear(Message(command=Command.RELEASE, handover=PART), SECOND)
    assert agent.phase == "over"
    assert agent.packet(), "it is an instance like any other"


def test_who_has_started_over_does_not_say_that_it_is_done() -> None:
    """`wrong_state` would: the controller takes it for an import, and has the source forget."""
    agent = Destination()
    agent.start_over()
    error = Report(Reason.REQUESTED, "no longer wanted")
    called_off = Message(command=Command.ABORT, handover=PART, flags=Flags.TURNED, error=error)
    (answer,) = agent.answers(called_off)
    assert answer.command == Command.NACK
    assert answer.error is not None
    assert answer.error.reason == Reason.WRONG_EPOCH


def test_an_agent_of_whose_part_nobody_speaks_says_where_it_is() -> None:
    agent = Destination()
    agent.hear(Message(command=Command.QUERY), 2 * SECOND)  # a heartbeat: the controller is alive
    assert agent.tick(3 * SECOND - 1) == []
    (told,) = agent.tick(3 * SECOND)
    assert (told.command, told.handover, told.step) == (Command.STATUS, PART, "armed")
    assert agent.tick(4 * SECOND) == []
