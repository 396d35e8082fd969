"""`flowferry demo` from outside: verdict, report, picture, and nothing left, however it ends."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from flowferry.testbed.machine import Machine

DEMO = [sys.executable, "-c", "from flowferry.cli import main; main()", "demo"]
SHORT = ["--duration", "6", "--holds", "6"]


@pytest.fixture
def name(run_name: Callable[[], str]) -> str:
    return run_name()


def left_behind(before: Machine, name: str) -> dict[str, object]:
    """What a demo has made that is still there."""
    return dict(Machine.now().beyond(before, name))


@pytest.mark.parametrize("function", ["bridge", "forwarder"])
def test_a_demo_tells_what_became_of_every_packet(tmp_path: Path, name: str, function: str) -> None:
    before = Machine.now()
    done = subprocess.run(
        [*DEMO, *SHORT, "--function", function, "--out", str(tmp_path), "--name", name],
        capture_output=True,
        text=True,
        timeout=120,
    )
    report = json.loads((tmp_path / "demo.json").read_text())
    # A machine with other things to do may lose packets by itself; then the demo must say so.
    assert done.returncode == (0 if report["passed"] else 1), done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == report["verdict"]
    assert report["verdict"].startswith("PASSED: " if report["passed"] else "FAILED: ")
    assert (tmp_path / "demo.png").read_bytes().startswith(b"\x89PNG")
    # What the handover layer itself did is exact on any machine.
    assert [hold["state"] for hold in report["holds"]] == ["done"] * 6
    assert report["captured_packets"] > 0
    assert report["agent"]["lost_packets"] == 0
    assert sum(hold["captured_packets"] for hold in report["holds"]) == sum(
        hold["released_packets"] for hold in report["holds"]
    )
    udp = report["udp"]
    assert (udp["reordered"], udp["duplicated"]) == (0, 0)
    assert udp["sent"] == udp["received"] + udp["lost"]
    assert report["tcp"]["connected"]
    assert report["tcp"]["intact"]
    # Packets were really kept: the longest hold of UDP shows in the delays.
    longest = max(hold["planned_ms"] for hold in report["holds"] if "UDP" in hold["title"])
    assert udp["delay_ns"]["max"] >= 0.8e6 * longest
    assert "hold  6" in done.stdout
    assert not left_behind(before, name)


def test_json_is_one_object_and_the_rest_goes_to_stderr(tmp_path: Path, name: str) -> None:
    done = subprocess.run(
        [
            *DEMO,
            "--duration",
            "3",
            "--holds",
            "2",
            "--out",
            str(tmp_path),
            "--name",
            name,
            "--json",
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    report = json.loads(done.stdout)
    assert report == json.loads((tmp_path / "demo.json").read_text())
    assert "hold  2" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ended_in_the_middle_it_leaves_nothing(
    tmp_path: Path, name: str, number: signal.Signals
) -> None:
    before = Machine.now()
    demo = subprocess.Popen(
        [*DEMO, *SHORT, "--out", str(tmp_path), "--name", name],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert demo.stdout is not None
    for line in demo.stdout:
        if line.startswith("hold"):
            break
    demo.send_signal(number)
    demo.send_signal(number)  # the impatient press twice
    _, error = demo.communicate(timeout=30)
    assert demo.returncode == 128 + number
    assert error == ""
    assert not left_behind(before, name)


def test_killed_it_is_cleaned_by_name(tmp_path: Path, name: str) -> None:
    before = Machine.now()
    demo = subprocess.Popen(
        [*DEMO, *SHORT, "--out", str(tmp_path), "--name", name], stdout=subprocess.PIPE, text=True
    )
    assert demo.stdout is not None
    for line in demo.stdout:
        if line.startswith("hold"):
            break
    demo.kill()
    demo.communicate()
    subprocess.run([*DEMO[:-1], "testbed", "down", "--name", name], check=True, timeout=60)
    deadline = time.monotonic() + 10
    while left_behind(before, name) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not left_behind(before, name)


def test_too_many_holds_for_the_time_is_wrong_usage() -> None:
    done = subprocess.run(
        [*DEMO, "--duration", "3", "--holds", "50"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert "50 holds do not fit into 3 s; give them 12 s or more" in done.stderr
