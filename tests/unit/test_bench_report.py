"""Verdicts, counts and files of a report."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from flowferry.bench import output
from flowferry.bench.report import Case, Goal, Report
from flowferry.bench.settings import Settings
from flowferry.cli import main


def case(with_it: list[float], goal: Goal | None = None, **fields: Any) -> Case:
    samples = {"off": [10.0] * len(with_it), "on": with_it}
    return Case("c", "a case", "Gbit/s", "off", "on", samples, goal, **fields)


@pytest.mark.parametrize(
    ("with_it", "least", "verdict"),
    [
        ([9.9] * 5, 0.97, "met"),
        ([9.0] * 5, 0.97, "missed"),
        ([9.0, 9.1, 9.8, 9.9, 9.9], 0.97, "met?"),
        ([9.0, 9.1, 9.2, 9.9, 9.9], 0.97, "missed?"),
    ],
)
def test_a_verdict_says_when_it_is_not_sure(
    with_it: list[float], least: float, verdict: str
) -> None:
    assert case(with_it, Goal(least)).verdict() == verdict


def test_a_goal_for_the_value_looks_at_the_candidate_alone() -> None:
    assert case([6.0] * 3, Goal(5.0, "value")).met() is True
    assert case([4.0] * 3, Goal(5.0, "value")).met() is False


def test_a_goal_may_be_the_most_that_is_allowed() -> None:
    assert case([8.0] * 5, Goal(most=0.9)).verdict() == "met"
    assert case([8.0] * 5, Goal(most=0.7)).verdict() == "missed"
    assert case([8.0, 8.0, 9.0], Goal(most=0.85)).verdict() == "met?"
    assert case([8.0, 9.0, 9.0], Goal(most=0.85)).verdict() == "missed?"


def test_without_a_goal_there_is_no_verdict() -> None:
    assert case([1.0]).met() is None
    assert case([1.0]).verdict() == ""


def test_a_packet_out_of_the_account_fails_a_case_that_reached_its_goal() -> None:
    wrong = case([9.9] * 5, Goal(0.97), counts={"unaccounted": 1}, zero=("unaccounted",))
    assert wrong.met() is False
    assert wrong.verdict() == "wrong: unaccounted 1"
    assert Report("e", "t", {}, [wrong]).met() is False


def test_files_hold_every_sample(tmp_path: Path) -> None:
    report = Report("demo", "a title", Settings.quick().to_dict(), [case([9.0, 11.0], Goal(0.9))])
    table, plain, picture = output.write(report, tmp_path)
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["arm"], row["pass"], float(row["value"])) for row in rows] == [
        ("off", "1", 10.0),
        ("off", "2", 10.0),
        ("on", "1", 9.0),
        ("on", "2", 11.0),
    ]
    found = json.loads(plain.read_text())
    assert found["met"] is True
    assert found["cases"][0]["ratio"]["median"] == 1.0
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_the_list_names_every_experiment() -> None:
    done = CliRunner().invoke(main, ["bench", "list"])
    assert done.exit_code == 0
    assert [line.split()[0] for line in done.output.splitlines()] == [
        "passthrough",
        "capture",
        "handover",
        "fence",
        "tls",
        "state",
        "probe",
    ]


def test_an_unknown_experiment_is_wrong_usage() -> None:
    assert CliRunner().invoke(main, ["bench", "nonsense"]).exit_code == 2
