"""Steps of a part at a source's agent that no cell of the crash grid and no seed comes to."""

import json

from agent_cores import DESTINATION, PART, SOURCE, Agent, prepare

from flowferry.wire import Command, Flags, Message, Reason, Report

RETURN = bytes([6, 0, *PART.to_bytes(8, "big")])


class Source(Agent):
    """Frozen as the source of a part; the flushes that end its drain are on."""

    def __init__(self) -> None:
        super().__init__(SOURCE)
        self.core.function('{"hello": "counter", "lists_flows": false}', 0)
        self.hear(prepare(SOURCE))
        self.link_to(DESTINATION)
        frozen = self.hear(Message(command=Command.FREEZE, handover=PART, deadline_ms=1000))
        self.flushes = [action[2] for action in frozen if action[0] == "flush"]
        assert self.phase == "draining"

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
    assert agent.phase == "regaining"


def test_given_up_while_it_drains_it_gives_no_state_away() -> None:
    agent = Source()
    agent.hear(abort(Flags.TURNED | Flags.STATE_LOST))
    assert "draining+release" in agent.rows
    assert agent.drain() == []
    agent.core.settle(0)
    assert agent.phase == "over"


def test_the_destinations_word_may_come_when_it_is_not_waited_for_any_more() -> None:
    agent = Source()
    agent.hear(abort(Flags.TURNED))
    agent.hear(Message(command=Command.RELEASE, handover=PART, flags=Flags.STATE_LOST))
    assert agent.phase == "resuming"
    agent.core.record(DESTINATION, RETURN, 0)
    assert "resuming+returned" in agent.rows
    assert agent.phase == "resuming"
