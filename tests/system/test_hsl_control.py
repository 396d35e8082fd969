"""Two agents led by control frames, one by one: what they do, say and refuse (docs/hsl.md)."""

import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from control_rig import DESTINATION, FINAL, HANDOVER, SOURCE, Hands, Pair, plain
from hsl_pcap import until

from flowferry.testbed import Testbed
from flowferry.wire import (
    Command,
    Counter,
    Flags,
    KeyRing,
    Message,
    Reason,
    Report,
    Sealer,
    Side,
)


@pytest.fixture(params=["bridge", "forwarder"])
def pair(
    request: pytest.FixtureRequest, testbed: Callable[..., Testbed], tmp_path: Path
) -> Iterator[Pair]:
    with ExitStack() as stack:
        yield Pair(stack, testbed(instances=2, function=request.param), tmp_path)


def test_a_flow_moves_behind_its_strays(pair: Pair) -> None:
    hands = pair.prepared()
    hands.ask(plain(Command.FREEZE, SOURCE, HANDOVER))
    hands.hear(Command.IMPORTED, DESTINATION)
    hands.packet(DESTINATION, 3)
    seen = hands.hear(Command.SEEN, DESTINATION, side=Side.UPSTREAM)
    assert seen.round == 1
    hands.packet(SOURCE, 2)  # by the old path, and late
    assert hands.passed[DESTINATION] == []
    hands.marker(SOURCE, HANDOVER, Side.UPSTREAM, 1)
    hands.hear(Command.FENCED, SOURCE, round=1)
    hands.until(lambda: hands.passed[DESTINATION] == [2, 3], "packets in order")
    hands.ask(plain(Command.COMMIT, SOURCE, HANDOVER))
    hands.send(plain(Command.COMMIT, DESTINATION, HANDOVER))
    hands.fence(SOURCE, HANDOVER)
    released = hands.hear(Command.RELEASED, DESTINATION)
    assert released.counts is not None
    assert not released.flags & (Flags.UNFENCED | Flags.STATE_LOST)
    for instance in (DESTINATION, SOURCE):
        ack = hands.ask(plain(Command.RELEASE, instance, HANDOVER))
        assert ack.counts is not None
        assert ack.counts[Counter.STRAY_PACKETS] == 1
    hands.packet(DESTINATION, 4)
    hands.until(lambda: hands.passed[DESTINATION] == [2, 3, 4], "the fast path")
    assert hands.passed[SOURCE] == [1]
    for instance in pair.agents:
        assert pair.status(instance)["handovers"]["parts"] == []


def test_the_destination_fences_without_the_controller(pair: Pair) -> None:
    hands = pair.prepared()
    hands.packet(DESTINATION, 3)
    hands.until(lambda: hands.between, "marker of the destination")
    sender, side, marker = hands.between[0]
    assert (sender, side) == (DESTINATION, Side.UPSTREAM)
    hands.raw(SOURCE, side, marker)
    # It freezes nothing: the other switch may not have turned.
    hands.packet(SOURCE, 2)
    hands.until(lambda: hands.passed[SOURCE] == [1, 2], "packet through the source")
    assert hands.passed[DESTINATION] == []
    hands.ask(plain(Command.FREEZE, SOURCE, HANDOVER))
    hands.until(lambda: hands.passed[DESTINATION] == [3], "packet behind the fence")


@pytest.mark.parametrize(
    "word",
    [
        plain(Command.FREEZE, SOURCE, HANDOVER),
        plain(Command.COMMIT, SOURCE, HANDOVER),
        plain(Command.RELEASE, SOURCE, HANDOVER, Flags.UNFENCED),
        Message(
            command=Command.MARKER, to=SOURCE, handover=HANDOVER, side=Side.UPSTREAM, round=FINAL
        ),
    ],
    ids=lambda word: word.command.name,
)
def test_only_the_controller_leads(pair: Pair, word: Message) -> None:
    """Whoever takes the flows sends markers of its rounds, and nothing else is believed."""
    hands = pair.prepared()
    destination = Sealer(pair.keys, sender=DESTINATION, boot=1 << 62)
    frame, _ = destination.seal(word, destination=bytes(6), source=bytes(6))
    hands.raw(SOURCE, Side.UPSTREAM, frame)
    until(lambda: pair.status(SOURCE)["handovers"]["unexpected"] == 1, "the frame")
    hands.send(plain(Command.QUERY, SOURCE, HANDOVER))
    assert hands.hear(Command.STATUS, SOURCE).step == "prepared"


