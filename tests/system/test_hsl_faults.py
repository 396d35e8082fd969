"""Faults of the handover layer end as docs/design.md §7 says, the loss counted to the packet."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bpf_objects import alive, hanging, held_by
from hsl_rig import patient
from markers import key_file
from numbered import Traffic, until
from peers import Taker
from softnet import room

from flowferry.hsl import Agent, HslError
from flowferry.testbed import namespace
from flowferry.testbed.bare import Chain

Build = Callable[..., Chain]
SHIMS = ["bridge", "forwarder"]
TIMEOUT_MS = 300  # of the heartbeat where it is the subject: short, so that the tests are


def kept(agent: Agent) -> int:
    """Captured packets over both sides, by the programs' own counters."""
    with agent.client() as client:
        counters = client.status()["counters"]
    return sum(int(counters[side]["captured"]) for side in ("upstream", "downstream"))


def start(chain: Chain, **fields: Any) -> Agent:
    return Agent(patient(chain, **fields))


@pytest.mark.parametrize("function", SHIMS)
def test_traffic_goes_on_when_a_resting_agent_is_killed(netns_chain: Build, function: str) -> None:
    chain = netns_chain(function=function, static_neighbours=True)
    with start(chain) as agent, Traffic(chain, flows=3) as traffic:
        with traffic.keep_sending(2000):
            until(lambda: traffic.arrivals.total > 200, "traffic flows")
            agent.kill()
            before = traffic.arrivals.total
            until(lambda: traffic.arrivals.total > before + 400, "traffic flows without an agent")
            with start(chain) as successor, successor.client() as client:
                before = traffic.arrivals.total
                until(lambda: traffic.arrivals.total > before + 400, "traffic flows with the new")
                assert client.status()["takeover_lost_packets"] == 0
        traffic.settled(lost=0)


@pytest.mark.parametrize("function", SHIMS)
def test_agent_killed_in_a_capture_loses_what_it_held_and_its_successor_counts_it(
    netns_chain: Build, function: str
) -> None:
    chain = netns_chain(function=function, static_neighbours=True)
    with start(chain) as agent, Traffic(chain, flows=3) as traffic:
        traffic.send(90)
        traffic.settled(lost=0)
        with agent.client() as client:
            client.hold("udp")
        traffic.send(300)
        until(lambda: kept(agent) == 300, "300 packets are held")
        agent.kill()
        traffic.send(60)  # fails open
        traffic.settled(lost=300)
        with start(chain) as successor, successor.client() as client:
            assert client.status()["takeover_lost_packets"] == 300
            hold = client.hold("udp")
            traffic.send(30)
            client.release(hold)
            client.wait(hold)
            traffic.settled(lost=300)


def test_agent_killed_under_traffic_loses_only_what_is_counted(netns_chain: Build) -> None:
    chain = netns_chain(static_neighbours=True, steering=True)
    with room(), start(chain) as agent, Traffic(chain, flows=8) as traffic:
        with traffic.keep_sending(4000):
            until(lambda: traffic.arrivals.total > 200, "traffic flows")
            with agent.client() as client:
                client.hold("udp")
            until(lambda: kept(agent) > 400, "packets are held")
            agent.kill()
            before = traffic.arrivals.total
            until(lambda: traffic.arrivals.total > before + 400, "traffic flows without an agent")
        with start(chain) as successor, successor.client() as client:
            lost = client.status()["takeover_lost_packets"]
            assert lost > 400
            traffic.settled(lost=lost)


@pytest.mark.parametrize("function", SHIMS)
def test_stopped_agent_lets_traffic_on_and_never_replays(netns_chain: Build, function: str) -> None:
    chain = netns_chain(function=function, static_neighbours=True)
    with start(chain, heartbeat_timeout_ms=TIMEOUT_MS) as agent, Traffic(chain, flows=3) as traffic:
        with traffic.keep_sending(3000):
            until(lambda: traffic.arrivals.total > 200, "traffic flows")
            client = agent.client()
            hold = client.hold("udp")
            until(lambda: kept(agent) > 300, "packets are held")
            agent.suspend()
            before = traffic.arrivals.total
            until(lambda: traffic.arrivals.total > before + 400, "the programs fail open")
            agent.resume()
            ended = client.wait(hold)
            before = traffic.arrivals.total
            until(lambda: traffic.arrivals.total > before + 400, "traffic flows")
        assert ended["state"] == "aborted"
        assert "gone past" in ended["error"]
        status = client.status()
        assert status["lost_packets"] == ended["lost_packets"] > 300
        traffic.settled(lost=status["lost_packets"])
        hold = client.hold("udp")  # and it works again
        traffic.send(30)
        client.release(hold)
        assert client.wait(hold)["state"] == "done"
        traffic.settled(lost=status["lost_packets"])


