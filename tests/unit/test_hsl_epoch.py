"""What was said to an agent, recorded and said again to the one that has started in its place.

It knows nobody, so that all of it is authentic and none of it a replay to it (docs/wire.md).
"""

from random import Random

import pytest
from agent_cores import DESTINATION, PACKET, PART, Agent, prepare
from hypothesis import given
from hypothesis import strategies as st

from flowferry.wire import Command, Flags, Message, Reason, Report, Side

EPOCH = 5
OVER = Report(Reason.REQUESTED, "over")

#: All that a controller says to a destination, or might.
SAID = [
    prepare(DESTINATION, EPOCH),
    prepare(DESTINATION, None),
    Message(command=Command.FREEZE, handover=PART, deadline_ms=1000),
    Message(command=Command.MARKER, handover=PART, side=Side.UPSTREAM, round=1),
    Message(command=Command.COMMIT, handover=PART),
    *(
        Message(command=Command.RELEASE, handover=PART, flags=flags)
        for flags in (Flags.NONE, Flags.UNFENCED | Flags.STATE_LOST)
    ),
    *(
        Message(command=Command.ABORT, handover=PART, flags=flags, error=OVER)
        for flags in (Flags.NONE, Flags.TURNED, Flags.TURNED | Flags.STATE_LOST)
    ),
    Message(command=Command.QUERY, handover=PART),
]


@given(st.lists(st.sampled_from(SAID), min_size=1), st.randoms(use_true_random=False))
def test_whatever_was_recorded_begins_nothing(said: list[Message], order: Random) -> None:
    before = Agent(DESTINATION, epoch=EPOCH)
    recorded = [before.seal(message) for message in said]
    order.shuffle(recorded)
    agent = Agent(DESTINATION, epoch=EPOCH + 1)
    for frame in recorded:
        agent.take(frame)
        assert agent.phase in (None, "over")
    assert agent.core.ingress(1, PACKET), "a packet is kept"


@pytest.mark.parametrize("epoch", [None, 0, EPOCH - 1, EPOCH + 1])
def test_a_prepare_for_another_epoch_or_for_none_is_refused(epoch: int | None) -> None:
    agent = Agent(DESTINATION, epoch=EPOCH)
    agent.take(agent.seal(prepare(DESTINATION, epoch)))
    (answer,) = agent.said()
    assert answer.command is Command.NACK
    assert answer.error is not None
    assert answer.error.reason is Reason.WRONG_EPOCH
    agent.take(agent.seal(Message(command=Command.QUERY)))
    (status,) = agent.said()
    assert status.epoch == EPOCH
    agent.take(agent.seal(prepare(DESTINATION, status.epoch)))
    assert agent.phase is not None
    assert not agent.core.ingress(1, PACKET)
