"""`release_rate`: what was held goes at the rate that is set, unless there is no time for it."""

import time
from collections.abc import Callable

import pytest
from hsl_rig import patient
from numbered import Traffic, until

from flowferry.hsl import Agent, Client
from flowferry.testbed.bare import Chain

Build = Callable[..., Chain]
HELD = 600

both_shims = pytest.mark.parametrize("function", ["bridge", "forwarder"])


def hold(client: Client, traffic: Traffic) -> int:
    """Hold this many packets."""
    number = client.hold("udp", sides=["upstream"])
    traffic.send(HELD)
    until(lambda: client.holds()[-1]["captured_packets"] == HELD, "packets are held")
    return number


@both_shims
def test_a_release_keeps_to_its_rate(netns_chain: Build, function: str) -> None:
    chain = netns_chain(function=function, static_neighbours=True, steering=True)
    with (
        Agent(patient(chain, release_rate=1000)) as agent,
        agent.client() as client,
        Traffic(chain, flows=4) as traffic,
    ):
        number = hold(client, traffic)
        began = time.monotonic()
        client.release(number)
        ended = client.wait(number)
        # At the least, on any machine: the last of them is due then, but for what may go at once.
        assert time.monotonic() - began > 0.59
        assert (ended["state"], ended["released_packets"]) == ("done", HELD)
        traffic.settled(lost=0)


@both_shims
def test_an_agent_that_ends_lets_go_at_once(netns_chain: Build, function: str) -> None:
    """At the rate it would take ten minutes."""
    chain = netns_chain(function=function, static_neighbours=True, steering=True)
    with (
        Agent(patient(chain, release_rate=1)) as agent,
        agent.client() as client,
        Traffic(chain, flows=4) as traffic,
    ):
        hold(client, traffic)
        assert agent.stop()["lost_packets"] == 0
        traffic.settled(lost=0)
