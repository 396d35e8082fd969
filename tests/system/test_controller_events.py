"""The events of a running controller while flows move: their order, several listeners, its end."""

import json
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from handover_rig import Bed, Echo
from hsl_pcap import until

from flowferry.controller import Client, ControllerError, Platform

Events = list[dict[str, Any]]
STATES = ("preparing", "turning", "fencing", "moving", "done")
MAIN = [sys.executable, "-c", "from flowferry.cli import main; main()"]


@pytest.fixture
def platform(testbed: Bed) -> Iterator[Platform]:
    bed = testbed(instances=2, steering=True)
    with Platform(bed, settling_ms=400) as up:
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


def test_an_agent_that_dies_and_comes_back_is_told(platform: Platform) -> None:
    with listening(platform.client) as heard:
        platform.agents["i2"].kill()
        over = platform.client.move("udp", "i2", wait=True)
        assert over["state"] == "aborted"
        until(
            lambda: any(e["event"] == "instance" and not e["alive"] for e in heard),
            "the instance's silence",
        )
        (said, *_) = (event for event in heard if event["event"] == "instance")
        assert said["name"] == "i2"


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
