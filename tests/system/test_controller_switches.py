"""The controller and real switches: its entries, other people's, restarts, refusals."""

import json
import re
import socket
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pytest
from hsl_pcap import until
from pings import pinging, whole

from flowferry.controller import Client, ControllerError, Platform
from flowferry.testbed import Testbed, links, namespace

OURS = 0xF10FE << 44
Platforms = Callable[..., Platform]


@pytest.fixture
def platform(testbed: Callable[..., Testbed]) -> Iterator[Platforms]:
    """Build deployments whose moves ask no agent: `p = platform(instances=2)`."""
    made = []

    def build(*, instances: int = 2, **fields: Any) -> Platform:
        fields = {"strategy": "reroute", **fields}
        one = Platform(testbed(instances=instances), **fields).up()
        made.append(one)
        return one

    yield build
    for one in reversed(made):
        one.__exit__(None, None, None)


def ofctl(bed: Testbed, switch: str, command: str, *words: str) -> str:
    target = bed.switches[switch].management
    done = bed.owner.run(None, ["ovs-ofctl", "-O", "OpenFlow13", command, target, *words])
    return done.stdout


def vsctl(bed: Testbed, *words: str) -> None:
    bed.owner.run(None, ["ovs-vsctl", f"--db={bed.ovs.database}", *words])


def entries(bed: Testbed, switch: str, *, ours: bool = True) -> dict[str, int]:
    """Match and actions of entries, with their packets."""
    found = {}
    for line in bed.ovs.dump_entries(switch):
        cookie = int(re.search(r"cookie=(0x[0-9a-f]+)", line)[1], 16)  # type: ignore[index]
        packets = int(re.search(r"n_packets=(\d+)", line)[1])  # type: ignore[index]
        what = re.sub(r"(cookie|duration|n_packets|n_bytes)=\S+ ?", "", line)
        if (cookie >> 44 == OURS >> 44) == ours:
            found[what] = packets
    return found


def ready(client: Client) -> bool:
    return all(switch["ready"] for switch in client.switches())


@contextmanager
def away(platform: Platform, switch: str) -> Iterator[None]:
    """A switch loses its controller for the block, and has it again when this returns.

    Without any controller set, Open vSwitch would throw all its entries away.
    """
    platform.bed.ovs.set_controller([platform.bed.switches[switch]], "tcp:127.0.0.1:9")
    until(lambda: not ready(platform.client), "the switch to be away")
    yield
    platform.bed.ovs.set_controller([platform.bed.switches[switch]], "tcp:127.0.0.1:6653")
    until(lambda: ready(platform.client), "the switch to be back")


def test_rules_move_packets_on_both_switches(platform: Platforms) -> None:
    up = platform()
    assert up.client.move("udp,tp_dst=7000", "i2", wait=True)["state"] == "done"
    assert any("tp_dst=7000" in what for what in entries(up.bed, "ingress"))
    assert any("tp_src=7000" in what for what in entries(up.bed, "egress"))
    assert up.client.move("icmp", "i2", one_way=True, wait=True)["state"] == "done"
    assert any("icmp" in what for what in entries(up.bed, "ingress"))
    assert not any("icmp" in what for what in entries(up.bed, "egress"))
    up.bed.run("h1", ["ping", "-c", "3", "-i", "0.05", up.bed.hosts["h2"].ip4])
    ways = {
        p: c.tx_packets for p, c in up.bed.ovs.port_counters(up.bed.switches["ingress"]).items()
    }
    assert (ways["i2-up"] or 0) >= 3


def test_a_move_to_where_the_flows_are_touches_nothing(platform: Platforms) -> None:
    up = platform()
    before = set(entries(up.bed, "ingress"))
    done = up.client.move("udp", "i1", wait=True)
    assert (done["state"], done["flows"], done["error"]) == ("done", 0, None)
    assert set(entries(up.bed, "ingress")) == before
    assert [rule["id"] for rule in up.client.rules()] == [0]


FOREIGN = [
    "cookie=0x77,table=0,priority=5,in_port=11,dl_vlan=9,actions=drop",
    "cookie=0x77,table=0,priority=64100,in_port=50,actions=output:51",
    "cookie=0x77,table=10,priority=3,arp,actions=drop",
    "cookie=0x77,table=200,priority=9,udp,actions=output:1",
    "cookie=0xf10fe0001,table=201,actions=drop",
]


