"""A new user's way: `testbed up`, then commands that find the controller by its name."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hsl_pcap import until

from flowferry.testbed import Testbed, links
from flowferry.testbed.machine import Machine

MAIN = [sys.executable, "-c", "from flowferry.cli import main; main()"]


def flowferry(*words: str, status: int = 0, env: dict[str, str] | None = None) -> str:
    """Its output; stdout if it went well, stderr if not."""
    done = subprocess.run(
        [*MAIN, *words],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **(env or {})},
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout if status == 0 else done.stderr


def ask(*words: str) -> Any:
    return json.loads(flowferry(*words, "--json"))


@pytest.fixture(scope="module")
def name(run_name: Callable[[], str]) -> Iterator[str]:
    """A testbed with three instances, a controller, and one UDP flow that has been seen."""
    before, chosen = Machine.now(), run_name()
    up = ask("testbed", "up", "--name", chosen, "--instances", "3")
    assert up["controller"].startswith("http://127.0.0.1:")
    try:
        bed = Testbed.attach(chosen)
        bed.run("h1", ["ping", "-c2", "-i0.2", "-W5", bed.hosts["h2"].ip4])
        yield chosen
    finally:
        flowferry("testbed", "down", "--name", chosen)
    assert not dict(Machine.now().beyond(before, chosen))


def test_what_is_there(name: str) -> None:
    instances = ask("instances", "list", "--name", name)["instances"]
    assert [one["name"] for one in instances] == ["i1", "i2", "i3"]
    assert {one["state"] for one in instances} == {"active"}
    status = ask("controller", "status", "--name", name)
    assert status["name"] == name
    assert all(switch["connected"] and switch["ready"] for switch in status["switches"])
    assert "i2" in flowferry("instances", "list", "--name", name)
    flows = ask("flows", "list", "--name", name)
    assert any("icmp" in flow["flow"] and flow["instance"] == "i1" for flow in flows["flows"])


def test_a_flow_moves_and_comes_home(name: str) -> None:
    bed = Testbed.attach(name)
    there = ("--name", name)
    flow = f"icmp,nw_src={bed.hosts['h1'].ip4},nw_dst={bed.hosts['h2'].ip4}"
    assert ask("flows", "where", flow, *there)["instance"] == "i1"
    done = ask("move", "--match", "icmp", "--to", "i2", "--settling", "300", "--wait", *there)
    assert (done["state"], done["error"], done["strategy"]) == ("done", None, "direct")
    assert done["flows"] == 1
    assert (done["lost_packets"], done["controller_packets"]) == (0, 0)
    assert ask("flows", "where", flow, *there)["instance"] == "i2"
    bed.run("h1", ["ping", "-c2", "-i0.2", "-W5", bed.hosts["h2"].ip4])
    rules = ask("rules", "list", *there)["rules"]
    assert [(rule["match"], rule["to"]) for rule in rules if rule["priority"]] == [("icmp", "i2")]
    shown = flowferry("handovers", "show", str(done["id"]), *there)
    assert f"handover {done['id']} done: 1 flows" in shown
    assert "from i1 to i2" in shown

    again = ask("move", "--match", "icmp", "--to", "i2", "--wait", *there)
    assert (again["state"], again["flows"], again["captured_packets"]) == ("done", 0, 0)
    assert "no flow had to move" in flowferry("handovers", "show", str(again["id"]), *there)

    rule = next(rule["id"] for rule in rules if rule["match"] == "icmp")
    back = ask("rules", "remove", str(rule), "--wait", *there)
    assert back["state"] == "done"
    assert ask("flows", "where", flow, *there)["instance"] == "i1"
    assert len(ask("handovers", "list", *there)["handovers"]) >= 3


def test_an_instance_is_named_by_its_mac_or_its_port(name: str) -> None:
    there = ("--name", name)
    known = {one["name"]: one for one in ask("instances", "list", *there)["instances"]}
    i3 = next(one for one in Testbed.attach(name).instances if one.name == "i3")
    macs = [links.mac(i3.namespace, dev) for dev in (i3.up, i3.down)]
    port = str(known["i2"]["upstream_port"])
    for to, reached in ((macs[0], "i3"), (port, "i2"), (macs[1].upper(), "i3")):
        words = ("--match", "udp,tp_dst=10", "--settling", "300", "--wait")
        done = ask("move", *words, "--to", to, *there)
        assert (done["state"], done["to"]) == ("done", reached)
    rule = next(one for one in ask("rules", "list", *there)["rules"] if one["to"] == "i3")
    ask("rules", "remove", str(rule["id"]), "--wait", *there)


def test_an_instance_is_drained_and_forgotten(name: str) -> None:
    there = ("--name", name)
    flowferry(
        "move", "--match", "udp,tp_dst=9", "--to", "i3", "--settling", "300", "--wait", *there
    )
    refused = flowferry("instances", "remove", "i3", *there, status=1)
    assert "drain it first" in refused
    known = {one["name"]: one for one in ask("instances", "list", *there)["instances"]}["i3"]
    flowferry("instances", "drain", "i3", "--wait", *there)
    flowferry("instances", "remove", "i3", *there)
    names = [one["name"] for one in ask("instances", "list", *there)["instances"]]
    assert names == ["i1", "i2"]

    words = ["--id", str(known["id"]), "--peer", known["peer"]]
    for side in ("upstream", "downstream"):
        words += [f"--{side}-port", str(known[f"{side}_port"])]
    assert flowferry("instances", "add", "i3", *words, *there) == "instance i3 is known\n"
    refused = flowferry("instances", "add", "i3", *words, *there, status=1)
    assert "give another" in refused
    again = ("--match", "udp,tp_dst=9", "--to", "i3", "--settling", "300", "--wait")
    assert ask("move", *again, *there)["state"] == "done"


def test_a_rule_for_one_way_is_added_listed_and_removed(name: str) -> None:
    there = ("--name", name)
    words = ("--match", "udp,tp_dst=11", "--to", "i2", "--priority", "300", "--one-way", "--wait")
    done = ask("rules", "add", *words, *there)
    assert (done["state"], done["one_way"], done["priority"]) == ("done", True, 300)
    rule = next(one for one in ask("rules", "list", *there)["rules"] if one["priority"] == 300)
    assert (rule["id"], rule["to"], rule["one_way"]) == (done["rule"], "i2", True)
    assert "udp,tp_dst=11" in flowferry("rules", "list", *there)
    flowferry("rules", "remove", str(rule["id"]), "--wait", *there)
    assert rule["id"] not in [one["id"] for one in ask("rules", "list", *there)["rules"]]


def test_a_move_under_way_is_shown_as_it_stands_and_one_that_waits_is_called_off(name: str) -> None:
    there = ("--name", name)
    words = ("--match", "udp,tp_dst=12", "--to", "i2", "--settling", "15000")
    first, second = (ask("move", *words, *there) for _ in range(2))
    assert {first["state"], second["state"]} <= {"preparing", "turning", "fencing", "moving"}
    number = str(second["id"])
    assert "waits for an earlier" in flowferry("handovers", "show", number, *there)
    called_off = flowferry("handovers", "abort", number, *there)
    assert called_off == f"handover {number} aborted: called off by request\n"
    first_number = str(first["id"])

    def imported() -> bool:
        return "imported" in flowferry("handovers", "show", first_number, *there)

    until(imported, "the import")
    late = flowferry("handovers", "abort", first_number, *there, status=1)
    assert late.startswith(f"Error: handover {first_number} is moving: too late to call it off")
    assert late.count("\n") == 1
    assert ask("handovers", "show", number, *there)["state"] == "aborted"
    again = flowferry("handovers", "abort", number, *there, status=1)
    assert again == f"Error: handover {number} is over: aborted\n"
    over = ask("handovers", "show", first_number, "--wait", *there)
    assert (over["state"], over["error"]) == ("done", None)
    flowferry("rules", "remove", str(over["rule"]), "--wait", *there)


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["move", "--match", "udp", "--to", "i9"], 1, "i9"),
        (["move", "--match", "nonsense=1", "--to", "i2"], 1, "nonsense"),
        (["move", "--match", "udp", "--to", "i2", "--strategy", "magic"], 1, "magic"),
        (["move", "--match", "udp"], 2, "--to"),
        (["move", "--match", "udp", "--to", "i2", "--priority", "0"], 2, "0 is not in the range"),
        (["handovers", "show", "999"], 1, "999"),
        (["handovers", "abort", "999"], 1, "999"),
        (["rules", "remove", "999"], 1, "999"),
        (["instances", "drain", "i9"], 1, "i9"),
        (["flows", "where", "udp"], 1, "udp"),
        (["rules", "list", "--controller", "http://127.0.0.1:1"], 2, "either"),
    ],
)
def test_what_cannot_be_is_one_clear_line(
    name: str, words: list[str], status: int, said: str
) -> None:
    before = ask("rules", "list", "--name", name)
    error = flowferry(*words, "--name", name, status=status)
    assert said in error
    if status == 1:
        assert error.startswith("Error: ")
        assert error.count("\n") == 1
    assert ask("rules", "list", "--name", name) == before


def test_a_controller_is_found_by_its_url(name: str) -> None:
    url = ask("testbed", "status", "--name", name)["controller"]
    assert ask("rules", "list", "--controller", url)["rules"] is not None
    done = flowferry("rules", "list", "--json", env={"FLOWFERRY_CONTROLLER": url})
    assert "rules" in json.loads(done)
    error = flowferry("rules", "list", status=1, env={"FLOWFERRY_CONTROLLER": "http://127.0.0.1:1"})
    assert "no controller answers" in error
