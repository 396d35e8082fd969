"""What an agent does with strays that would come late: flows are let go without their fence."""

from dataclasses import replace
from ipaddress import IPv4Address

from flowferry import _native
from flowferry.wire import CONTROLLER, Command, Flags, KeyRing, Match, Message, Peer, Sealer, Side

KEYS = KeyRing(1, bytes(32))
PART, SOURCE, DESTINATION = 1 << 8 | 1, 1, 2
FINAL = 0xFFFF_FFFF


class Destination:
    """An agent's cores, prepared as the destination of a part."""

    def __init__(self) -> None:
        self._core = _native.HslInstance(DESTINATION, buffer_bytes=1 << 20)
        self._sealer = Sealer(KEYS, sender=CONTROLLER, boot=1)
        self._opener = _native.WireOpener(DESTINATION)
        self.hear(
            Message(
                command=Command.PREPARE,
                handover=PART,
                match=Match(family=4, protocol=17),
                sources=(SOURCE,),
                destination=DESTINATION,
                peers=(Peer(SOURCE, IPv4Address("192.0.2.1"), 7000),),
                priority=1,
                deadline_ms=1000,
                settling_ms=1000,
                strategy="direct",
            )
        )
        self._core.connected("192.0.2.1:7000", 0)

    def hear(self, message: Message) -> list[str]:
        """The controller says something; what is done."""
        message = replace(message, to=DESTINATION)
        frame, _ = self._sealer.seal(message, destination=bytes(6), source=bytes(6))
        self._core.control(1, self._opener.open(KEYS, frame), 0)
        return [action[0] for action in self._core.actions()]

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
