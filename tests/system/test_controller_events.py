"""What a running controller tells whoever watches it: events in their order, and figures."""

import json
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from handover_rig import Bed, Echo, Function
from hsl_pcap import until

from flowferry.controller import Client, ControllerError, Platform

Events = list[dict[str, Any]]
STATES = ("preparing", "turning", "fencing", "moving", "done")
MAIN = [sys.executable, "-c", "from flowferry.cli import main; main()"]


@pytest.fixture
def platform(testbed: Bed) -> Iterator[Platform]:
    bed = testbed(instances=2, steering=True)
    with Platform(bed, settling_ms=400, function_sockets=True) as up:
        bed.run("h1", ["ping", "-c1", "-W5", bed.hosts["h2"].ip4])
        yield up


@contextmanager
def listening(client: Client, headers: dict[str, str] | None = None) -> Iterator[Events]:
    """All events for as long as the block lasts; the listener is heard when it begins."""
    heard: Events = []
    request = urllib.request.Request(f"{client.url}/v1/events", headers=headers or {})
    answer = urllib.request.urlopen(request, timeout=60)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.readline().startswith(b":")

    def listen() -> None:
        name = ""
        with suppress(OSError, ValueError, AttributeError):  # closed
            for raw in answer:
                line = raw.decode().rstrip()
                if line.startswith("event: "):
                    name = line.removeprefix("event: ")
                elif line.startswith("data: "):
                    heard.append({"event": name, **json.loads(line.removeprefix("data: "))})

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    try:
        yield heard
    finally:
        with suppress(OSError):
            answer.fp.raw._sock.shutdown(2)
        thread.join(10)
        answer.close()


def states(heard: Events, handover: int) -> list[str]:
    """The states that a handover went through, each once."""
    found: list[str] = []
    for event in heard:
        if event["event"] == "handover" and event["id"] == handover:
            found += [event["state"]] if event["state"] not in found[-1:] else []
    return found


def test_a_move_is_told_step_by_step_to_everybody_who_listens(platform: Platform) -> None:
    client = platform.client
    with (
        Echo(platform.bed, flows=5, rate=1000),
        listening(client) as one,
        listening(client) as other,
    ):
        first = client.move("udp", "i2", wait=True)
        until(lambda: states(one, first["id"])[-1:] == ["done"], "the end of the move")
        told = states(one, first["id"])
        assert told[0] == "preparing"
        assert told == sorted(told, key=STATES.index)
        assert {"turning", "done"} < set(told)
        # The rule is told once it is in force: behind the turn, before the end.
        names = [event["event"] for event in one]
        assert "rule" in names
        ends = [event.get("state") for event in one].index("done")
        assert names.index("rule") < ends
        until(lambda: other == one, "the same for the other one")
        over = one[ends]
        assert over["id"] == first["id"]
        assert (over["flows"], over["lost_packets"], over["error"]) == (5, 0, None)
        shown = client.handover(first["id"])
        assert {key: shown[key] for key in over if key != "event"} == {
            key: value for key, value in over.items() if key != "event"
        }


def test_who_comes_again_hears_what_is_new_and_reads_what_it_missed(platform: Platform) -> None:
    client = platform.client
    with Echo(platform.bed, flows=5, rate=1000):
        with listening(client) as before:
            first = client.move("udp", "i2", wait=True)
            until(lambda: states(before, first["id"])[-1:] == ["done"], "the first move")
        missed = client.move("udp", "i1", wait=True)
        with listening(client, {"Last-Event-ID": "1"}) as after:
            last = client.move("udp", "i2", wait=True)
            until(lambda: states(after, last["id"])[-1:] == ["done"], "the last move")
        assert {event["id"] for event in after if event["event"] == "handover"} == {last["id"]}
        assert client.handover(missed["id"])["state"] == "done"


def of_instance(heard: Events, name: str) -> list[dict[str, Any]]:
    return [event for event in heard if event["event"] == "instance" and event["name"] == name]


def test_an_agent_that_dies_and_comes_back_is_told(platform: Platform) -> None:
    with listening(platform.client) as heard:
        platform.agents["i2"].kill()
        over = platform.client.move("udp", "i2", wait=True)
        assert over["state"] == "aborted"
        until(lambda: bool(of_instance(heard, "i2")), "the instance's silence")
        assert of_instance(heard, "i2")[0]["alive"] is False
        assert "did not answer" in of_instance(heard, "i2")[0]["why"]
        platform.start_agent("i2")
        until(lambda: of_instance(heard, "i2")[-1]["alive"], "the instance's return")
        assert platform.client.move("udp", "i2", wait=True)["state"] == "done"
        assert not of_instance(heard, "i1")


