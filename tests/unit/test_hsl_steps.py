"""Steps of a part at a source's agent that no cell of the crash grid and no seed comes to."""

import json
from dataclasses import replace
from ipaddress import IPv4Address
from typing import Any

from flowferry import _native
from flowferry.wire import (
    CONTROLLER,
    Command,
    Flags,
    KeyRing,
    Match,
    Message,
    Peer,
    Reason,
    Report,
    Sealer,
)

KEYS = KeyRing(1, bytes(32))
PART, SOURCE, DESTINATION = 1 << 8 | 1, 1, 2
RETURN = bytes([6, 0, *PART.to_bytes(8, "big")])


class Source:
    """An agent's cores, frozen as the source of a part; the flushes that end its drain are on."""

    def __init__(self) -> None:
        self.core = _native.HslInstance(SOURCE, buffer_bytes=1 << 20)
        self._sealer = Sealer(KEYS, sender=CONTROLLER, boot=1)
        self._opener = _native.WireOpener(SOURCE)
        self.core.function('{"hello": "counter", "lists_flows": false}', 0)
        self.hear(
            Message(
                command=Command.PREPARE,
                handover=PART,
                match=Match(family=4, protocol=17),
                sources=(SOURCE,),
                destination=DESTINATION,
                peers=(Peer(DESTINATION, IPv4Address("192.0.2.2"), 7000),),
                priority=1,
                deadline_ms=1000,
                settling_ms=1000,
                strategy="direct",
            )
        )
        self.core.connected("192.0.2.2:7000", 0)
        frozen = self.hear(Message(command=Command.FREEZE, handover=PART, deadline_ms=1000))
        self.flushes = [action[2] for action in frozen if action[0] == "flush"]
        assert self.core.phase(PART) == "draining"

    def hear(self, message: Message) -> list[tuple[Any, ...]]:
        """The controller says something; what is done."""
        message = replace(message, to=SOURCE)
        frame, _ = self._sealer.seal(message, destination=bytes(6), source=bytes(6))
        self.core.control(1, self._opener.open(KEYS, frame), 0)
        return self.core.actions()

    def drain(self) -> list[str]:
        """What had passed before is through the function; what the function hears."""
        for flush in self.flushes:
            self.core.flushed(flush, 0)
        return [json.loads(one[1])["event"] for one in self.core.actions() if one[0] == "tell"]

    @property
    def rows(self) -> set[str]:
        return set(json.loads(self.core.describe())["transitions"])


def abort(flags: Flags) -> Message:
    error = Report(Reason.REQUESTED, "no longer wanted")
    return Message(command=Command.ABORT, handover=PART, flags=flags, error=error)


def test_called_off_while_it_drains_it_gives_no_state_away() -> None:
    agent = Source()
    agent.hear(abort(Flags.TURNED))
    assert "draining+handback" in agent.rows
    assert agent.drain() == []
    assert agent.core.phase(PART) == "regaining"


def test_given_up_while_it_drains_it_gives_no_state_away() -> None:
    agent = Source()
    agent.hear(abort(Flags.TURNED | Flags.STATE_LOST))
    assert "draining+release" in agent.rows
    assert agent.drain() == []
    agent.core.settle(0)
    assert agent.core.phase(PART) == "over"


def test_the_destinations_word_may_come_when_it_is_not_waited_for_any_more() -> None:
    agent = Source()
    agent.hear(abort(Flags.TURNED))
    agent.hear(Message(command=Command.RELEASE, handover=PART, flags=Flags.STATE_LOST))
    assert agent.core.phase(PART) == "resuming"
    agent.core.record(DESTINATION, RETURN, 0)
    assert "resuming+returned" in agent.rows
    assert agent.core.phase(PART) == "resuming"
