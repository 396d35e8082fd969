"""`flowferry demo` from outside: verdict, report, picture, and nothing left, however it ends."""

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from matplotlib import image
from matplotlib.colors import to_rgb

from flowferry.testbed import Testbed
from flowferry.testbed.machine import Machine

DEMO = [sys.executable, "-c", "from flowferry.cli import main; main()", "demo"]
SHORT = ["--moves", "3"]
#: What the picture shows in which colour; of a short demo's moves the bands, on white.
UDP, TCP, AMISS = "#0072B2", "#009E73", "#B00000"
MOVES = ("#BBE1F6", "#99D8C7", "#EEBF99")


@pytest.fixture
def name(run_name: Callable[[], str]) -> str:
    return run_name()


def left_behind(before: Machine, name: str) -> dict[str, object]:
    """What a demo has made that is still there."""
    return dict(Machine.now().beyond(before, name))


def drawn(picture: Path, *colours: str, below: float = 0.0) -> list[int]:
    """How many pixels of a picture have each of these colours; `below`: from so far down on."""
    pixels = (image.imread(picture)[:, :, :3] * 255).round().astype(int)
    assert pixels.shape[0] > 500, "too small to be read"
    pixels = pixels[int(below * pixels.shape[0]) :]
    wanted = ([round(part * 255) for part in to_rgb(colour)] for colour in colours)
    return [int((abs(pixels - colour) <= 2).all(axis=2).sum()) for colour in wanted]


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
    packets, trips, *moves = drawn(tmp_path / "demo.png", UDP, TCP, *MOVES)
    assert packets > 2_000  # a cloud of them, not the legend's only
    assert trips > 500
    assert min(moves) > 100  # in the legend at least: a band can be as thin as its line …
    assert max(moves) > 1_000  # … but for the one that is looked at closely
    assert report["seconds"] > report["duration_s"] > 0
    # What the handover itself did is exact on any machine.
    assert [move["state"] for move in report["moves"]] == ["done"] * 3
    assert report["captured_packets"] > 0
    assert all(agent["lost_packets"] == 0 for agent in report["agents"].values())
    assert all(move["controller_packets"] == 0 for move in report["moves"])
    assert all(move["state_arrived"] and all(move["state_arrived"]) for move in report["moves"])
    udp = report["udp"]
    # Behind a forwarder without CPU time order is not promised: docs/hsl.md, "Drain".
    assert not (report["passed"] and udp["lost"] + udp["reordered"])
    assert udp["duplicated"] == 0
    if function == "bridge":  # what is through the fence is through the function
        assert udp["reordered"] == 0
    assert udp["sent"] == udp["received"] + udp["lost"]
    assert report["tcp"]["connected"]
    assert report["tcp"]["intact"]
    assert report["session"]["connected"]
    assert report["session"]["wrong"] == 0
    assert "move  3" in done.stdout
    assert not left_behind(before, name)


def test_a_planted_loss_fails_it_and_is_told_where(tmp_path: Path, name: str) -> None:
    """A switch drops one of the flows for a moment: exactly that is what the demo says."""
    before = Machine.now()
    demo = subprocess.Popen(
        [*DEMO, *SHORT, "--out", str(tmp_path), "--name", name],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert demo.stdout is not None
    for line in demo.stdout:
        if line.startswith("traffic flows"):
            break
    dropped = drop_some(name, "udp,tp_dst=7001")
    said, error = demo.communicate(timeout=120)
    report = json.loads((tmp_path / "demo.json").read_text())
    assert demo.returncode == 1
    assert error == ""
    verdict = said.splitlines()[-1]
    assert verdict == report["verdict"]
    assert verdict.startswith(f"FAILED: udp: {report['udp']['lost']:,} packets lost (")
    assert report["udp"]["lost"] >= dropped
    lost = [spot for spot in report["spots"] if spot["what"] == "lost" and "flow" in spot]
    planted = [spot for spot in lost if spot["flow"] == 1]
    assert max(spot["packets"] for spot in planted) >= dropped
    # A machine with other things to do may have lost more, elsewhere.
    worst = max(lost, key=lambda spot: spot["packets"])
    assert f"to port {7000 + worst['flow']}, sent from {worst['from_s']:.3f} to " in verdict
    (crosses,) = drawn(tmp_path / "demo.png", AMISS, below=0.1)  # the headline is of this colour
    assert crosses > 100
    assert not left_behind(before, name)


def drop_some(name: str, match: str) -> int:
    """Have the ingress switch of a testbed drop packets, until it has; how many, or some more."""
    bed = Testbed.attach(name)
    target = bed.switches["ingress"].management

    def switch(*words: str) -> str:
        done = bed.owner.run(None, ["ovs-ofctl", "-O", "OpenFlow13", *words])
        return str(done.stdout)

    switch("add-flow", target, f"cookie=0xbad,priority=65535,{match},actions=drop")
    try:
        deadline = time.monotonic() + 20
        dropped = 0
        while dropped < 10:
            assert time.monotonic() < deadline, "nothing to drop came"
            found = re.search(r"n_packets=(\d+)", switch("dump-flows", target, "cookie=0xbad/-1"))
            dropped = int(found[1]) if found else 0
    finally:
        switch("del-flows", target, "cookie=0xbad/-1")
    return dropped


@pytest.mark.soak
def test_the_whole_demo_passes(tmp_path: Path, name: str) -> None:
    """On a machine that has nothing else to do: 20 moves, and not a packet missing."""
    before = Machine.now()
    done = subprocess.run(
        [*DEMO, "--out", str(tmp_path), "--name", name, "--json"],
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["passed"] is True
    assert [move["state"] for move in report["moves"]] == ["done"] * 20
    assert max(move["state_bytes"] for move in report["moves"]) >= 10_000_000
    assert not left_behind(before, name)


def test_json_is_one_object_and_the_rest_goes_to_stderr(tmp_path: Path, name: str) -> None:
    done = subprocess.run(
        [*DEMO, "--moves", "1", "--out", str(tmp_path), "--name", name, "--json"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    report = json.loads(done.stdout)
    assert report == json.loads((tmp_path / "demo.json").read_text())
    assert "move  1" in done.stderr


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
        if line.startswith("move"):
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
        if line.startswith("move"):
            break
    demo.kill()
    demo.communicate()
    subprocess.run([*DEMO[:-1], "testbed", "down", "--name", name], check=True, timeout=60)
    deadline = time.monotonic() + 10
    while left_behind(before, name) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not left_behind(before, name)
