"""The root command: what it loads, and what it says when something cannot be loaded."""

import importlib
from types import ModuleType

import click
import pytest
from click.testing import CliRunner

from flowferry import cli


def test_help_lists_commands_without_loading_any(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> ModuleType:
        raise AssertionError(f"{name} was loaded")

    monkeypatch.setattr(importlib, "import_module", refuse)
    result = CliRunner().invoke(cli.main, ["--help"])
    assert result.exit_code == 0
    assert "testbed" in result.output


def test_a_group_that_cannot_be_loaded_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> ModuleType:
        raise ImportError("No module named 'flowferry._native'")

    monkeypatch.setattr(importlib, "import_module", broken)
    result = CliRunner().invoke(cli.main, ["testbed", "up"])
    assert result.exit_code == 1
    assert result.stderr == (
        "Error: 'testbed' cannot be loaded (No module named 'flowferry._native');"
        " run 'make setup'\n"
    )


def test_a_command_of_no_installed_module_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(cli.COMMANDS, "later", cli.Entry("later_still", "later", "Not yet."))
    result = CliRunner().invoke(cli.main, ["later"])
    assert result.exit_code == 2
    assert "No such command 'later'" in result.stderr
    assert "Not yet." not in CliRunner().invoke(cli.main, ["--help"]).output


def test_every_command_that_is_installed_loads() -> None:
    context = click.Context(cli.main)
    for name in cli.main.list_commands(context):
        assert isinstance(cli.main.get_command(context, name), click.Command)


@pytest.mark.parametrize("count", ["0", "-1", "65"])
def test_a_number_of_instances_that_cannot_be_is_wrong_usage(count: str) -> None:
    result = CliRunner().invoke(cli.main, ["testbed", "up", "--instances", count])
    assert result.exit_code == 2
    assert f"{count} is not in the range 1<=x<=64" in result.stderr