def test_instances_and_switches_that_come_and_go_are_told(platform: Platform) -> None:
    client, bed = platform.client, platform.bed
    with listening(client) as heard:
        client.drain_instance("i2", wait=True)
        client.remove_instance("i2")
        client.add_instance(name="i2", id=2, upstream_port=12, downstream_port=12)
        until(lambda: len(of_instance(heard, "i2")) >= 3, "drained, removed, added")
        drained, removed, added = of_instance(heard, "i2")[:3]
        assert (drained["state"], removed["removed"], added["state"]) == (
            "draining",
            True,
            "active",
        )
        for target, ready in (("tcp:127.0.0.1:9", False), ("tcp:127.0.0.1:6653", True)):
            bed.ovs.set_controller([bed.switches["egress"]], target)
            until(
                lambda ready=ready: any(  # type: ignore[misc]
                    event["event"] == "switch" and event["ready"] is ready for event in heard
                ),
                f"the switch, ready: {ready}",
            )
        told = [event for event in heard if event["event"] == "switch"]
        assert {event["dpid"] for event in told} == {bed.switches["egress"].dpid}


def figures(client: Client) -> dict[str, float]:
    """What `/metrics` says, by name and labels."""
    with urllib.request.urlopen(f"{client.url}/metrics", timeout=10) as answer:
        assert answer.headers["content-type"].startswith("text/plain")
        lines = answer.read().decode().splitlines()
    rows = (line.rpartition(" ") for line in lines if not line.startswith("#"))
    return {name: float(value) for name, _, value in rows}


def test_metrics_add_up_to_what_the_handovers_say(platform: Platform) -> None:
    client, bed = platform.client, platform.bed
    with Echo(bed, flows=5, rate=1000):
        for to in ("i2", "i1", "i2"):
            assert client.move("udp", to, wait=True)["state"] == "done"
        with Function(bed.owner.directory / "fn-i2.sock", holds=["export"]) as source:
            begun = client.move("udp", "i1")
            source.await_event("export")
            client.abort(begun["id"])
            source.go()
            assert client.wait(begun["id"])["state"] == "aborted"
    found, over = figures(client), client.handovers()
    for state, number in (("done", 3.0), ("aborted", 1.0)):
        kind = f'{{state="{state}",strategy="direct"}}'
        assert found[f"flowferry_handovers_total{kind}"] == number
    for what in ("captured", "stray", "lost", "controller"):
        total = found[f'flowferry_packets_total{{kind="{what}"}}']
        assert total == sum(one[f"{what}_packets"] for one in over)
    assert found['flowferry_packets_total{kind="captured"}'] > 0
    for name, field in (("handover", "duration_ms"), ("fence", "fence_ms")):
        took = [one[field] for one in over if one[field] is not None]
        assert found[f"flowferry_{name}_seconds_count"] == len(took) >= 3
        assert found[f"flowferry_{name}_seconds_sum"] == pytest.approx(sum(took) / 1e3, abs=1e-3)
    assert found['flowferry_control_frames_total{direction="out",outcome="sent"}'] > 0
    assert found['flowferry_control_frames_total{direction="in",outcome="accepted"}'] > 0
    gauges = {"handovers_under_way": 0, "switches_connected": 2, "instances": 2, "rules": 1}
    assert {name: found[f"flowferry_{name}"] for name in gauges} == gauges
    platform.controller.kill()
    platform.controller.restart()
    until(lambda: all(switch["ready"] for switch in client.switches()), "the switches")
    found = figures(client)
    assert {name: found[f"flowferry_{name}"] for name in gauges} == gauges


def test_the_command_prints_an_object_a_line_and_says_when_the_controller_has_gone(
    platform: Platform,
) -> None:
    url = platform.client.url
    words = ["controller", "events", "--controller", url]
    with subprocess.Popen(
        [*MAIN, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as command:
        assert command.stdout is not None

        def move() -> None:  # again and again, until the command has begun to listen
            while not told.is_set():
                with suppress(ControllerError):
                    platform.client.move("udp", "i2", wait=True)
                    platform.client.move("udp", "i1", wait=True)

        told = threading.Event()
        thread = threading.Thread(target=move)
        thread.start()
        event = json.loads(command.stdout.readline())
        told.set()
        thread.join(60)
        assert event["event"] in ("handover", "rule")
        platform.controller.kill()
        _, error = command.communicate(timeout=30)
    assert command.returncode == 1
    assert error == (
        f"Error: the controller on {url} has ended the events; see whether it runs, and ask again\n"
    )