def test_strays_under_way_while_the_agent_starts_over_are_not_counted_as_lost(
    netns_chain: Build, tmp_path: Path
) -> None:
    chain = netns_chain(static_neighbours=True)
    chain.run("nf", ["ip", "link", "set", "dev", "lo", "up"])
    file, keys = key_file(tmp_path)
    with (
        contextlib.closing(Taker(chain, keys, late=True)) as taker,
        start(chain, keys=[file], heartbeat_timeout_ms=TIMEOUT_MS) as agent,
        agent.client() as client,
        Traffic(chain, flows=2) as traffic,
    ):
        hold = client.hold("udp", role="stray", peer=taker.address, sides=["upstream"])
        traffic.send(20)
        until(lambda: client.holds()[0]["captured_packets"] == 20, "the strays are under way")
        agent.suspend()
        with traffic.keep_sending(500):
            until(lambda: traffic.arrivals.total > 0, "the programs fail open")
        agent.resume()
        lost = client.wait(hold)["lost_packets"]
        assert taker.total == 20
        assert client.status()["lost_packets"] == lost > 0
        traffic.settled(lost=20 + lost)


@pytest.mark.parametrize("function", SHIMS)
def test_agent_stopped_for_less_than_the_time_out_loses_nothing(
    netns_chain: Build, function: str
) -> None:
    chain = netns_chain(function=function, static_neighbours=True)
    config = patient(chain)
    with Agent(config) as agent, Traffic(chain) as traffic:
        client = agent.client()
        with traffic.keep_sending(3000):
            hold = client.hold("udp")
            until(lambda: kept(agent) > 100, "packets are held")
            agent.suspend()
            before = traffic.sent
            until(lambda: traffic.sent > before + 1000, "packets wait in the TAP")
            agent.resume()
            client.release(hold)
            assert client.wait(hold)["lost_packets"] == 0
        traffic.settled(lost=0)


@pytest.mark.parametrize("function", SHIMS)
def test_resting_agent_stopped_and_resumed_disturbs_nothing(
    netns_chain: Build, function: str
) -> None:
    chain = netns_chain(function=function, static_neighbours=True)
    with start(chain, heartbeat_timeout_ms=TIMEOUT_MS) as agent, Traffic(chain) as traffic:
        with traffic.keep_sending(2000):
            agent.suspend()
            time.sleep(3 * TIMEOUT_MS / 1e3)  # the fault itself: a stop longer than the time-out
            agent.resume()
            with agent.client() as client:
                assert client.status()["lost_packets"] == 0
                hold = client.hold("udp")
                client.release(hold)
                assert client.wait(hold)["state"] == "done"
        traffic.settled(lost=0)


@pytest.mark.parametrize("function", SHIMS)
def test_removed_tap_fails_open_and_is_made_anew(netns_chain: Build, function: str) -> None:
    chain = netns_chain(function=function, static_neighbours=True)
    with start(chain) as agent, Traffic(chain, flows=3) as traffic:
        client = agent.client()
        with traffic.keep_sending(3000):
            hold = client.hold("udp")
            until(lambda: kept(agent) > 300, "packets are held")
            chain.run("nf", ["ip", "link", "del", "dev", "ff1u"])
            ended = client.wait(hold)
            before = traffic.arrivals.total
            until(lambda: traffic.arrivals.total > before + 300, "traffic flows")
        assert ended["state"] == "aborted"
        lost = client.status()["lost_packets"]
        assert lost > 300
        traffic.settled(lost=lost)
        hold = client.hold("udp")
        traffic.send(100)
        until(lambda: client.holds()[-1]["captured_packets"] == 100, "the new TAP captures")
        client.release(hold)
        assert client.wait(hold)["lost_packets"] == 0
        traffic.settled(lost=lost)


