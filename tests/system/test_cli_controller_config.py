"""`flowferry controller --check` and `schema`: what an operator is told before anything changes."""

import json
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml

MAIN = [sys.executable, "-c", "from flowferry.cli import main; main()", "controller"]
GOOD = """\
name: site
journal: {folder}/controller.db
keys:
  - {{id: 1, file: {folder}/control.key}}
openflow: {{listen: "127.0.0.1:0"}}
rest: {{listen: null}}
groups:
  - name: firewall
    upstream: {{dpid: 1, ports: [1]}}
    downstream: {{dpid: 2, ports: [1]}}
    instances:
      - {{name: i1, id: 1, upstream_port: 11, downstream_port: 11, peer: "172.31.0.1:7001"}}
      - {{name: i2, id: 2, upstream_port: 12, downstream_port: 12, peer: "172.31.0.2:7001"}}
settling_ms: 500
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A good configuration in a folder with nothing else but its key."""
    key = tmp_path / "control.key"
    key.write_text("ab" * 32)
    key.chmod(0o600)
    path = tmp_path / "site.yaml"
    path.write_text(GOOD.format(folder=tmp_path))
    return path


def controller(*words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([*MAIN, *words], capture_output=True, text=True, timeout=60)


def test_a_good_file_is_fine_and_nothing_is_made(file: Path) -> None:
    before = sorted(file.parent.iterdir())
    done = controller("--config", str(file), "--check")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{file} is fine\n", "")
    done = controller("--check", "--config", str(file), "--json")
    assert json.loads(done.stdout) == {"file": str(file), "ok": True}
    assert sorted(file.parent.iterdir()) == before


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("settling_ms: 500", "settling_ms: 0", "14: settling_ms: 0 is too small; write 1 or more"),
        ("settling_ms:", "setling_ms:", "14: setling_ms: is no field; did you mean 'settling_ms'?"),
        ("journal: ", "# journal: ", "1: journal: is missing; add it"),
        (
            "id: 2, up",
            "id: 1, up",
            "13: groups[0].instances[1].id: 1 is i1's already; number all instances",
        ),
        ("control.key", "nothing.key", "nothing.key' cannot be read"),
        (
            "dpid: 2, ports: [1]",
            "dpid: 2",
            "10: groups[0].downstream: needs either ports or a group",
        ),
        ("listen: null", 'listen: "0.0.0.0:6680"', "is beyond loopback, and token_file is missing"),
        ("instances:", "instances: [", "12: not understood: expected the node content"),
    ],
)
def test_a_bad_file_is_told_by_line_field_and_remedy(
    file: Path, old: str, new: str, said: str
) -> None:
    text = file.read_text().replace(old, new, 1)
    assert text != file.read_text()
    file.write_text(text)
    before = sorted(file.parent.iterdir())
    done = controller("--config", str(file), "--check")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"{file}:"), done.stderr
    assert any(said in line for line in done.stderr.splitlines()), done.stderr
    problems = json.loads(controller("--config", str(file), "--check", "--json").stdout)
    assert (problems["ok"], problems["problems"]) == (False, done.stderr.splitlines())
    # The daemon itself says the same in one line, and does not begin.
    run = controller("--config", str(file))
    assert run.returncode == 1
    assert run.stderr.startswith("Error: ")
    assert run.stderr.count("\n") == 1
    assert said in run.stderr
    assert sorted(file.parent.iterdir()) == before
    assert file.read_text() == text


def test_all_problems_are_listed_at_once(file: Path) -> None:
    file.write_text(file.read_text().replace("500", "x").replace("id: 2, up", "id: 0, up"))
    done = controller("--config", str(file), "--check")
    assert [line.split(": ")[0] for line in done.stderr.splitlines()] == [
        f"{file}:13",
        f"{file}:14",
    ]


def test_the_schema_takes_the_good_file_and_refuses_others(file: Path) -> None:
    done = controller("schema")
    assert (done.returncode, done.stderr) == (0, "")
    schema = json.loads(done.stdout)
    good = yaml.safe_load(file.read_text())
    jsonschema.validate(good, schema)
    for field, value in (("settling_ms", 0), ("jornal", "/x"), ("keys", [])):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**good, field: value}, schema)
