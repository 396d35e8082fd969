"""`flowferry bench` where it cannot run: one line, with the remedy, before anything is measured."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from flowferry import cli
from flowferry.testbed import preflight

Patch = Callable[[pytest.MonkeyPatch], None]


def as_somebody(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(os, "geteuid", lambda: 1000)


def without_iperf3(patch: pytest.MonkeyPatch) -> None:
    # The machine's own needs are other tests' subject, and want root.
    patch.setattr(preflight, "CHECKS", {})
    patch.setattr(shutil, "which", lambda name: None)


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