def test_other_peoples_entries_stay(platform: Platforms) -> None:
    up = platform()
    for entry in FOREIGN:
        ofctl(up.bed, "ingress", "add-flow", entry)
    before = set(entries(up.bed, "ingress", ours=False))
    assert len(before) == len(FOREIGN)
    up.client.move("udp,tp_dst=7000", "i2", wait=True)
    with away(up, "ingress"):
        pass
    up.client.remove_rule(1, wait=True)
    up.controller.kill()
    up.controller.restart()
    until(lambda: ready(up.client), "the switches to be back")
    assert set(entries(up.bed, "ingress", ours=False)) == before


def test_other_peoples_packets_flow_on(platform: Platforms) -> None:
    """Two of their hosts at ports of their own of the switch that the moves turn."""
    up = platform(strategy="direct", settling_ms=300)
    bed, run = up.bed, up.bed.owner
    hosts = {"x1": (50, "10.9.0.1"), "x2": (51, "10.9.0.2")}
    for role, (port, address) in hosts.items():
        theirs = run.namespace(role)
        links.veth(links.End(theirs, "eth0"), links.End(bed.namespaces["sw"], role))
        links.offloads_off(theirs, "eth0")
        links.address(theirs, "eth0", f"{address}/24")
        vsctl(bed, "add-port", "ingress", role, "--", "set", "Interface", role,
              f"ofport_request={port}")  # fmt: skip
        there = next(other for other, _ in hosts.values() if other != port)
        entry = f"cookie=0x77,table=0,priority=1,in_port={port},actions=output:{there}"
        ofctl(bed, "ingress", "add-flow", entry)

    def start(argv: list[str], out: IO[str]) -> "subprocess.Popen[str]":
        space = f"{bed.name}-x1"
        return namespace.call(space, lambda: subprocess.Popen(argv, stdout=out, text=True))

    with pinging(start, "-i", "0.002", "10.9.0.2") as answered:
        for to in ("i2", "i1"):
            assert up.client.move("*", to, wait=True)["state"] == "done"
        with away(up, "ingress"):
            pass
        up.controller.kill()
        up.controller.restart()
        until(lambda: ready(up.client), "the switches to be back")
        assert up.client.move("*", "i2", wait=True)["state"] == "done"
    whole(answered, 50)
    sent = len(answered)
    # Open vSwitch adds to these counters now and then; an entry that had gone would begin anew.
    until(
        lambda: [n >= sent for n in entries(bed, "ingress", ours=False).values()] == [True, True],
        "all of it in their entries' counters",
    )
    assert sum(switch["errors"] for switch in up.client.switches()) == 0


def test_a_switch_that_comes_back_gets_what_it_lacks_and_keeps_the_rest(
    platform: Platforms,
) -> None:
    up = platform()
    up.client.move("udp,tp_dst=7000", "i2", wait=True)
    wanted = set(entries(up.bed, "ingress"))
    up.bed.run("h1", ["ping", "-c", "3", "-i", "0.05", up.bed.hosts["h2"].ip4])
    counted = {what: n for what, n in entries(up.bed, "ingress").items() if n}
    assert counted
    stale = f"cookie={OURS | 4 << 32 | 99:#x},table=10,priority=77,udp,tp_dst=9,actions=output:12"
    with away(up, "ingress"):
        ofctl(up.bed, "ingress", "add-flow", stale)
        ofctl(up.bed, "ingress", "del-flows", "table=10,udp,tp_dst=7000")
    after = entries(up.bed, "ingress")
    assert set(after) == wanted
    # An entry that is put in again begins to count anew.
    assert all(after[what] >= n for what, n in counted.items())


def test_no_packet_is_lost_while_a_switch_and_the_controller_come_and_go(
    platform: Platforms,
) -> None:
    up = platform()

    def start(argv: list[str], out: IO[str]) -> "subprocess.Popen[str]":
        return up.bed.popen("h1", argv, stdout=out, text=True)

    # A port keeps some 270 of them while a switch gets no CPU.
    with pinging(start, "-i", "0.01", up.bed.hosts["h2"].ip4) as answered:
        with away(up, "ingress"):
            pass
        with away(up, "egress"):
            pass
        up.controller.kill()
        up.controller.restart()
        until(lambda: ready(up.client), "the switches to be back")
    whole(answered, 10)


