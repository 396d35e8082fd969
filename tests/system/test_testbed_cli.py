"""`flowferry testbed` and `flowferry doctor` as a user meets them."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flowferry.testbed import Testbed, namespace

FLOWFERRY = str(Path(sys.executable).parent / "flowferry")


def flowferry(
    *words: str, status: int = 0, env: dict[str, str] | None = None
) -> "subprocess.CompletedProcess[str]":
    done = subprocess.run(
        [FLOWFERRY, *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, **(env or {})},
    )
    assert done.returncode == status, done.stderr
    return done


@pytest.fixture
def name(run_name: Callable[[], str]) -> Iterator[str]:
    one = run_name()
    yield one
    flowferry("testbed", "down", "--name", one)


def test_up_status_down(name: str) -> None:
    up = json.loads(flowferry("testbed", "up", "--name", name, "--no-controller", "--json").stdout)
    assert {"name", "namespaces", "hosts", "switches", "controller", "instances"} <= up.keys()
    assert up["namespaces"]["h1"] == f"{name}-h1"
    assert {"ip4", "ip6", "dev"} <= up["hosts"]["h1"].keys()
    assert [one["id"] for one in up["instances"]] == [1, 2]
    assert all(namespace.exists(ns) for ns in up["namespaces"].values())

    every = json.loads(flowferry("testbed", "status", "--json").stdout)
    assert every["testbeds"][name] == "up"
    one = json.loads(flowferry("testbed", "status", "--name", name, "--json").stdout)
    assert one["switches"]["ingress"]["counters"].keys() == {"h1", "i1-up", "i2-up"}
    assert len(one["switches"]["egress"]["entries"]) == 5
    assert all(process["alive"] for process in one["processes"])
    assert "ingress switch" in flowferry("testbed", "status", "--name", name).stdout

    down = json.loads(flowferry("testbed", "down", "--name", name, "--json").stdout)
    assert down == {"removed": [name]}
    again = json.loads(flowferry("testbed", "down", "--name", name, "--json").stdout)
    assert again == {"removed": []}


def test_a_healthy_testbed_is_no_remains_of_a_crash(name: str) -> None:
    flowferry("testbed", "up", "--name", name, "--instances", "1", "--no-controller")
    removed = json.loads(flowferry("testbed", "down", "--crashed", "--json").stdout)["removed"]
    assert name not in removed
    assert Testbed.attach(name).instances[0].name == "i1"


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (["up", "--mtu", "9000", "--ports", "afxdp"], 1, "use up to 1500, or --ports system"),
        (["up", "--name", "Not a name"], 1, "use up to 32 of a-z"),
        (["status", "--name", "not-there"], 1, "list them with 'flowferry testbed status'"),
        (["up", "--function", "nat"], 2, "is not one of"),
        (["up", "--function", "forwarder-direct"], 1, "add --no-controller"),
        (["up", "--tls", "--no-controller"], 1, "leave out --no-controller or --tls"),
        (["up", "--instances", "many"], 2, "not a valid integer"),
        (["up", "--instances", "0"], 2, "0 is not in the range"),
        (["sideways"], 2, "No such command"),
    ],
)
def test_errors_are_one_line_with_a_remedy(words: list[str], status: int, says: str) -> None:
    done = flowferry("testbed", *words, status=status)
    assert done.stdout == ""
    assert says in done.stderr
    if status == 1:
        assert done.stderr.startswith("Error: ")
        assert done.stderr.count("\n") == 1


def test_an_up_without_open_vswitch_says_so_and_leaves_nothing(
    run_name: Callable[[], str], tmp_path: Path
) -> None:
    name = run_name()
    done = flowferry("testbed", "up", "--name", name, status=1, env={"PATH": str(tmp_path)})
    assert "Open vSwitch is not installed" in done.stderr
    assert "make setup" in done.stderr
    assert not namespace.exists(f"{name}-h1")


def test_a_run_directory_that_cannot_be_written_is_named(run_name: Callable[[], str]) -> None:
    name = run_name()
    script = 'mount -t tmpfs -o ro none /run && exec "$0" "$@"'
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, FLOWFERRY, "testbed", "up", "--name", name],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    assert done.stderr == (
        f"Error: /run/flowferry/{name} cannot be made (Read-only file system);"
        " make /run writable, for instance by mounting a tmpfs there\n"
    )


def test_doctor_finds_this_machine_fit() -> None:
    found = json.loads(flowferry("doctor", "--json").stdout)
    assert found["ok"]
    assert "BTF" in flowferry("doctor").stdout


def test_doctor_names_what_is_missing(tmp_path: Path) -> None:
    done = flowferry("doctor", "--quiet", status=1, env={"PATH": str(tmp_path)})
    assert done.stderr.count("\n") == 1
    assert "Open vSwitch is not installed (ovsdb-server, " in done.stderr