def test_markers_of_a_third_instance_fence_nothing(pair: Pair) -> None:
    hands = pair.prepared()
    hands.ask(plain(Command.FREEZE, SOURCE, HANDOVER))
    hands.packet(DESTINATION, 2)
    hands.hear(Command.SEEN, DESTINATION)
    stranger = Sealer(pair.keys, sender=3, boot=1)
    marker = Message(
        command=Command.MARKER, to=SOURCE, handover=HANDOVER, side=Side.UPSTREAM, round=1
    )
    frame, _ = stranger.seal(marker, destination=bytes(6), source=bytes(6))
    hands.raw(SOURCE, Side.UPSTREAM, frame)
    until(lambda: pair.status(SOURCE)["handovers"]["unexpected"] == 1, "the frame")
    assert hands.passed[DESTINATION] == []


def test_what_is_called_off_after_the_turn_goes_back_in_order(pair: Pair) -> None:
    hands = pair.prepared()
    off = Report(Reason.REQUESTED, "called off by the test")
    abort = replace(
        plain(Command.ABORT, DESTINATION, HANDOVER, Flags.TURNED | Flags.RETRY), error=off
    )
    hands.packet(DESTINATION, 3)
    hands.hear(Command.SEEN, DESTINATION)
    hands.ask(abort)
    hands.ask(plain(Command.FREEZE, SOURCE, HANDOVER))
    hands.packet(SOURCE, 2)
    hands.fence(SOURCE, HANDOVER)
    hands.ask(replace(abort, to=SOURCE))
    hands.packet(SOURCE, 4)  # the switch has turned back
    hands.hear(Command.SEEN, SOURCE, side=Side.UPSTREAM)
    # What came before needs no fence any more; what came by the new path does.
    hands.until(lambda: hands.passed[SOURCE] == [1, 2, 3], "what the destination had")
    assert hands.passed[DESTINATION] == []
    hands.fence(DESTINATION, HANDOVER)
    hands.until(lambda: hands.passed[SOURCE] == [1, 2, 3, 4], "packets back in order")
    hands.hear(Command.ABORTED, SOURCE)
    for instance in (SOURCE, DESTINATION):
        hands.ask(plain(Command.RELEASE, instance, HANDOVER))
    assert hands.passed[DESTINATION] == []


