"""Nothing is left behind, whatever happens to the one who builds; nothing foreign is touched."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from pyroute2 import IPRoute

from flowferry.testbed import Chain, Testbed, TestbedError, namespace, run
from flowferry.testbed.machine import Machine
from flowferry.testbed.process import ProcessIdentity
from flowferry.testbed.run import Run
from flowferry.testbed.switches import SCHEMA

#: A testbed that uses every kind of thing there is to leave behind.
OPTIONS = {"instances": 2, "cpu_share": 0.5, "rate": 100.0, "steering": True}

KILLED_AFTER = """
import os, signal, sys
from flowferry.testbed import Testbed
name, step, options = sys.argv[1], sys.argv[2], eval(sys.argv[3])
def failpoint(reached):
    if reached == step:
        os.kill(os.getpid(), signal.SIGKILL)
Testbed(name, failpoint=failpoint, **options).up()
"""


class Broken(Exception):
    """What a failpoint raises."""


def steps_of(build: Callable[[Callable[[str], None]], None]) -> list[str]:
    """The names of the steps that building goes through."""
    seen: list[str] = []
    build(seen.append)
    return [step for step in seen if step != "undo"]


@pytest.fixture(scope="module")
def steps(run_name: Callable[[], str]) -> list[str]:
    def build(failpoint: Callable[[str], None]) -> None:
        with Testbed(run_name(), failpoint=failpoint, **OPTIONS):
            pass

    return steps_of(build)


def fail_at(step: str) -> Callable[[str], None]:
    def failpoint(reached: str) -> None:
        if reached == step:
            raise Broken(step)

    return failpoint


def left_since(before: Machine, name: str) -> dict[str, list[str]]:
    after = Machine.now()
    left = after.beyond(before, name)
    left |= {kind: found for kind, found in after.beyond(before).items() if kind == "links"}
    return left


def test_an_up_that_fails_after_any_step_leaves_nothing(
    run_name: Callable[[], str], steps: list[str]
) -> None:
    assert len(steps) > 15
    for step in steps:
        name = run_name()
        before = Machine.now()
        with pytest.raises(Broken):
            Testbed(name, failpoint=fail_at(step), **OPTIONS).up()
        assert left_since(before, name) == {}, f"after step {step!r}"


def test_an_up_killed_after_any_step_is_removed_by_down(
    run_name: Callable[[], str], steps: list[str]
) -> None:
    for step in steps:
        name = run_name()
        before = Machine.now()
        argv = [sys.executable, "-c", KILLED_AFTER, name, step, repr(OPTIONS)]
        assert subprocess.run(argv, check=False, timeout=60).returncode == -9
        assert Run.reopen(name).crashed(), f"after step {step!r}"
        Run.reopen(name).undo()
        assert left_since(before, name) == {}, f"after step {step!r}"


def test_a_chain_that_fails_after_any_step_leaves_nothing(run_name: Callable[[], str]) -> None:
    def build(failpoint: Callable[[str], None]) -> None:
        with Chain(name=run_name(), failpoint=failpoint, steering=True):
            pass

    for step in steps_of(build):
        name = run_name()
        before = Machine.now()
        with (
            pytest.raises(Broken),
            Chain(name=name, failpoint=fail_at(step), steering=True),
        ):
            pass
        assert left_since(before, name) == {}, f"after step {step!r}"


def test_down_ends_what_was_started_inside_and_its_children(run_name: Callable[[], str]) -> None:
    name = run_name()
    before = Machine.now()
    with Testbed(name, instances=1, cpu_share=0.5) as bed:
        argv = ["/bin/sh", "-c", "trap '' TERM; setsid tail -f /dev/null & echo on; wait"]
        child = bed.popen("i1", argv, stdout=subprocess.PIPE)
        assert child.stdout is not None
        assert child.stdout.readline() == b"on\n"
    assert child.returncode is not None
    assert left_since(before, name) == {}


def test_down_is_idempotent_and_a_name_can_be_used_again(run_name: Callable[[], str]) -> None:
    bed = Testbed(run_name(), instances=1)
    bed.down()
    bed.up()
    bed.down()
    bed.down()
    with Testbed(bed.name, instances=1):
        pass


def test_a_name_in_use_is_refused_and_the_first_goes_on(testbed: Callable[..., Testbed]) -> None:
    bed = testbed(instances=1)
    with pytest.raises(TestbedError, match="exists already; take it down with"):
        Testbed(bed.name, instances=1).up()
    assert bed.ovs.dump_entries("ingress")


def test_several_run_beside_each_other(testbed: Callable[..., Testbed]) -> None:
    first, second = testbed(instances=1), testbed(instances=2)
    second.down()
    assert all(alive for _, _, alive in first.owner.daemons())
    assert first.ovs.dump_entries("egress")


def test_another_process_can_attach_and_take_down(run_name: Callable[[], str]) -> None:
    name = run_name()
    Testbed(name, instances=1, cpu_share=0.5).up(detach=True)
    found = Testbed.attach(name)
    assert found.run("i1", ["cat", "/proc/self/cgroup"]).stdout.count(f"flowferry/{name}/i1") == 1
    assert not Run.reopen(name).crashed()
    found.down()
    with pytest.raises(TestbedError, match=f"there is no testbed named {name}"):
        Testbed.attach(name)


@dataclass(frozen=True)
class Foreign:
    """Things somebody else made, with names as near to a run's as they can be."""

    near: str
    ns: str
    identity: namespace.Identity
    bridge: str
    server: "subprocess.Popen[bytes]"
    database: str

    def check(self) -> None:
        assert namespace.Identity.of(self.ns) == self.identity
        assert Path(f"/sys/class/net/{self.bridge}").exists()
        assert self.server.poll() is None
        argv = ["ovs-vsctl", f"--db={self.database}", "--retry", "--timeout=5", "--no-wait", "init"]
        subprocess.run(argv, check=True)


