"""`flowferry bench` where it cannot run: one line, with the remedy, before anything is measured."""

import os
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest
from click.testing import CliRunner

from flowferry import cli
from flowferry.bench.catalogue import EXPERIMENTS, Experiment
from flowferry.bench.settings import Settings
from flowferry.controller import ControllerError
from flowferry.testbed import TestbedError, preflight

Patch = Callable[[pytest.MonkeyPatch], None]


def as_somebody(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(os, "geteuid", lambda: 1000)


def without_iperf3(patch: pytest.MonkeyPatch) -> None:
    # The machine's own needs are other tests' subject, and want root.
    patch.setattr(preflight, "CHECKS", {})
    patch.setattr(shutil, "which", lambda name: None)


@pytest.mark.parametrize(
    ("name", "lacks"),
    [(each, each in ("handover", "fence", "tls")) for each in EXPERIMENTS],
)
def test_open_vswitch_is_asked_for_where_there_are_switches(
    name: str, lacks: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lack = (lambda: "there is no ovs-vswitchd", "install it", True)
    monkeypatch.setattr(preflight, "CHECKS", {"Open vSwitch": lack})
    monkeypatch.setattr(shutil, "which", lambda name: None)  # the next need after switches
    result = CliRunner().invoke(cli.main, ["bench", name, "--out", str(tmp_path / "results")])
    assert result.exit_code == 1
    says = "there is no ovs-vswitchd" if lacks else "iperf3 is not installed"
    assert says in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "error",
    [
        ControllerError("handover 1 is still moving after 60 s"),
        TestbedError("no link", "start it again"),
    ],
    ids=["controller", "testbed"],
)
def test_what_fails_on_the_way_is_one_line(
    error: Exception, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(preflight, "CHECKS", {})
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/iperf3")
    monkeypatch.setattr("flowferry.cli.bench.preferred", nullcontext)
    monkeypatch.setattr(Experiment, "run", fail)
    result = CliRunner().invoke(cli.main, ["bench", "handover", "--out", str(tmp_path)])
    assert result.exit_code == 1
    assert result.stderr == f"Error: {error}\n"


@pytest.mark.parametrize(
    ("lack", "says"),
    [
        (as_somebody, "Error: this needs root; run it as root (sudo)\n"),
        (
            without_iperf3,
            "Error: iperf3 is not installed; run 'make setup', or install iperf3\n",
        ),
    ],
    ids=["root", "iperf3"],
)
def test_what_is_missing_is_one_line(
    lack: Patch, says: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lack(monkeypatch)
    out = tmp_path / "results"
    result = CliRunner().invoke(cli.main, ["bench", "capture", "--quick", "--out", str(out)])
    assert result.exit_code == 1
    assert result.stderr == says
    assert not out.exists()


def test_the_list_needs_no_rights(monkeypatch: pytest.MonkeyPatch) -> None:
    as_somebody(monkeypatch)
    result = CliRunner().invoke(cli.main, ["bench", "list"])
    assert result.exit_code == 0
    assert "capture" in result.stdout


def test_an_end_of_a_name_tells_cases_apart() -> None:
    wanted = Settings.full("58-bytes-100$").wants
    assert wanted("1-flows-58-bytes-100")
    assert not wanted("1-flows-58-bytes-1000")


def test_what_is_no_expression_is_refused() -> None:
    result = CliRunner().invoke(cli.main, ["bench", "handover", "--only", "("])
    assert result.exit_code == 2
    assert "'(' is no regular expression" in result.stderr