def test_what_has_just_left_is_no_longer_served_for_whoever_holds_by_hand(pair: Pair) -> None:
    """There are more of them than are written down at once."""
    hands, many = pair.prepared(), 3000
    for each in range(many):
        hands.packet(SOURCE, 2, flow=each)
        if each % 100 == 99:  # a socket takes some hundreds
            hands.await_passed(SOURCE, 1 + each)
    hands.ask(plain(Command.FREEZE, SOURCE, HANDOVER))
    hands.hear(Command.IMPORTED, DESTINATION)
    hands.ask(plain(Command.COMMIT, SOURCE, HANDOVER))
    hands.fence(SOURCE, HANDOVER)
    with pair.agents[SOURCE].client() as client:
        hands.ask(plain(Command.RELEASE, SOURCE, HANDOVER))
        client.hold("udp", role="arm")
        for each in range(0, many, many // 10):
            hands.packet(SOURCE, 3, flow=each)

        def captured() -> int:
            return int(sum(hold["captured_packets"] for hold in client.holds()))

        hands.until(lambda: captured() == 10 or 3 in hands.passed[SOURCE], "packets")
        assert 3 not in hands.passed[SOURCE]


def test_a_silent_controller_is_not_waited_for(pair: Pair) -> None:
    hands = pair.prepared(settling_ms=500)
    hands.packet(DESTINATION, 2)
    hands.until(lambda: hands.passed[DESTINATION] == [2], "the packet, without a marker")
    released = hands.hear(Command.RELEASED, DESTINATION)
    assert released.flags & Flags.UNFENCED
    assert not released.flags & Flags.STATE_LOST
    for instance in pair.agents:
        until(
            lambda instance=instance: pair.status(instance)["handovers"]["parts"] == [],  # type: ignore[misc]
            "the end of the part",
        )


def test_before_the_turn_silence_and_abort_change_nothing(pair: Pair) -> None:
    hands = pair.prepared()
    off = Report(Reason.REQUESTED, "called off by the test")
    for instance in (DESTINATION, SOURCE):
        hands.send(replace(plain(Command.ABORT, instance, HANDOVER), error=off))
        hands.hear(Command.ABORTED, instance)
    hands.packet(SOURCE, 2)
    hands.packet(DESTINATION, 3)
    hands.until(lambda: hands.passed == {SOURCE: [1, 2], DESTINATION: [3]}, "packets")


def test_forged_replayed_doubled_and_late_frames(pair: Pair) -> None:
    hands = pair.hands
    hands.send(plain(Command.QUERY, DESTINATION, 0))  # nothing from before this is taken
    hands.hear(Command.STATUS, DESTINATION)
    late = hands.seal(hands.prepare(DESTINATION, HANDOVER))
    forger = Sealer(KeyRing(1, secrets.token_bytes(32)), sender=0, boot=1)
    forged, _ = forger.seal(
        hands.prepare(DESTINATION, HANDOVER), destination=bytes(6), source=bytes(6)
    )
    prepare = hands.seal(hands.prepare(DESTINATION, HANDOVER))
    hands.raw(DESTINATION, Side.UPSTREAM, forged)
    for _ in range(2):
        hands.raw(DESTINATION, Side.UPSTREAM, prepare)
    hands.hear(Command.ACK, DESTINATION)
    hands.ask(replace(hands.prepare(DESTINATION, HANDOVER), flags=Flags.RETRY))
    with pair.agents[DESTINATION].client() as client:
        assert [hold["id"] for hold in client.holds()] == [HANDOVER]
    off = Report(Reason.REQUESTED, "called off by the test")
    hands.send(replace(plain(Command.ABORT, DESTINATION, HANDOVER), error=off))
    hands.hear(Command.ABORTED, DESTINATION)
    hands.raw(DESTINATION, Side.DOWNSTREAM, late)
    until(lambda: pair.status(DESTINATION)["handovers"]["late"] == 1, "the late frame")
    status = pair.status(DESTINATION)
    assert status["handovers"]["parts"] == []
    rejected = status["control"]["rejected"]
    assert rejected["bad_tag"] == 1
    assert rejected["replayed"] == 1
    nack_of = plain(Command.FREEZE, SOURCE, 0x0999)
    hands.send(nack_of)
    nack = hands.hear(Command.NACK, SOURCE)
    assert nack.error is not None
    assert nack.error.reason is Reason.UNKNOWN_HANDOVER


def test_a_recorded_prepare_means_nothing_to_an_agent_that_was_started_anew(pair: Pair) -> None:
    hands = pair.hands
    prepare = hands.prepare(DESTINATION, HANDOVER)
    hands.ask(prepare)
    recorded = [hands.seal(prepare), hands.seal(replace(prepare, epoch=None))]
    pair.start_anew(DESTINATION)
    for frame in recorded:
        hands.raw(DESTINATION, Side.UPSTREAM, frame)
        nack = hands.hear(Command.NACK, DESTINATION)
        assert nack.error is not None
        assert nack.error.reason is Reason.WRONG_EPOCH
    with pair.agents[DESTINATION].client() as client:
        assert client.holds() == []
    hands.packet(DESTINATION, 1)
    hands.until(lambda: hands.passed[DESTINATION] == [1], "packet through the destination")


def test_a_peer_that_is_gone_is_said_before_anything_changes(pair: Pair) -> None:
    pair.agents[SOURCE].kill()
    pair.hands.send(pair.hands.prepare(DESTINATION, HANDOVER))
    nack = pair.hands.hear(Command.NACK, DESTINATION)
    assert nack.error is not None
    assert nack.error.reason is Reason.PEER_UNREACHABLE
    with pair.agents[DESTINATION].client() as client:
        until(lambda: all(hold["ended_ns"] for hold in client.holds()), "the end of the hold")


def test_an_agent_that_was_stopped_says_that_its_parts_are_over(pair: Pair) -> None:
    hands = pair.prepared()
    hands.ask(plain(Command.FREEZE, SOURCE, HANDOVER))
    hands.packet(DESTINATION, 2)
    hands.hear(Command.SEEN, DESTINATION)
    agent = pair.agents[DESTINATION]
    agent.suspend()
    hands.packet(DESTINATION, 3)  # what comes now waits: the agent's heart still beats
    before = pair.agents[SOURCE].client().status()["epoch"]
    until(lambda: _fails_open(hands), "packets that pass a stopped agent")
    agent.resume()
    until(lambda: pair.status(DESTINATION)["handovers"]["over"] == 1, "the end of the part")
    status = pair.status(DESTINATION)
    assert status["epoch"] > before
    assert status["lost_packets"] >= 2
    hands.send(plain(Command.QUERY, DESTINATION, HANDOVER))
    assert hands.hear(Command.STATUS, DESTINATION).step == "over"
    assert 3 not in hands.passed[DESTINATION]


def _fails_open(hands: Hands) -> bool:
    hands.packet(DESTINATION, FINAL)
    hands.until(lambda: True, "")
    hands._hear(0.05)
    return FINAL in hands.passed[DESTINATION]
