"""Slow links: where order behind the functions holds, and where docs/direct.md says it need not.

While flows move, other traffic keeps a queue at one place: of some ten milliseconds in front of the
instances or behind the far switch, where it holds back all packets of a flow alike; or of some
hundred behind one instance, so that what that one let out waits longer than the fence takes.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from handover_rig import Bed, Echo
from hsl_pcap import until

from flowferry.controller import Platform
from flowferry.testbed import Testbed, links, shaping

#: Mbit/s of the slow link, where it is slower than a fence, and what fills it to 80 %, by bursts of
#: 60 frames: 16 ms of every 20 and 240 ms of every 300. A switch lets some 90 frames wait.
LINK, SLOWER = 30.0, 2.0
FILLER: dict[str, Any] = {"frame": 1000, "segments": 60, "echo": False}
FLOWS = 4
#: Delay that shows that a queue stood: what a tenth of the packets had at least, ns.
STOOD = 3_000_000


@contextmanager
def slow(testbed: Bed, *slow: tuple[str, str], mbit: float = LINK) -> Iterator[Platform]:
    """A deployment some of whose devices send slowly; namespaces by role."""
    bed = testbed(instances=2, steering=True)
    for role, dev in slow:
        shaping.limit(bed.namespaces[role], dev, mbit, mtu=bed.options.transit_mtu, queue=0.5)
    # What waits in a queue may leave it on any CPU: the next device has to be steered.
    behind = [f"{one.name}-down" for one in bed.instances]
    links.steer(bed.namespaces["sw"], behind, on=True)
    with Platform(bed, settling_ms=500) as platform:
        for address in (bed.hosts["h2"].ip4, bed.hosts["h2"].ip6):
            bed.run("h1", ["ping", "-c1", "-W5", address])
        with Echo(
            bed, flows=1, to=bed.hosts["h2"].ip6, rate=mbit * 100, **FILLER
        ):  # IPv6: it stays at i1
            yield platform


def steady(bed: Testbed, *, mbit: float = LINK) -> Echo:
    """What moves: 7 % of the slow link."""
    return Echo(bed, flows=FLOWS, rate=mbit * 100, to=bed.hosts["h2"].ip4, echo=False)


def move(platform: Platform, echo: Echo, to: str) -> None:
    done = platform.client.move("udp", to, wait=True)
    assert (done["state"], done["error"], done["flags"]) == ("done", None, []), done
    assert (done["flows"], done["lost_packets"]) == (FLOWS, 0)
    so_far = echo.arrived.packets
    until(lambda: echo.arrived.packets >= so_far + 200, "more traffic")


@pytest.mark.parametrize(
    "where",
    [[("sw", "i1-up"), ("sw", "i2-up")], [("sw", "h2")]],
    ids=["in front of the instances", "behind the far switch"],
)
def test_order_holds_where_one_queue_holds_back_all_of_a_flow(
    testbed: Bed, where: list[tuple[str, str]]
) -> None:
    with slow(testbed, *where) as platform, steady(platform.bed) as echo:
        for number in range(6):
            move(platform, echo, f"i{2 - number % 2}")
    delay = echo.there["delay_ns"]
    assert delay is not None
    assert delay["p90"] > STOOD
    assert (echo.there["reordered"], echo.there["duplicated"]) == (0, 0)


def waiting(bed: Testbed) -> float:
    """Seconds of the slower link's time that wait to leave i1 for the far switch."""
    shown = bed.run("i1", ["tc", "-s", "-j", "qdisc", "show", "dev", "down"]).stdout
    backlog: int = json.loads(shown)[0]["backlog"]
    return backlog * 8 / (SLOWER * 1e6)


def test_behind_one_slow_instance_packets_are_overtaken_but_not_lost(testbed: Bed) -> None:
    """The limit that is documented. Towards the slow instance all is in order."""
    with slow(testbed, ("i1", "down"), mbit=SLOWER) as platform:
        bed = platform.bed
        for _ in range(10):
            with steady(bed, mbit=SLOWER) as away:
                until(lambda: waiting(bed) > 0.2, "a queue behind i1")
                move(platform, away, "i2")
            with steady(bed, mbit=SLOWER) as back:
                move(platform, back, "i1")
            for echo in (away, back):
                assert echo.there["duplicated"] == 0
            assert back.there["reordered"] == 0
            if away.there["reordered"]:
                return
    pytest.fail("nothing was overtaken: let docs/direct.md say what holds")
