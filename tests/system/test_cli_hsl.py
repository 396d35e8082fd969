"""`flowferry hsl` with a real agent: every command, for people and as JSON."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hsl_rig import patient

from flowferry.hsl import Agent
from flowferry.hsl.wiring import config_for
from flowferry.testbed import Chain, Testbed

FLOWFERRY = [sys.executable, "-c", "from flowferry.cli import main; main()"]


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*FLOWFERRY, "hsl", *arguments], capture_output=True, text=True, timeout=60
    )


class Rig:
    """A chain, its agent, and commands to it."""

    def __init__(self, chain: Chain) -> None:
        self.chain = chain
        self.where = ["--name", chain.name]

    def ask(self, *arguments: str) -> dict[str, Any]:
        done = run(*arguments, *self.where, "--json")
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        found = json.loads(done.stdout)
        assert isinstance(found, dict)
        return found

    def say(self, *arguments: str) -> str:
        done = run(*arguments, *self.where)
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        return done.stdout

    def ping(self) -> "subprocess.Popen[str]":
        """Ten pings, 20 ms apart; captured ones are answered late."""
        ip4 = self.chain.hosts["h2"].ip4
        return self.chain.popen(
            "h1", ["ping", "-c10", "-i0.02", "-W60", ip4], stdout=subprocess.PIPE, text=True
        )


@pytest.fixture
def rig(netns_chain: Callable[..., Chain]) -> Iterator[Rig]:
    chain = netns_chain(static_neighbours=True)
    with Agent(patient(chain)):
        yield Rig(chain)


def test_hold_release_wait(rig: Rig) -> None:
    assert rig.ask("hold", "icmp", "--side", "upstream", "--id", "7") == {"id": 7}
    ping = rig.ping()
    figures: dict[str, Any] = {"captured_packets": 0}
    while figures["captured_packets"] < 10:  # the test's own time-out is the deadline
        (figures,) = rig.ask("holds")["holds"]
    assert (figures["state"], figures["sides"]) == ("holding", ["upstream"])
    assert figures["kept_bytes"] > 0
    assert "holding" in rig.say("holds")
    assert rig.ask("release", "7") == {"id": 7, "flow": None}
    ended = rig.ask("wait", "7")
    assert (ended["state"], ended["released_packets"], ended["lost_packets"]) == ("done", 10, 0)
    output, _ = ping.communicate(timeout=70)
    assert "10 packets transmitted, 10 received" in output
    assert "done" in rig.say("wait", "7")
    assert rig.ask("forget") == {}
    assert rig.ask("holds") == {"holds": []}
    assert rig.say("holds") == "no holds\n"


def test_status_and_flows_after_traffic(rig: Rig) -> None:
    rig.ping().communicate(timeout=10)
    status = rig.ask("status")
    assert status["instance"] == {"name": "nf", "id": 1}
    assert status["lost_packets"] == 0
    text = rig.say("status")
    assert "nf (id 1), kernel shim" in text
    assert "fast path" in text
    found = rig.ask("flows", "--limit", "1")
    (busiest,) = found["flows"]
    assert busiest["packets"] == 10
    assert busiest["flow"] in rig.say("flows")
    assert rig.ask("disown", busiest["flow"]) == {"flow": busiest["flow"]}
    left = rig.ask("flows")["flows"]
    assert busiest["flow"] not in [each["flow"] for each in left]


def test_a_hold_takes_another_role(rig: Rig) -> None:
    rig.ask("hold", "udp")
    assert rig.ask("turn", "1", "arm") == {"id": 1, "role": "arm"}
    (found,) = rig.ask("holds")["holds"]
    assert found["role"] == "arm"


def test_abort_is_said_and_is_status_1(rig: Rig) -> None:
    rig.ask("hold", "*", "--except", "tcp")
    assert rig.ask("abort", "1", "--why", "changed my mind") == {"id": 1}
    done = run("wait", "1", *rig.where, "--json")
    assert (done.returncode, json.loads(done.stdout)["state"]) == (1, "aborted")
    assert done.stderr == "Error: hold 1 was aborted: changed my mind\n"


def test_what_the_agent_refuses_is_one_line(rig: Rig) -> None:
    for arguments in (["release", "9"], ["wait", "9"], ["disown", "udp"]):
        done = run(*arguments, *rig.where)
        assert (done.returncode, done.stdout) == (1, "")
        assert len(done.stderr.splitlines()) == 1


def test_alias_and_flush(rig: Rig) -> None:
    inside = "udp,nw_src=10.0.0.1,nw_dst=10.0.0.2,tp_src=1,tp_dst=2"
    outside = "udp,nw_src=192.0.2.1,nw_dst=10.0.0.2,tp_src=9,tp_dst=2"
    assert rig.ask("alias", inside, outside) == {"upstream": inside, "downstream": outside}
    assert rig.ask("unalias", inside) == {"upstream": inside}
    flushed = rig.ask("flush", "downstream")
    assert (flushed["side"], flushed["cpus"]) == ("downstream", os.cpu_count())


def test_events_are_one_object_a_line(rig: Rig) -> None:
    events = subprocess.Popen(
        [*FLOWFERRY, "hsl", "events", *rig.where, "--json"], stdout=subprocess.PIPE, text=True
    )
    assert events.stdout is not None
    # It listens from some instant on; until then nobody has heard of the holds.
    number, first = 1, ""
    os.set_blocking(events.stdout.fileno(), False)
    while not first:
        rig.ask("hold", "*", "--id", str(number))
        rig.ask("release", str(number))
        rig.ask("wait", str(number))
        first = events.stdout.readline()
        number += 1
    assert json.loads(first)["event"] == "hold"
    events.send_signal(signal.SIGINT)
    events.communicate(timeout=10)
    assert events.returncode == 0


def test_stop_ends_the_agent_and_can_take_the_programs_off(
    netns_chain: Callable[..., Chain],
) -> None:
    chain = netns_chain()
    config = config_for(chain)
    for detach in (False, True):
        with Agent(config) as agent:
            options = ["--detach"] if detach else []
            done = run("stop", "--name", chain.name, "--json", *options)
            assert json.loads(done.stdout) == {"detach": detach}
            agent.result()
            assert Path(config.pins).exists()
            assert any(Path(config.pins).iterdir()) != detach


def foreground(*arguments: str) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [*FLOWFERRY, "hsl", "run", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line == "ready\n":
            return process
    process.communicate()
    raise AssertionError("the agent never was ready")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_run_in_the_foreground_from_a_file(
    netns_chain: Callable[..., Chain], tmp_path: Path, number: signal.Signals
) -> None:
    chain = netns_chain(function="forwarder")
    file = tmp_path / "hsl.yaml"
    file.write_text(yaml.safe_dump(json.loads(config_for(chain).to_json())))
    process = foreground("--config", str(file), "--json")
    where = ["--socket", config_for(chain).socket]
    assert json.loads(run("status", *where, "--json").stdout)["shim"] == "veth"
    process.send_signal(number)
    output, error = process.communicate(timeout=20)
    assert (process.returncode, error) == (0, "")
    assert json.loads(output)["instance"]["name"] == "nf"


def test_run_for_an_instance_of_a_testbed(testbed: Callable[..., Testbed]) -> None:
    bed = testbed(instances=2)
    without = run("run", "--name", bed.name)
    assert (without.returncode, without.stdout) == (1, "")
    assert "choose one of i1, i2" in without.stderr
    none = run("status", "--name", bed.name)
    assert "start one with 'flowferry hsl run --name" in none.stderr
    agents = [foreground("--name", bed.name, "--instance", one) for one in ("i1", "i2")]
    several = run("status", "--name", bed.name)
    assert "choose --instance i1, i2" in several.stderr
    done = run("status", "--name", bed.name, "--instance", "i2", "--json")
    assert json.loads(done.stdout)["instance"] == {"name": "i2", "id": 2}
    for agent in agents:
        agent.terminate()
        output, _ = agent.communicate(timeout=20)
        assert "nothing" in output


def test_run_says_one_line_when_the_interfaces_are_not_there(
    netns_chain: Callable[..., Chain], tmp_path: Path
) -> None:
    chain = netns_chain()
    settings = json.loads(config_for(chain).to_json())
    settings["interfaces"]["upstream"] = "nosuch"
    file = tmp_path / "hsl.yaml"
    file.write_text(yaml.safe_dump(settings))
    done = run("run", "--config", str(file))
    assert (done.returncode, done.stdout) == (1, "")
    assert "nosuch" in done.stderr.splitlines()[-1]
