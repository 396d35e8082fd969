"""The programs' tables: taken over only where understood, and more flows than they hold."""

from collections.abc import Callable
from pathlib import Path

import pytest
from bpf_objects import hanging
from cpus import on_one_cpu
from hsl_rig import patient
from numbered import Traffic, until

from flowferry.hsl import Agent, Client
from flowferry.testbed.bare import Chain

Build = Callable[..., Chain]
SHIMS = ["bridge", "forwarder"]
TABLE = 64  # the smallest that may be configured
FLOWS = 8 * TABLE


def counter(client: Client, name: str) -> int:
    """A counter of the programs, over both sides."""
    return sum(int(side[name]) for side in client.status()["counters"].values())


@pytest.mark.parametrize("function", SHIMS)
def test_pins_of_another_version_are_replaced_and_traffic_goes_on(
    netns_chain: Build, function: str
) -> None:
    chain = netns_chain(function=function, static_neighbours=True)
    config = patient(chain)
    with Traffic(chain, flows=3) as traffic:
        with Agent(config) as agent, traffic.keep_sending(2000):
            until(lambda: traffic.arrivals.total > 200, "traffic flows")
            agent.kill()
            (own,) = Path(config.pins).iterdir()
            own.rename(own.with_name("v1"))
            with Agent(config) as successor, successor.client() as client:
                assert "of another version or `table_size`" in successor.said()
                assert client.status()["takeover_lost_packets"] is None
                assert list(Path(config.pins).iterdir()) == [own]
                assert [hanging(chain, dev) for dev in ("up", "down")] == [1, 1]
                hold = client.hold("udp")
                until(lambda: counter(client, "captured") > 200, "packets are held")
                client.release(hold)
                assert client.wait(hold)["lost_packets"] == 0
        traffic.settled(lost=0)


@pytest.mark.parametrize("function", SHIMS)
def test_what_was_held_is_counted_when_the_tables_get_another_size(
    netns_chain: Build, function: str
) -> None:
    chain = netns_chain(function=function, static_neighbours=True)
    with (
        Traffic(chain, flows=3) as traffic,
        Agent(patient(chain)) as agent,
        agent.client() as client,
    ):
        client.hold("udp")
        traffic.send(100)
        until(lambda: counter(client, "captured") == 100, "packets are held")
        agent.kill()
        with Agent(patient(chain, table_size=TABLE)) as successor, successor.client() as new:
            assert "100 packets that it held are lost" in successor.said()
            status = new.status()
            assert status["takeover_lost_packets"] == status["lost_packets"] == 100
            traffic.send(50)
            traffic.settled(lost=100)


def test_another_size_of_the_tables_is_another_layout(netns_chain: Build) -> None:
    chain = netns_chain(static_neighbours=True)
    with Agent(patient(chain)):
        pass
    with Agent(patient(chain, table_size=TABLE)) as agent, agent.client() as client:
        assert "of another version or `table_size`" in agent.said()
        with Traffic(chain, flows=FLOWS) as traffic:
            traffic.send(FLOWS)
            traffic.settled(lost=0)
            assert 0 < len(client.flows(FLOWS)) <= TABLE


@pytest.mark.parametrize("function", SHIMS)
def test_flows_pushed_out_of_the_accounts_lose_nothing_and_count_anew(
    netns_chain: Build, function: str
) -> None:
    chain = netns_chain(function=function, static_neighbours=True)
    with (
        Agent(patient(chain, table_size=TABLE)) as agent,
        agent.client() as client,
        Traffic(chain, flows=FLOWS) as traffic,
    ):
        with on_one_cpu():  # each CPU keeps some of its own latest flows
            for _ in range(3):
                traffic.send(FLOWS)
        traffic.settled(lost=0)
        flows = client.flows(FLOWS)
        assert 0 < len(flows) <= TABLE
        latest = f"tp_src={6000 + FLOWS - 1}"
        assert any(latest in flow["flow"] for flow in flows)
        assert max(flow["packets"] for flow in flows) < 3
        assert counter(client, "table_full") == 0


@pytest.mark.parametrize("function", SHIMS)
def test_more_flows_than_can_be_held_are_let_go_in_order(netns_chain: Build, function: str) -> None:
    chain = netns_chain(function=function, static_neighbours=True)
    config = patient(chain, table_size=TABLE, heartbeat_timeout_ms=600_000)
    with (
        Agent(config) as agent,
        agent.client() as client,
        Traffic(chain, flows=2 * TABLE) as traffic,
    ):
        hold = client.hold("udp")
        agent.suspend()  # so that none goes before all have come
        for _ in range(3):
            traffic.send(2 * TABLE)
        agent.resume()
        ended = client.wait(hold)
        assert ended["state"] == "aborted"
        assert "raise `table_size`" in ended["error"]
        assert ended["lost_packets"] == 0
        assert ended["captured_packets"] == counter(client, "table_full") == 3 * TABLE
        traffic.settled(lost=0)
        hold = client.hold("udp,tp_src=6000")
        traffic.send(2 * TABLE)
        client.release(hold)
        assert client.wait(hold)["state"] == "done"
        traffic.settled(lost=0)