@pytest.fixture
def foreign(run_name: Callable[[], str], tmp_path: Path) -> Iterator[Foreign]:
    """A namespace, a bridge in the root namespace, and a running Open vSwitch."""
    near = run_name()
    ns, bridge = f"{near}-mine", f"x{near[-8:]}"
    with ExitStack() as stack:
        identity = namespace.create(ns)
        stack.callback(namespace.remove, ns)
        ipr = stack.enter_context(IPRoute())
        ipr.link("add", ifname=bridge, kind="bridge")
        stack.callback(lambda: ipr.link("del", index=ipr.link_lookup(ifname=bridge)[0]))
        file, socket = tmp_path / "conf.db", f"unix:{tmp_path}/db.sock"
        subprocess.run(["ovsdb-tool", "create", str(file), str(SCHEMA)], check=True)
        argv = ["ovsdb-server", str(file), f"--remote=p{socket}", f"--unixctl={tmp_path}/ctl"]
        server = stack.enter_context(
            subprocess.Popen([*argv, "--no-chdir"], stderr=subprocess.DEVNULL)
        )
        stack.callback(server.terminate)
        yield Foreign(near, ns, identity, bridge, server, socket)


def test_what_others_made_is_unharmed(foreign: Foreign) -> None:
    foreign.check()
    with Testbed(foreign.near, instances=1):
        foreign.check()
    foreign.check()
    with pytest.raises(Broken):
        Testbed(foreign.near, failpoint=fail_at("bridges")).up()
    foreign.check()


def test_a_namespace_of_our_name_that_is_not_ours_stays(run_name: Callable[[], str]) -> None:
    name = run_name()
    identity = namespace.create(f"{name}-h2")
    try:
        with pytest.raises(TestbedError, match=f"{name}-h2 exists and is not ours"):
            Testbed(name, instances=1).up()
        assert namespace.Identity.of(f"{name}-h2") == identity
        assert name not in run.names()
    finally:
        namespace.remove(f"{name}-h2")


def test_a_recorded_pid_that_now_belongs_to_another_is_spared(run_name: Callable[[], str]) -> None:
    bed = Testbed(run_name(), instances=1)
    bed.up()
    with subprocess.Popen(["tail", "-f", "/dev/null"]) as stranger:
        now = ProcessIdentity.of(stranger.pid)
        assert now is not None
        bed.owner.record(
            "process", pid=stranger.pid, started=now.started - 1, argv=["tail"], log=None
        )
        bed.down()
        assert now.alive()
        stranger.terminate()


@pytest.mark.soak
def test_an_up_killed_at_any_moment_is_removed_by_down(run_name: Callable[[], str]) -> None:
    """Between the steps too: killed five milliseconds later each time, until it gets through."""
    argv = [sys.executable, "-c", KILLED_AFTER]
    for milliseconds in range(150, 900, 5):
        name = run_name()
        before = Machine.now()
        with subprocess.Popen([*argv, name, "complete", repr(OPTIONS)]) as child:
            try:
                child.wait(timeout=milliseconds / 1000)
            except subprocess.TimeoutExpired:
                child.kill()
        if name in run.names():
            Run.reopen(name).undo()
        assert left_since(before, name) == {}, f"after {milliseconds} ms"
