"""Journal, names and processes of a run, without root."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from flowferry.testbed import TestbedError, process, run
from flowferry.testbed.process import ProcessIdentity
from flowferry.testbed.run import Run

#: Runs until its standard input closes.
WAIT = [sys.executable, "-c", "import sys; print(1, flush=True); sys.stdin.read()"]


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(run, "ROOT", tmp_path / "flowferry")
    (tmp_path / "flowferry" / "lab").mkdir(parents=True)
    return tmp_path / "flowferry" / "lab"


def waiting(token: str = "none") -> "subprocess.Popen[bytes]":
    child = process.start(None, WAIT, token=token, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    return child


@pytest.mark.parametrize("name", ["lab", "a", "run-1", "x" * 32])
def test_names_that_can_be_had(name: str) -> None:
    assert run.check_name(name) == name


@pytest.mark.parametrize("name", ["", "-lab", "lab-", "Lab", "a/b", "..", "x" * 33, "a b"])
def test_names_that_cannot(name: str) -> None:
    with pytest.raises(TestbedError, match="cannot name a run; use"):
        run.check_name(name)


def test_a_journal_line_cut_short_by_a_crash_is_ignored(directory: Path) -> None:
    one = Run("lab", "token")
    one.record("netns", name="lab-h1")
    with (directory / "journal").open("a") as file:
        file.write('{"kind": "netns", "na')
    assert [entry["name"] for entry in one.journal()] == ["lab-h1"]


def test_a_run_killed_before_its_first_line_can_be_undone(directory: Path) -> None:
    Run.reopen("lab").undo()
    assert not directory.exists()
    assert not directory.parent.exists()


def test_undoing_twice_does_nothing_the_second_time(directory: Path) -> None:
    one = Run.reopen("lab")
    one.undo()
    one.undo()


def test_a_run_being_made_is_not_undone_by_others(directory: Path) -> None:
    maker, other = Run("lab", ""), Run("lab", "")
    maker.lock()
    with pytest.raises(TestbedError, match="another process is at work"):
        other.lock(seconds=0)
    maker.unlock()
    other.lock(seconds=0)
    other.unlock()


def test_whoever_waited_for_the_lock_of_an_undone_run_leaves_it_alone(directory: Path) -> None:
    late = Run("lab", "")
    late.lock()
    # Undone and claimed anew by somebody else, while `late` held the old lock file open.
    (directory / "lock").unlink()
    (directory / "lock").touch()
    late.undo()
    assert directory.exists()


def test_crashed_means_the_maker_is_gone_and_the_run_was_not_detached(directory: Path) -> None:
    me = ProcessIdentity.of(os.getpid())
    assert me is not None
    one = Run("lab", "")
    assert one.crashed()
    one.record("run", token="", pid=me.pid, started=me.started)
    assert not one.crashed()
    (directory / "journal").unlink()
    one.record("run", token="", pid=me.pid, started=me.started - 1)
    assert one.crashed()
    one.complete(detach=True)
    assert not one.crashed()
    assert one.is_complete()


def test_a_recycled_pid_is_not_killed() -> None:
    with waiting() as child:
        identity = ProcessIdentity.of(child.pid)
        assert identity is not None
        process.end([ProcessIdentity(child.pid, identity.started - 1)])
        assert identity.alive()
        process.end([identity])
        assert child.wait() == -15


def test_a_pid_recycled_as_a_thread_of_another_process_is_left_alone() -> None:
    done = threading.Event()
    thread = threading.Thread(target=done.wait, daemon=True)
    thread.start()
    assert thread.native_id is not None
    identity = ProcessIdentity.of(thread.native_id)  # procfs shows threads, too
    assert identity is not None
    process.end([identity], grace=0.0)
    assert thread.is_alive()
    done.set()
    thread.join()


def test_a_process_that_ignores_the_request_is_killed() -> None:
    argv = [sys.executable, "-c"]
    argv += ["import signal, time; signal.signal(15, 1); print(1, flush=True); signal.pause()"]
    with process.start(None, argv, token="none", stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        identity = ProcessIdentity.of(child.pid)
        assert identity is not None
        process.end([identity], grace=0.05)
        assert child.wait() == -9


def test_descendants_are_found_by_their_token() -> None:
    # A shell that hands its token on to a child in a session of its own.
    argv = ["/bin/sh", "-c", 'setsid "$@" & wait', "sh", sys.executable, "-c"]
    argv += ["import signal; print(1, flush=True); signal.pause()"]
    token = os.urandom(8).hex()
    with process.start(None, argv, token=token, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        found = set(process.carrying(token))
        assert len(found) == 2
        process.end(found)
        assert not list(process.carrying(token))


def test_a_program_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(FileNotFoundError):
        process.start(None, ["/nonexistent"], token="none")
