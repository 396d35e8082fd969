"""`flowferry move` and `instances drain`: the line, where it stands, and the exit status."""

import json
from typing import Any

import pytest
from click.testing import CliRunner, Result

from flowferry import cli
from flowferry.cli.handovers import line
from flowferry.controller import Client, ControllerError

DONE: dict[str, Any] = {
    "id": 7, "state": "done", "flows": 3, "fence_ms": 1.5, "captured_packets": 20,
    "stray_packets": 1, "lost_packets": 0, "flags": [], "error": None,
}  # fmt: skip
FAILED: dict[str, Any] = {**DONE, "id": 8, "state": "failed", "error": "instance i2 died"}
NOTHING: dict[str, Any] = {**DONE, "flows": 0, "captured_packets": 0}
CONTROLLER = ("--controller", "http://127.0.0.1:1")
DRAIN = ("instances", "drain", "i1", "--wait")
MOVE = ("move", "--match", "udp", "--to", "i2", "--wait")


def told(monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], *ends: dict[str, Any]) -> Result:
    """What a command says whose handovers end like this."""
    monkeypatch.setattr(Client, "move", lambda *_, **__: ends[0])
    monkeypatch.setattr(Client, "drain_instance", lambda *_, **__: list(ends))
    return CliRunner().invoke(cli.main, [*words, *CONTROLLER])


@pytest.mark.parametrize("handover", [DONE, NOTHING, FAILED], ids=["done", "nothing", "failed"])
@pytest.mark.parametrize("flag", ["unfenced", "drain_unproven", "state_lost", "of_tomorrow"])
def test_the_line_says_what_is_not_proven(handover: dict[str, Any], flag: str) -> None:
    assert flag not in line(handover)
    said = line({**handover, "flags": [flag]})
    assert said.startswith(line(handover))
    assert f"; {flag}: " in said
    assert "\n" not in said


def test_what_went_wrong_on_the_way_is_said_although_it_is_done() -> None:
    assert line({**DONE, "error": "switch 0x2 is gone"}).endswith("; switch 0x2 is gone")


@pytest.mark.parametrize("words", [MOVE, DRAIN], ids=["move", "drain"])
@pytest.mark.parametrize("as_json", [False, True], ids=["text", "json"])
def test_a_failure_is_a_line_on_stderr_and_status_1(
    monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], as_json: bool
) -> None:
    result = told(monkeypatch, (*words, *(["--json"] if as_json else [])), FAILED)
    assert result.exit_code == 1
    assert result.stderr == "handover 8 failed: instance i2 died\n"
    if as_json:
        found = json.loads(result.stdout)
        assert found.get("handovers", [found]) == [FAILED]
    else:
        assert result.stdout == ""


def test_of_a_drain_each_failure_is_on_stderr_and_the_rest_on_stdout(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    aborted = {**FAILED, "id": 9, "state": "aborted"}
    result = told(monkeypatch, DRAIN, FAILED, DONE, aborted)
    assert result.exit_code == 1
    assert [said.split()[1] for said in result.stderr.splitlines()] == ["8", "9"]
    assert [said.split()[1] for said in result.stdout.splitlines()] == ["7"]


@pytest.mark.parametrize("words", [MOVE, DRAIN], ids=["move", "drain"])
def test_what_goes_well_is_on_stdout(
    monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    result = told(monkeypatch, words, DONE)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == line(DONE) + "\n"


def test_too_late_to_be_called_off_is_a_line_and_status_1(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise ControllerError("handover 7 is moving: too late to call it off")

    monkeypatch.setattr(Client, "abort", refuse)
    result = CliRunner().invoke(cli.main, ["handovers", "abort", "7", *CONTROLLER])
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "Error: handover 7 is moving: too late to call it off\n"
