"""Whatever is held arrives byte for byte, in order within its flow and once."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
from frames_through import Through, kinds
from numbered import until

from flowferry.hsl import Agent, Client
from flowferry.hsl.wiring import config_for
from flowferry.testbed.bare import Chain

Build = Callable[..., Chain]
SHIMS = ["bridge", "forwarder"]
both_shims = pytest.mark.parametrize("function", SHIMS)
EACH = 6  # frames of a kind


def captured(client: Client, side: str = "upstream") -> int:
    """Packets captured so far, by the programs' own counters."""
    return int(client.status()["counters"][side]["captured"])


def silent(chain: Chain) -> Chain:
    """The same with hosts that say nothing by themselves: a hold's figures are then exact."""
    for role in ("h1", "h2"):
        chain.run(role, ["sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1"])
    return chain


def finish(client: Client, hold: int) -> dict[str, Any]:
    """Release; the figures of a hold that ended well."""
    client.release(hold)
    ended = client.wait(hold)
    assert (ended["state"], ended["lost_packets"], ended["error"]) == ("done", 0, None), ended
    return ended


@both_shims
@pytest.mark.parametrize("mtu", [1500, 9000])
def test_every_kind_of_frame_is_held_and_let_go_unchanged(
    netns_chain: Build, function: str, mtu: int
) -> None:
    chain = silent(netns_chain(function=function, mtu=mtu))
    with Agent(config_for(chain)) as agent, agent.client() as client, Through(chain) as through:
        builds = kinds(mtu)
        for flow, build in builds.items():  # the way without a hold, for comparison
            through.send(flow, build, range(EACH))
        through.got()
        before, arrived = captured(client), through.tap.total()
        hold = client.hold("*", sides=["upstream"])
        for number in range(EACH, 2 * EACH):  # the flows take turns
            for flow, build in builds.items():
                through.send(flow, build, [number])
        sent = EACH * len(builds)
        until(
            lambda: captured(client) == before + sent,
            lambda: f"{captured(client) - before} of {sent} captured",
            timeout=5.0,
        )
        through.tap.drained()
        assert through.tap.total() == arrived
        ended = finish(client, hold)
        assert ended["captured_packets"] == ended["released_packets"] == sent
        through.got()


@both_shims
def test_every_kind_of_frame_keeps_its_order_while_holds_come_and_go(
    netns_chain: Build, function: str
) -> None:
    chain = silent(netns_chain(function=function, mtu=9000))
    with Agent(config_for(chain)) as agent, agent.client() as client, Through(chain) as through:
        ends = threading.Event()

        def keep_sending() -> None:
            for number in range(250):
                if ends.wait(0.002):
                    return
                for flow, build in kinds(9000).items():
                    through.send(flow, build, [number])

        sender = threading.Thread(target=keep_sending)
        sender.start()
        try:
            for _ in range(10):
                before = captured(client)
                hold = client.hold("*", sides=["upstream"])
                until(lambda before=before: captured(client) > before + 50, "packets are held")  # type: ignore[misc]
                finish(client, hold)
        finally:
            ends.set()
            sender.join()
        through.got()
