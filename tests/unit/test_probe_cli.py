"""The command line and the file readers of the probe and the forwarder, without any packet."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from flowferry import probe
from flowferry.cli.probe import probe as group
from flowferry.functions.forwarder import main as forwarder
from flowferry.functions.seen import SeenFrame, count_probe_packets, read_seen


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["send"], "TO"),
        (["send", "nowhere"], "invalid IP address"),
        (["send", "127.0.0.1", "--rate", "1", "--flow-rate", "1"], "not both"),
        (["send", "127.0.0.1", "--frame", "40"], "frame of 58"),
        (["send", "127.0.0.1", "--flows", "0"], "flows"),
        (["send", "127.0.0.1", "--expect-clean", "--count", "1"], "--echo"),
        (["sink", "--ports", "0"], "ports"),
        (["sink", "--address", "x"], "invalid IP address"),
    ],
)
def test_wrong_usage_is_status_2_and_says_what(words: list[str], hint: str) -> None:
    result = CliRunner().invoke(group, words)
    assert result.exit_code == 2
    assert hint in result.output


@pytest.mark.parametrize("command", ["send", "sink", "echo"])
def test_every_command_explains_itself(command: str) -> None:
    result = CliRunner().invoke(group, [command, "--help"])
    assert result.exit_code == 0
    assert "--json" in result.output


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["a", "a"], "twice"),
        (["a", "b", "--delay", "soon"], "no duration"),
        (["a", "b", "--fault", "drop=0"], "packet number"),
        (["a", "b", "--fault", "lose=1"], "no part of a fault plan"),
    ],
)
def test_wrong_forwarders_are_status_2_and_say_what(words: list[str], hint: str) -> None:
    result = CliRunner().invoke(forwarder, words)
    assert result.exit_code == 2
    assert hint in " ".join(result.output.split())


@pytest.mark.parametrize("text", ["61s", "61000ms", "61000000us", "61000"])
def test_durations_have_units_and_a_bare_number_is_milliseconds(text: str) -> None:
    result = CliRunner().invoke(forwarder, ["a", "b", "--delay", text])
    assert result.exit_code == 2
    assert "a delay of 61 s: 0 to 60 are possible" in " ".join(result.output.split())


def test_a_record_of_frames_reads_back(tmp_path: Path) -> None:
    path = tmp_path / "seen"
    data = bytes.fromhex("0100000000000000 0500000000000000 02000000 07000000 6a000000 01 01 0000")
    other = bytes.fromhex("0200000000000000 0900000000000000 00000000 00000000 2a000000 00 00 0000")
    path.write_bytes(data + other + data)
    assert list(read_seen(path))[:2] == [
        SeenFrame(1, "b", "data", 7, 2, 5, 106),
        SeenFrame(2, "a", "other", 0, 0, 9, 42),
    ]
    assert count_probe_packets(path) == {("b", 2, 5): 2}


def test_timelines_read_back_from_both_forms(tmp_path: Path) -> None:
    row = probe.TimelinePacket(3, "duplicate", 9, 100, 250)
    text = tmp_path / "t.csv"
    text.write_text("flow,class,seq,sent_ns,received_ns\n3,2,9,100,250\n")
    binary = tmp_path / "t.bin"
    binary.write_bytes(
        bytes.fromhex("03000000 02000000 0900000000000000 6400000000000000 fa00000000000000")
    )
    assert list(probe.read_timeline(text)) == list(probe.read_timeline(binary)) == [row]


def test_a_report_is_written_whole(tmp_path: Path) -> None:
    report: Any = {"run": 1, "sent_per_flow": [2]}
    probe.write_report(tmp_path / "report.json", report)
    assert json.loads((tmp_path / "report.json").read_text()) == report
    assert [file.name for file in tmp_path.iterdir()] == ["report.json"]
