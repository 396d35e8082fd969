"""`flowferry bench`, and these tests, told to end: they take down what they have built."""

import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from hsl_pcap import until

from flowferry.testbed import TestbedError
from flowferry.testbed.machine import Machine
from flowferry.testbed.run import Run, names

HERE = Path(__file__).parent
BENCH = [sys.executable, "-c", "from flowferry.cli import main; main()", "bench"]


def runs_of(pid: int, step: str) -> list[str]:
    """Runs that a process has made, as far as this entry of their journal at least."""
    found = []
    for name in names():
        with suppress(TestbedError):  # somebody else's, and gone
            entries = list(Run.reopen(name).journal())
            owned = any(each["kind"] == "run" and each["pid"] == pid for each in entries)
            if owned and any(each["kind"] == step for each in entries):
                found.append(name)
    return found


def begun(process: subprocess.Popen[str], step: str) -> str:
    """Wait until the run of a process has come so far; its name."""
    until(lambda: bool(runs_of(process.pid, step)), f"{step} in a journal", seconds=60)
    (name,) = runs_of(process.pid, step)
    return name


@pytest.mark.parametrize(
    ("number", "step"),
    [
        (signal.SIGTERM, "netns-made"),  # half built
        (signal.SIGTERM, "process"),
        (signal.SIGINT, "complete"),
    ],
)
def test_a_bench_ended_in_the_middle_leaves_nothing(
    tmp_path: Path, number: signal.Signals, step: str
) -> None:
    before = Machine.now()
    bench = subprocess.Popen(
        [*BENCH, "capture", "--quick", "--out", str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        name = begun(bench, step)
        bench.send_signal(number)
        bench.send_signal(number)  # the impatient press twice
        said, error = bench.communicate(timeout=60)
    finally:
        bench.terminate()
        bench.wait(60)
    assert (bench.returncode, said, error) == (128 + number, "", "")
    assert not Machine.now().beyond(before, name)
    assert list(tmp_path.iterdir()) == []


def test_tests_ended_in_the_middle_leave_nothing() -> None:
    before = Machine.now()
    target = f"{HERE / 'test_testbed_traffic.py'}::test_jumbo_frames_cross"
    tests = subprocess.Popen(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", target],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        name = begun(tests, "process")
        tests.send_signal(signal.SIGTERM)
        said, _ = tests.communicate(timeout=60)
    finally:
        tests.terminate()
        tests.wait(60)
    assert tests.returncode == pytest.ExitCode.INTERRUPTED, said
    assert not Machine.now().beyond(before, name)
