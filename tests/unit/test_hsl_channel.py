"""Lines of the control channel, and the tags and pace of state transfers: no socket, no clock."""

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowferry.hsl.adapters import ChannelError, Step, TransferError, channel
from flowferry.hsl.adapters.transfer import Pace, Tags


def test_a_full_line_is_read() -> None:
    line = {
        "event": "export",
        "handover": 513,
        "flows": ["udp,10.0.0.1:5,10.0.0.2:6"],
        "peer": {"instance": 2, "address": "172.31.0.2:7001"},
        "deadline_ms": 800,
        "from_a_later_version": True,
    }
    step = Step.parse(json.dumps(line))
    assert step == Step(
        "export",
        513,
        flows=("udp,10.0.0.1:5,10.0.0.2:6",),
        peer="172.31.0.2:7001",
        peer_instance=2,
        deadline_ms=800,
    )


@pytest.mark.parametrize(
    "line",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"event": "fly"}',
        '{"event": "freeze", "handover": "1"}',
        '{"event": "freeze", "handover": -1}',
        '{"event": "freeze", "handover": true}',
        '{"event": "export", "flows": [1]}',
        '{"event": "export", "flows": "udp"}',
        '{"event": "export", "peer": "1.2.3.4:5"}',
        '{"event": "export", "peer": {}}',
    ],
)
def test_what_is_no_step_is_refused_in_one_line(line: str) -> None:
    with pytest.raises(ChannelError) as refused:
        Step.parse(line)
    assert "\n" not in str(refused.value)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_step_or_refused(line: bytes) -> None:
    with suppress(ChannelError):
        Step.parse(line)


def test_answers_quote_what_they_answer() -> None:
    step = Step("export", 513, request=7)
    assert json.loads(channel.done(step, size=9)) == {"done": "export", "handover": 513, "bytes": 9}
    failed = json.loads(channel.failed(step, "no room"))
    assert failed == {"failed": "export", "handover": 513, "error": "no room"}
    assert json.loads(channel.listed(step, ["udp"]))["request"] == 7


def test_tags_differ_by_place_key_and_nonce() -> None:
    one = Tags(b"k" * 32, b"n" * 16, b"m" * 16)
    first, second = one.next(b"x"), one.next(b"x")
    assert first != second
    assert Tags(b"l" * 32, b"n" * 16, b"m" * 16).next(b"x") != first
    assert Tags(b"k" * 32, b"o" * 16, b"m" * 16).next(b"x") != first
    other = Tags(b"k" * 32, b"n" * 16, b"m" * 16)
    other.check(b"x", first)
    with pytest.raises(TransferError):
        other.check(b"y", second)


@given(st.lists(st.integers(1, 300_000), min_size=1, max_size=50), st.floats(1e3, 1e9))
def test_the_pace_keeps_the_rate(sizes: list[int], rate: float) -> None:
    pace, now = Pace(rate, 0.0), 0.0
    for size in sizes:
        now += pace.after(size, now)
    assert now >= sum(sizes) / rate - 0.011
    assert now <= sum(sizes) / rate + 0.011
