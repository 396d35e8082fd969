"""The demo's plan and its judgement: every kind of failure is seen and named."""

from typing import Any

import pytest

from flowferry.demo import Outcome, plan
from flowferry.demo.cues import LEAST_STATE, MOST_STATE, PLAY
from flowferry.demo.spots import Spot
from flowferry.hsl import endpoint

COUNTERS = dict.fromkeys(("captured", "overflowed", "failed_open", "table_full", "discarded"), 0)
MOVE = {
    "id": 1,
    "title": "all UDP → i2",
    "state": "done",
    "error": None,
    "captured_packets": 9,
    "lost_packets": 0,
    "controller_packets": 0,
    "state_bytes": 5,
    "state_arrived": [True],
}


def outcome(**changed: Any) -> Outcome:
    """All went well, but for what is `changed`: fields, or `part__field` of a part."""
    parts: dict[str, Any] = {
        "function": "bridge",
        "duration": 20.0,
        "moves": [dict(MOVE)],
        "planned": 1,
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
        "session": {"connected": True, "error": None, "asked": 3, "answered": 3, "wrong": 0},
        "ping": {"received": 5, "lost": 0, "reordered": 0, "duplicated": 0},
        "agents": {"i1": {"lost_packets": 0, "counters": {"upstream": dict(COUNTERS)}}},
        "machine_dropped": 0,
        "seconds": 41.2,
    }
    for name, value in changed.items():
        part, _, inner = name.partition("__")
        if part == "move":
            parts["moves"][0][inner] = value
        elif inner:
            parts[part][inner] = value
        else:
            parts[part] = value
    return Outcome(**parts)


def test_all_is_well() -> None:
    assert outcome().problems() == []
    assert outcome().line().startswith("PASSED: 1 moves of live flows; nothing lost, reordered")
    assert outcome().line().endswith("; in 41 s")
    assert outcome().as_json()["passed"] is True
    assert outcome().as_json()["seconds"] == 41.2


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
        ({"ping__received": 0}, "ping: nothing was answered"),
        ({"tcp__connected": False, "tcp__error": "reset"}, "tcp: the connection broke (reset)"),
        ({"tcp__bytes_received": 8}, "tcp: 2 bytes never arrived"),
        ({"tcp__intact": False}, "tcp: the content arrived changed"),
        ({"tcp__out_of_order_segments": 3}, "tcp: 3 segments out of order"),
        ({"session__connected": False, "session__error": "reset"}, "session: the connection broke"),
        ({"session__answered": 2}, "session: 2 of 3 requests answered"),
        ({"session__asked": 0, "session__answered": 0}, "session: 0 of 0 requests answered"),
        ({"session__wrong": 1}, "session: 1 answers were wrong"),
        ({"agents": {"i2": {"lost_packets": 4, "counters": {}}}}, "agent of i2 counts 4 packets"),
        (
            {
                "agents": {
                    "i1": {"lost_packets": 0, "counters": {"up": COUNTERS | {"discarded": 1}}}
                }
            },
            "i1 up: 1 packets discarded",
        ),
        ({"move__state": "aborted", "move__error": "full"}, "move 1 (all UDP → i2) aborted: full"),
        ({"move__lost_packets": 3}, "move 1 (all UDP → i2) lost 3 packets"),
        ({"move__controller_packets": 1}, "1 packets at the controller"),
        ({"move__state_arrived": []}, "no state came"),
        ({"move__state_arrived": [True, False]}, "its state came changed"),
        ({"planned": 3}, "2 moves were not begun"),
        ({"move__captured_packets": 0}, "nothing was captured"),
    ],
)
def test_each_failure_is_seen(changed: dict[str, Any], said: str) -> None:
    found = outcome(**changed)
    assert any(said in problem for problem in found.problems())
    assert found.line().startswith("FAILED: ")
    assert said in found.line()
    assert found.as_json()["passed"] is False


def test_a_loss_is_told_with_its_place() -> None:
    one = Spot("lost", 1, 2, 1.5, 1.75, "move 3 (all UDP → i2)")
    said = "udp: 2 packets lost (to port 7001, sent from 1.500 to 1.750 s, during move 3 (all UDP"
    assert outcome(udp__lost=2, spots=[one]).line().startswith(f"FAILED: {said} → i2))")
    other = Spot("lost", 0, 1, 0.5, 0.6, None)
    said = outcome(udp__lost=3, spots=[one, other]).line()
    assert "3 packets lost (2 of them to port 7001" in said
    assert "; the report has all 2 spots)" in said
    assert outcome(udp__lost=2, spots=[one]).as_json()["spots"][0]["flow"] == 1


def test_an_overloaded_machine_is_named_with_the_loss_but_is_no_loss() -> None:
    assert "receive queues overflowed, 7 packets" in outcome(udp__lost=1, machine_dropped=7).line()
    assert outcome(machine_dropped=7).problems() == []


def test_a_plan_is_always_the_same_and_every_move_moves() -> None:
    cues = plan(20)
    assert cues == plan(20)
    sizes = sorted(cue.state for cue in cues)
    assert sizes[:5] == [0] * 5
    assert (sizes[5], sizes[-1]) == (LEAST_STATE, MOST_STATE)
    for cue in cues:
        endpoint.check_match(cue.scene.match)
    assert {cue.scene.title for cue in cues} == {scene.title for scene in PLAY}
    # By hand: what each move finds elsewhere.
    assert [cue.to for cue in cues[:10]] == [
        *("i2", "i1", "i2", "i1", "i1", "i2", "i1", "i1", None, "i2")
    ]


def test_a_plan_needs_two_instances() -> None:
    with pytest.raises(ValueError, match="two instances"):
        plan(3, ["i1"])