@pytest.mark.parametrize("function", SHIMS)
@pytest.mark.parametrize("buffer_bytes", [16 << 10, 256 << 10])
def test_half_full_buffer_lets_the_hold_go_in_order(
    netns_chain: Build, buffer_bytes: int, function: str
) -> None:
    chain = netns_chain(function=function, static_neighbours=True)
    with start(chain, buffer_bytes=buffer_bytes) as agent, Traffic(chain, flows=3) as traffic:
        client = agent.client()
        hold = client.hold("udp")
        traffic.send(buffer_bytes // 40)
        ended = client.wait(hold)
        assert ended["state"] == "aborted"
        assert "half full" in ended["error"]
        assert "buffer_bytes" in ended["error"]
        assert ended["lost_packets"] == 0
        assert buffer_bytes / 4 < ended["captured_bytes_peak"] <= buffer_bytes
        traffic.settled(lost=0)
        assert client.status()["buffer"]["used"] == 0


@pytest.mark.parametrize("function", SHIMS)
def test_full_queue_to_a_stopped_agent_is_counted_to_the_packet(
    netns_chain: Build, function: str
) -> None:
    chain = netns_chain(function=function, static_neighbours=True)
    config = patient(chain)
    with Agent(config) as agent, Traffic(chain, flows=2) as traffic:
        chain.run("nf", ["ip", "link", "set", "dev", "ff1u", "txqueuelen", "500"])
        client = agent.client()
        hold = client.hold("udp")
        agent.suspend()
        traffic.send(2000)
        agent.resume()
        client.release(hold)
        ended = client.wait(hold)
        overflowed = client.status()["counters"]["upstream"]["overflowed"]
        assert ended["lost_packets"] == client.status()["lost_packets"] == overflowed == 1500
        traffic.settled(lost=1500)


def test_agents_replaced_under_traffic_lose_nothing(netns_chain: Build) -> None:
    chain = netns_chain(static_neighbours=True, steering=True)
    with room(), Traffic(chain, flows=5) as traffic:
        with traffic.keep_sending(3000):
            for _ in range(5):
                with start(chain) as agent, agent.client() as client:
                    client.hold("udp")
                    until(lambda agent=agent: kept(agent) > 50, "packets are held")  # type: ignore[misc]
                    assert agent.stop()["lost_packets"] == 0
        traffic.settled(lost=0)


def test_agent_ends_with_the_namespace_of_its_function(netns_chain: Build) -> None:
    chain = netns_chain(static_neighbours=True)
    with start(chain) as agent, Traffic(chain) as traffic:
        with agent.client() as client:
            client.hold("udp")
        traffic.send(200)
        until(lambda: kept(agent) == 200, "packets are held")
        namespace.remove(chain.namespaces["nf"])
        with pytest.raises(HslError, match="is gone, and the function with it"):
            agent.result()
        assert "200 packets lost and counted" in agent.said()


def delete_inner_device(chain: Chain) -> None:
    chain.run("nf", ["ip", "link", "del", "dev", "iup"])


def delete_namespace_of_the_function(chain: Chain) -> None:
    """Its processes first, or it would live on without a name; its devices go with it."""
    for pid in chain.run("nf", ["ip", "netns", "pids", chain.namespaces["fn"]]).stdout.split():
        os.kill(int(pid), signal.SIGKILL)
    namespace.remove(chain.namespaces["fn"])


@pytest.mark.parametrize("delete", [delete_inner_device, delete_namespace_of_the_function])
def test_agent_ends_with_the_function_behind_the_inner_pair(
    netns_chain: Build, delete: Callable[[Chain], None]
) -> None:
    chain = netns_chain(function="forwarder", static_neighbours=True)
    config = patient(chain)
    agent = Agent(config)
    with contextlib.ExitStack() as stack:
        stack.callback(agent.kill)
        traffic = stack.enter_context(Traffic(chain))
        with agent.client() as client:
            client.hold("udp")
        traffic.send(200)
        until(lambda: kept(agent) == 200, "packets are held")
        delete(chain)
        with pytest.raises(HslError, match=r"(iup|idown) not found"):
            agent.result()
        assert "200 packets lost and counted" in agent.said()


@pytest.mark.parametrize("function", SHIMS)
def test_packets_that_vanish_in_the_kernel_are_found_out_and_counted(
    netns_chain: Build, function: str
) -> None:
    chain = netns_chain(function=function, static_neighbours=True)
    config = patient(chain)
    with Agent(config) as agent, Traffic(chain, flows=2) as traffic, agent.client() as client:
        hold = client.hold("udp")
        agent.suspend()
        traffic.send(300)
        # A shorter queue: the kernel throws away what has no room in it, and tells nobody.
        chain.run("nf", ["ip", "link", "set", "dev", "ff1u", "txqueuelen", "100"])
        agent.resume()
        client.release(hold)
        ended = client.wait(hold)
        assert ended["lost_packets"] == client.status()["lost_packets"] == 200
        traffic.settled(lost=200)
        hold = client.hold("udp")
        traffic.send(50)
        client.release(hold)
        assert client.wait(hold)["lost_packets"] == 0
        traffic.settled(lost=200)


@pytest.mark.parametrize("function", SHIMS)
def test_filters_serve_where_the_kernel_has_no_links(netns_chain: Build, function: str) -> None:
    chain = netns_chain(function=function, static_neighbours=True)
    with Traffic(chain, flows=3) as traffic:
        with start(chain, attach="filter") as agent, agent.client() as client:
            hold = client.hold("udp")
            traffic.send(100)
            until(lambda: kept(agent) == 100, "packets are held")
            client.release(hold)
            client.wait(hold)
            traffic.settled(lost=0)
            hold = client.hold("udp")
            traffic.send(40)
            until(lambda: kept(agent) == 140, "packets are held")
            agent.kill()
        with start(chain, attach="filter") as agent, agent.client() as client:
            assert client.status()["takeover_lost_packets"] == 40
            traffic.send(10)
            traffic.settled(lost=40)
            shown = chain.run("nf", ["tc", "filter", "show", "dev", "up", "ingress"]).stdout
            assert shown.count("handle 0x821c") == 1
            client.stop(detach=True)
            agent.result()
        assert (
            "ff_ingress"
            not in chain.run("nf", ["tc", "filter", "show", "dev", "up", "ingress"]).stdout
        )


def test_agent_keeps_only_the_rights_it_needs(netns_chain: Build) -> None:
    with start(netns_chain()) as agent:
        status = Path(f"/proc/{agent.pid}/status").read_text()
        effective = next(line for line in status.splitlines() if line.startswith("CapEff"))
        net_admin, bpf = 12, 39
        assert int(effective.split()[1], 16) == 1 << net_admin | 1 << bpf


def test_two_agents_for_one_instance_are_one_too_many(netns_chain: Build) -> None:
    chain = netns_chain()
    with start(chain), pytest.raises(HslError, match="another agent stands in front"):
        start(chain)


def test_programs_and_pins_go_when_asked_to(netns_chain: Build) -> None:
    chain = netns_chain(static_neighbours=True)
    with start(chain) as agent, agent.client() as client:
        assert hanging(chain, "up") == 1
        objects = held_by(agent.pid)
        assert {"prog", "map"} <= {kind for kind, _ in alive(objects)}
        client.stop(detach=True)
        agent.result()
    assert hanging(chain, "up") == hanging(chain, "down") == 0
    assert list(Path(agent.config.pins).iterdir()) == []
    until(lambda: not alive(objects), lambda: f"the kernel forgets {alive(objects)}")
    with Traffic(chain) as traffic:
        traffic.send(10)
        traffic.settled(lost=0)


def test_garbage_and_nonsense_on_the_command_socket(netns_chain: Build) -> None:
    chain = netns_chain()
    with start(chain) as agent:
        for line in [
            b"\xff\x00garbage\n",
            b"{}\n",
            b'{"op":"hold"}\n',
            b'{"op":"hold","match":"x"}\n',
        ]:
            with agent.client() as client:
                client._socket.sendall(line)
                answer = client._line("nonsense")
                assert answer["ok"] is False
                assert answer["error"]
        with agent.client() as client:
            with pytest.raises(HslError, match="no hold 99"):
                client.release(99)
            with pytest.raises(HslError, match=r'"nw_src=10\.0\.0\.300" is no address'):
                client.hold("ip,nw_src=10.0.0.300")
            first = client.hold("udp,tp_dst=1")
            with pytest.raises(HslError, match=f"overlaps .* of hold {first}"):
                client.hold("udp")
            with pytest.raises(HslError, match="needs `peer`"):
                client.hold("tcp", role="stray")
            assert [hold["id"] for hold in client.holds()] == [first]


def test_command_socket_is_for_root_alone(netns_chain: Build) -> None:
    chain = netns_chain()
    with start(chain) as agent:
        mode = subprocess.run(
            ["stat", "-c", "%a", agent.config.socket], capture_output=True, text=True, check=True
        ).stdout.strip()
        assert mode == "600"