def test_a_switch_that_refuses_an_entry_leaves_all_as_it_was(platform: Platforms) -> None:
    up = platform()
    room = len([what for what in entries(up.bed, "egress") if "table=10" in what])
    assert room == 0
    full = "@t", "create", "Flow_Table", "flow_limit=1", "overflow_policy=refuse"
    vsctl(up.bed, "--", f"--id={full[0]}", *full[1:], "--", "set", "Bridge", "egress",
          "flow_tables:11=@t")  # fmt: skip
    before = {switch: set(entries(up.bed, switch)) for switch in up.bed.switches}
    ended = up.client.move("udp,tp_dst=7000", "i2", wait=True)
    assert ended["state"] == "aborted"
    assert "the table is full" in ended["error"]
    assert {switch: set(entries(up.bed, switch)) for switch in up.bed.switches} == before
    assert [rule["id"] for rule in up.client.rules()] == [0]


def test_an_instance_at_an_impossible_port_is_refused(platform: Platforms) -> None:
    up = platform()
    before = set(entries(up.bed, "ingress"))
    with pytest.raises(ControllerError, match="give ports that the switches have"):
        up.client.add_instance(
            name="i9", id=9, upstream_port=70000, downstream_port=19, peer="172.31.0.9:7001"
        )
    assert set(entries(up.bed, "ingress")) == before
    assert [one["name"] for one in up.client.instances()] == ["i1", "i2"]


@pytest.mark.parametrize("step", ["before-turning", "turning"])
def test_a_killed_controller_goes_on_where_it_was(platform: Platforms, step: str) -> None:
    up = platform(failpoint=f"{step}:kill")
    with pytest.raises(ControllerError):
        up.client.move("udp,tp_dst=7000", "i2", wait=True)
    up.controller.process.wait(timeout=10)
    without = up.controller.config.read_text().replace(f"failpoint: {step}:kill\n", "")
    up.controller.config.write_text(without)
    up.controller.restart()
    ended = up.client.wait(1, 30)
    rules = [rule["match"] for rule in up.client.rules()]
    if step == "turning":
        assert (ended["state"], rules) == ("done", ["udp,tp_dst=7000", "*"])
        assert any("restarted" in line["text"] for line in ended["timeline"])
        assert any("tp_dst=7000" in what for what in entries(up.bed, "ingress"))
    else:
        assert (ended["state"], rules) == ("aborted", ["*"])
    assert up.client.move("tcp", "i2", wait=True)["id"] == 2


def test_a_drained_instance_serves_nothing_and_can_go(platform: Platforms) -> None:
    up = platform()
    up.client.move("udp,tp_dst=7000", "i1", priority=7, wait=True)
    with pytest.raises(ControllerError, match="instances drain i1"):
        up.client.remove_instance("i1")


def test_noise_and_other_versions_at_the_port_do_no_harm(platform: Platforms) -> None:
    up = platform()

    def connect() -> socket.socket:
        return socket.create_connection(("127.0.0.1", 6653), 5)

    for noise in (
        b"GET / HTTP/1.1\r\n\r\n" * 40,
        bytes(8),
        bytes.fromhex("0100000800000001") + bytes(64),  # OpenFlow 1.0
        bytes.fromhex("0400000800000001") + bytes.fromhex("040dffff00000002") + bytes(3),
    ):
        with namespace.call(up.bed.namespaces["sw"], connect) as stranger:
            stranger.sendall(noise)
            stranger.shutdown(socket.SHUT_WR)
            while stranger.recv(4096):
                pass
    assert ready(up.client)
    assert up.client.move("udp", "i2", wait=True)["state"] == "done"


def test_it_keeps_no_capability(platform: Platforms) -> None:
    up = platform()
    status = Path(f"/proc/{up.controller.pid}/status").read_text()
    found = dict(re.findall(r"^(Cap\w+):\t(\w+)$", status, re.MULTILINE))
    assert {int(mask, 16) for mask in found.values()} == {0}
    assert up.client.move("udp", "i2", wait=True)["state"] == "done"


def test_metrics_and_description_are_served(platform: Platforms) -> None:
    up = platform()
    up.client.move("udp", "i2", wait=True)
    with urllib.request.urlopen(f"{up.controller.url}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    assert 'flowferry_handovers_total{state="done",strategy="reroute"} 1.0' in text
    assert "flowferry_switches_connected 2.0" in text
    with urllib.request.urlopen(f"{up.controller.url}/v1/openapi.json", timeout=10) as answer:
        assert "/v1/handovers" in json.load(answer)["paths"]
