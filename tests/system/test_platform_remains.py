"""A testbed with agents and a controller that fails half way, or is killed, leaves nothing behind.

Least of all BPF objects: maps and links are pinned, so that they outlive an agent.
"""

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from bpf_objects import Object, alive, held_by
from click.testing import CliRunner
from numbered import until

from flowferry.cli.testbed import testbed as command
from flowferry.controller import ControllerError, Platform
from flowferry.testbed import run
from flowferry.testbed.machine import Machine
from flowferry.testbed.run import Run

#: What `Platform.up` does, in this order, and how often it has done it when it fails.
STEPS = [("start_agent", 1), ("start_agent", 2), ("connect_switches", 1), ("_await_switches", 1)]

KILLED_AFTER = """
import os, signal, sys
from click.testing import CliRunner
from flowferry.cli.testbed import testbed
from flowferry.controller import Platform
name, step, times = sys.argv[1], sys.argv[2], int(sys.argv[3])
original, done = getattr(Platform, step), []
def killed(*given):
    result = original(*given)
    done.append(result)
    if len(done) == times:
        os.kill(os.getpid(), signal.SIGKILL)
    return result
setattr(Platform, step, killed)
CliRunner().invoke(testbed, ["up", "--name", name, "--function", "forwarder"])
"""


def agents(name: str) -> list[int]:
    """The agents that a run has started."""
    started = (one for one in Machine.now().processes if "flowferry.hsl" in one and name in one)
    return [int(one.split()[0]) for one in started]


def objects_of(name: str, count: int) -> set[Object]:
    """The BPF objects of so many agents of a run; all of them are there."""
    found = [held_by(pid) for pid in agents(name)]
    assert len(found) == count
    for each in found:
        assert {"prog", "map"} <= {kind for kind, _ in each}
    objects = set().union(*found)
    assert alive(objects) == objects
    return objects


def check_nothing_left(before: Machine, name: str, objects: set[Object]) -> None:
    """Nothing that `Machine` knows, and no BPF object; the kernel frees these a bit later."""
    after = Machine.now()
    left = after.beyond(before, name)
    left |= {kind: found for kind, found in after.beyond(before).items() if kind == "links"}
    assert left == {}
    assert name not in run.names()
    until(lambda: not alive(objects), lambda: f"the kernel forgets {sorted(alive(objects))}")


@pytest.mark.parametrize("function", ["bridge", "forwarder"])
@pytest.mark.parametrize(("step", "times"), STEPS)
def test_an_up_that_fails_with_agents_running_leaves_nothing(
    run_name: Callable[[], str],
    monkeypatch: pytest.MonkeyPatch,
    step: str,
    times: int,
    function: str,
) -> None:
    name, before = run_name(), Machine.now()
    original = getattr(Platform, step)
    done: list[object] = []
    objects: set[Object] = set()

    def broken(platform: Platform, *given: Any) -> Any:
        result = original(platform, *given)
        done.append(result)
        if len(done) == times:
            objects.update(objects_of(name, len(platform.agents)))
            raise ControllerError("broken on purpose")
        return result

    monkeypatch.setattr(Platform, step, broken)
    ended = CliRunner().invoke(command, ["up", "--name", name, "--function", function])
    assert (ended.exit_code, ended.output) == (1, "Error: broken on purpose\n")
    assert objects
    check_nothing_left(before, name, objects)


@pytest.mark.parametrize(("step", "times"), STEPS)
def test_an_up_killed_with_agents_running_is_removed_by_down(
    run_name: Callable[[], str], step: str, times: int
) -> None:
    name, before = run_name(), Machine.now()
    argv = [sys.executable, "-c", KILLED_AFTER, name, step, str(times)]
    assert subprocess.run(argv, check=False, timeout=120).returncode == -9
    objects = objects_of(name, times if step == "start_agent" else 2)
    Run.reopen(name).undo()
    check_nothing_left(before, name, objects)


def test_down_removes_pins_that_somebody_looks_at(run_name: Callable[[], str]) -> None:
    name, before = run_name(), Machine.now()
    up = CliRunner().invoke(command, ["up", "--name", name, "--instances", "1"])
    assert up.exit_code == 0, up.output
    objects = objects_of(name, 1)
    built = Run.reopen(name)
    with subprocess.Popen(["tail", "-f", "/dev/null"], cwd=built.directory / "bpf") as onlooker:
        try:
            built.undo()
            check_nothing_left(before, name, objects)
        finally:
            onlooker.terminate()
