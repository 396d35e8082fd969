"""The demo's plan and its judgement: every kind of failure is seen and named."""

import itertools
from typing import Any

import pytest

from flowferry.demo import Outcome, plan
from flowferry.demo.cues import LONGEST, MARGIN, SHORTEST
from flowferry.hsl import endpoint

COUNTERS = dict.fromkeys(("captured", "overflowed", "failed_open", "table_full", "discarded"), 0)


def outcome(**changed: Any) -> Outcome:
    """All went well, but for what is `changed`: fields, or `part__field` of a part."""
    parts: dict[str, Any] = {
        "function": "bridge",
        "shim": "kernel",
        "duration": 20.0,
        "holds": [{"id": 1, "state": "done", "error": None, "captured_packets": 9}],
        "udp": {
            "clean": True,
            "verdict": "",
            "received": 100,
            "lost": 0,
            "reordered": 0,
            "duplicated": 0,
            "unclassified": 0,
        },
        "tcp": {
            "connected": True,
            "error": None,
            "bytes_sent": 10,
            "bytes_received": 10,
            "intact": True,
            "out_of_order_segments": 0,
        },
        "ping": {"received": 5, "lost": 0, "reordered": 0, "duplicated": 0},
        "agent": {"lost_packets": 0, "counters": {"upstream": dict(COUNTERS)}},
        "machine_dropped": 0,
    }
    for name, value in changed.items():
        part, _, inner = name.partition("__")
        if inner:
            parts[part][inner] = value
        else:
            parts[part] = value
    return Outcome(**parts)


def test_all_is_well() -> None:
    assert outcome().problems() == []
    assert outcome().line().startswith("PASSED: 1 holds captured and released 9 packets; nothing")
    assert outcome().as_json()["passed"] is True


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"udp__lost": 2}, "udp: 2 packets lost"),
        ({"udp__reordered": 1}, "udp: 1 packets reordered"),
        ({"udp__duplicated": 1}, "udp: 1 packets duplicated"),
        ({"udp__unclassified": 1}, "udp: 1 packets could not be classified"),
        ({"udp__clean": False, "udp__verdict": "not clean"}, "udp: not clean"),
        ({"ping__lost": 1}, "ping: 1 packets lost"),
        ({"ping__reordered": 1}, "ping: 1 packets reordered"),
        ({"ping__duplicated": 1}, "ping: 1 packets duplicated"),
        ({"tcp__connected": False, "tcp__error": "reset"}, "tcp: the connection broke (reset)"),
        ({"tcp__bytes_received": 8}, "tcp: 2 bytes never arrived"),
        ({"tcp__intact": False}, "tcp: the content arrived changed"),
        ({"tcp__out_of_order_segments": 3}, "tcp: 3 segments out of order"),
        ({"agent__lost_packets": 4}, "the agent counts 4 packets lost"),
        (
            {"agent__counters": {"downstream": COUNTERS | {"failed_open": 1}}},
            "downstream: 1 packets failed open",
        ),
        (
            {"holds": [{"id": 3, "state": "aborted", "error": "full", "captured_packets": 1}]},
            "hold 3 was aborted: full",
        ),
        (
            {"holds": [{"id": 1, "state": "done", "error": None, "captured_packets": 0}]},
            "nothing was captured",
        ),
    ],
)
def test_each_failure_is_seen(changed: dict[str, Any], said: str) -> None:
    found = outcome(**changed)
    assert any(said in problem for problem in found.problems())
    assert found.line().startswith("FAILED: ")
    assert said in found.line()
    assert found.as_json()["passed"] is False


def test_an_overloaded_machine_is_named_with_the_loss_but_is_no_loss() -> None:
    assert "receive queues overflowed, 7 packets" in outcome(udp__lost=1, machine_dropped=7).line()
    assert outcome(machine_dropped=7).problems() == []


def test_a_plan_is_always_the_same_and_fits() -> None:
    cues = plan(20, 20.0)
    assert cues == plan(20, 20.0)
    assert sorted(round(cue.length, 3) for cue in cues)[:: len(cues) - 1] == [SHORTEST, LONGEST]
    for one, following in itertools.pairwise(cues):
        assert one.at + 2 * one.length / 1e3 <= following.at
    assert cues[0].at == MARGIN
    assert cues[-1].at + 2 * cues[-1].length / 1e3 <= 20.0 - MARGIN
    for cue in cues:
        endpoint.check_match(cue.match)


def test_a_plan_that_does_not_fit_says_what_would() -> None:
    with pytest.raises(ValueError, match=r"100 holds do not fit into 10 s; give them 22 s or more"):
        plan(100, 10.0)
    assert len(plan(100, 22.0)) == 100
