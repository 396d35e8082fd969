"""`flowferry hsl` where no agent runs: usage, configuration, what is printed without one."""

import json
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from flowferry.cli import main
from flowferry.cli.hsl import hsl

PLAIN = {
    "instance": {"name": "i1", "id": 1},
    "shim": "kernel",
    "interfaces": {"upstream": "up", "downstream": "down"},
    "pins": "/sys/fs/bpf/i1",
    "socket": "/run/i1.sock",
}


def call(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["hsl", *arguments])


def test_help_names_every_command() -> None:
    result = call("--help")
    assert result.exit_code == 0
    for name in hsl.commands:
        assert f"\n  {name} " in result.output
        assert call(name, "--help").exit_code == 0


def test_the_schema_is_printed() -> None:
    assert json.loads(call("schema").stdout)["$schema"].endswith("2020-12/schema")


def test_the_table_in_three_forms() -> None:
    rows = json.loads(call("table", "--json").stdout)["transitions"]
    assert {"from": "held", "event": "release", "to": "releasing", "duty": "write_out"} in rows
    lines = call("table").stdout.splitlines()
    assert lines[0].split() == ["from", "event", "to", "duty"]
    assert len(lines) == 1 + len(rows)
    assert call("table", "--dot").stdout.count("->") == len(rows)


def test_check_is_content_with_a_good_file(tmp_path: Path) -> None:
    file = tmp_path / "hsl.yaml"
    file.write_text(yaml.safe_dump(PLAIN))
    assert call("run", "--config", str(file), "--check").stdout == f"{file}: ok\n"
    result = call("run", "--config", str(file), "--check", "--json")
    assert json.loads(result.stdout) == {"file": str(file), "ok": True}


def test_check_lists_every_problem_a_line_each(tmp_path: Path) -> None:
    file = tmp_path / "hsl.yaml"
    file.write_text(yaml.safe_dump(PLAIN | {"shim": "dpdk", "colour": 1}))
    result = call("run", "--config", str(file), "--check")
    assert (result.exit_code, result.stdout) == (1, "")
    lines = result.stderr.splitlines()
    assert len(lines) == 2
    assert all(line.startswith(f"Error: {file}:") for line in lines)


def test_run_says_one_line_about_a_bad_file(tmp_path: Path) -> None:
    result = call("run", "--config", str(tmp_path / "none"))
    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 1
    assert "cannot be read" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run"], "give --config FILE, or --name RUN"),
        (["run", "--config", "f", "--name", "lab"], "give --config FILE, or --name RUN"),
        (["status", "--socket", "s", "--name", "lab"], "--socket stands alone"),
        (["hold"], "Missing argument 'MATCH'"),
        (["hold", "colour=red", "--socket", "s"], "colour=red"),
        (["hold", "udp", "--except", "tp_dst=5", "--socket", "s"], "needs tcp, udp or sctp"),
        (["hold", "*", "--side", "left"], "'left' is not one of"),
        (["release", "first"], "'first' is not a valid integer"),
        (["turn", "1", "stray", "--socket", "s"], "the role stray and --peer go together"),
        (["hold", "*", "--peer", "a:1", "--socket", "s"], "the role stray and --peer go together"),
        (["flush", "both"], "'both' is not one of"),
        (["wait", "1", "--timeout", "-1"], "-1"),
    ],
)
def test_wrong_usage_is_status_2(arguments: list[str], said: str) -> None:
    result = call(*arguments)
    assert result.exit_code == 2
    assert said in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["status"],
        ["hold", "*"],
        ["release", "1"],
        ["abort", "1"],
        ["turn", "1", "arm"],
        ["wait", "1"],
        ["holds"],
        ["forget"],
        ["flows"],
        ["disown", "udp"],
        ["alias", "udp", "udp"],
        ["unalias", "udp"],
        ["flush", "upstream"],
        ["events"],
        ["stop"],
    ],
)
def test_without_an_agent_one_line_says_so(arguments: list[str], tmp_path: Path) -> None:
    result = call(*arguments, "--socket", str(tmp_path / "none.sock"))
    assert (result.exit_code, result.stdout) == (1, "")
    (line,) = result.stderr.splitlines()
    assert "no agent answers on" in line
    assert "start one with 'flowferry hsl run'" in line


def test_an_unknown_testbed_is_one_line() -> None:
    result = call("status", "--name", "no-such-testbed")
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert "there is no testbed named no-such-testbed" in line
