"""What users move: both directions and one, one flow and thousands, quiet and new ones, to and fro.

Every case has live traffic and ends with the same question: is any packet lost, reordered or
doubled, by the probe's account, by the agents' and by TCP's?
"""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from handover_rig import Bed, Echo
from hsl_pcap import until

from flowferry.controller import Client, ControllerError, Platform
from flowferry.testbed import Testbed, namespace

SETTLING = 400


def ready(testbed: Bed, instances: int = 2, **options: Any) -> Testbed:
    bed = testbed(instances=instances, steering=True, ports="afxdp-nonpmd", **options)
    return bed


@pytest.fixture
def lab(testbed: Bed) -> Iterator[tuple[Testbed, Platform, Client]]:
    """Two instances of a bridge with controller and agents."""
    bed = ready(testbed)
    with Platform(bed, settling_ms=SETTLING) as platform:
        bed.run("h1", ["ping", "-c1", "-W5", bed.hosts["h2"].ip4])
        yield bed, platform, platform.client


def clean(echo: Echo) -> None:
    """Nothing lost, reordered or doubled, there or back."""
    assert echo.sent["replies"] is not None
    for account in (echo.there, echo.sent["replies"]):
        figures = {k: account[k] for k in ("lost", "reordered", "duplicated", "unclassified")}
        assert not any(figures.values()), figures


def well(handover: dict[str, Any]) -> dict[str, Any]:
    """It is done, and nothing was lost or came to the controller."""
    assert (handover["state"], handover["error"]) == ("done", None), handover
    assert (handover["lost_packets"], handover["controller_packets"]) == (0, 0), handover
    return handover


def served(platform: Platform, instance: str, protocol: str = "udp") -> set[str]:
    """Flows that an instance's function has had."""
    with platform.agents[instance].client() as client:
        flows = client.flows(limit=100_000)
    return {flow["flow"] for flow in flows if flow["flow"].startswith(protocol) and flow["owned"]}


def more(echo: Echo, packets: int = 500) -> None:
    """Let traffic flow for a while."""
    so_far = echo.arrived.packets
    until(lambda: echo.arrived.packets >= so_far + packets, "more traffic")


def test_to_and_fro_while_packets_still_arrive(lab: tuple[Testbed, Platform, Client]) -> None:
    bed, _, client = lab
    with Echo(bed, flows=20, rate=4000) as echo:
        for number in range(6):
            done = well(client.move("udp", f"i{2 - number % 2}", wait=True))
            assert done["flows"] == 20
            assert done["captured_packets"] > 0
    clean(echo)


def test_one_flow_among_others(lab: tuple[Testbed, Platform, Client]) -> None:
    bed, platform, client = lab
    with Echo(bed, flows=20, rate=4000, port=7000) as echo:
        done = well(client.move("udp,tp_dst=7003", "i2", wait=True))
        assert done["flows"] == 1
        more(echo)
        assert len(served(platform, "i2")) == 1
        assert len(served(platform, "i1")) == 19
    clean(echo)


def test_one_way_only(lab: tuple[Testbed, Platform, Client]) -> None:
    bed, _, client = lab
    before = {side: counter(bed, "i2", side) for side in ("up", "down")}
    with Echo(bed, flows=5, rate=2000) as echo:
        done = well(client.move("udp", "i2", one_way=True, wait=True))
        more(echo)
    assert done["one_way"] is True
    clean(echo)
    grown = {side: counter(bed, "i2", side) - count for side, count in before.items()}
    assert grown["up"] > 400  # from upstream they come in here …
    assert grown["down"] < 20  # … and the answers still go through the other one
    well(client.move("udp", "i1", one_way=True, wait=True))


def counter(bed: Testbed, role: str, dev: str) -> int:
    return int(bed.run(role, ["cat", f"/sys/class/net/{dev}/statistics/rx_packets"]).stdout)


def test_thousands_from_several_sources_to_one_that_serves_some(testbed: Bed) -> None:
    bed = ready(testbed, 4)
    with Platform(bed, settling_ms=SETTLING) as platform:
        client = platform.client
        for quarter in (1, 2, 3):
            client.move(f"udp,tp_dst={quarter}/0x3", f"i{quarter + 1}", priority=10, wait=True)
        bed.run("h1", ["ping", "-c1", "-W5", bed.hosts["h2"].ip4])
        with Echo(bed, flows=3000, rate=4000, quiet=0.5, quiet_rate=1.0) as echo:
            sources = ("i1", "i2", "i3")
            until(
                lambda: sum(len(served(platform, one)) for one in sources) == 2250,
                "all flows",
                seconds=30,
            )
            there = well(client.move("udp", "i4", priority=100, wait=True))
            assert there["flows"] == 2250  # the fourth quarter was there
            assert len(there["parts"]) >= 3
            # A quiet flow is known where it is served from its first packet on.
            until(lambda: len(served(platform, "i4")) == 3000, "all flows there", seconds=30)
            rule = next(rule for rule in client.rules() if rule["priority"] == 100)
            back = well(client.remove_rule(rule["id"], wait=True))
            assert back["flows"] == 2250
        clean(echo)
        assert not [rule for rule in client.rules() if rule["priority"] == 100]


def test_quiet_flows_and_quiet_directions(lab: tuple[Testbed, Platform, Client]) -> None:
    """One way only (no packet ever comes from downstream), half of the flows all but silent."""
    bed, _, client = lab
    with Echo(bed, flows=40, rate=500, quiet=0.5, quiet_rate=0.5, echo=False) as echo:
        for number in range(3):
            well(client.move("udp", f"i{2 - number % 2}", wait=True))
    assert echo.there["clean"], echo.there["verdict"]


def test_a_tcp_download_with_nothing_upstream(lab: tuple[Testbed, Platform, Client]) -> None:
    bed, _, client = lab
    h1, h2 = bed.hosts["h1"], bed.hosts["h2"]
    listener = namespace.call(h2.namespace, lambda: socket.create_server((h2.ip4, 5005)))
    content = bytes(range(256)) * 4096

    def serve() -> None:
        end, _ = listener.accept()
        with end:
            while not stop.is_set():
                end.sendall(content)

    stop, thread = threading.Event(), threading.Thread(target=serve)
    thread.start()
    got = bytearray()
    with listener:
        end = namespace.call(h1.namespace, lambda: socket.create_connection((h2.ip4, 5005), 10))
        end.settimeout(20)
        with end:

            def read(size: int) -> None:
                wanted = len(got) + size
                while len(got) < wanted:
                    piece = end.recv(1 << 16)
                    assert piece, "the connection broke"
                    got.extend(piece)

            read(1 << 20)
            reader = threading.Thread(target=lambda: drain(end, got, stop))
            reader.start()
            try:
                for number in range(4):
                    well(client.move("tcp", f"i{2 - number % 2}", wait=True))
            finally:
                stop.set()
                thread.join(20)
                reader.join(20)
    for at in range(0, len(got) - len(content), len(content)):
        assert got[at : at + len(content)] == content


def drain(end: socket.socket, got: bytearray, stop: threading.Event) -> None:
    while piece := end.recv(1 << 16):
        got.extend(piece)


def test_flows_that_begin_at_any_moment(lab: tuple[Testbed, Platform, Client]) -> None:
    """New flows all the time: some on no list, some first seen at the new instance."""
    bed, _, client = lab
    h1, h2 = bed.hosts["h1"], bed.hosts["h2"]
    sink = namespace.call(h2.namespace, lambda: udp(h2.ip4, 9000))
    source = namespace.call(h1.namespace, lambda: [udp(h1.ip4, 0) for _ in range(600)])
    sink.settimeout(5)
    for number in range(3):
        done = client.move("udp", f"i{2 - number % 2}")
        for at, end in enumerate(source[number * 200 : number * 200 + 200]):
            for packet in range(5):
                end.sendto(b"%d %d" % (at, packet), (h2.ip4, 9000))
            time.sleep(0.003)  # the pace of new flows: over the whole of the move
        got: dict[int, list[int]] = {}
        for _ in range(1000):
            at, packet = map(int, sink.recv(100).split())
            got.setdefault(at, []).append(packet)
        assert got == {at: [0, 1, 2, 3, 4] for at in range(200)}
        well(client.wait(done["id"]))
    for end in (sink, *source):
        end.close()


def arrive_as_new_flows(bed: Testbed, flows: int) -> None:
    """Packets of flows that nobody has seen before go from h1 to h2."""
    h1, h2 = bed.hosts["h1"], bed.hosts["h2"]
    sink = namespace.call(h2.namespace, lambda: udp(h2.ip4, 9000))
    sources = namespace.call(h1.namespace, lambda: [udp(h1.ip4, 0) for _ in range(flows)])
    sink.settimeout(5)
    for at, source in enumerate(sources):
        source.sendto(b"%d" % at, (h2.ip4, 9000))
    assert {int(sink.recv(100)) for _ in sources} == set(range(flows))
    for end in (sink, *sources):
        end.close()


def udp(address: str, port: int) -> socket.socket:
    end = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
    end.bind((address, port))
    return end


def test_a_higher_rule_keeps_its_flows(lab: tuple[Testbed, Platform, Client]) -> None:
    bed, platform, client = lab
    well(client.move("udp,tp_dst=7001", "i1", priority=50, wait=True))
    with Echo(bed, flows=4, rate=2000, port=7000) as echo:
        done = well(client.move("udp", "i2", priority=10, wait=True))
        assert done["flows"] == 3
        more(echo)
        assert len(served(platform, "i1")) == 1
    clean(echo)


def test_to_where_it_is_nothing_is_touched(lab: tuple[Testbed, Platform, Client]) -> None:
    bed, platform, client = lab
    with Echo(bed, flows=4, rate=1000) as echo:
        before = platform.agents["i1"].client().status()["counters"]["upstream"]["captured"]
        done = well(client.move("udp", "i1", wait=True))
        assert (done["flows"], done["captured_packets"], done["parts"]) == (0, 0, [])
        after = platform.agents["i1"].client().status()["counters"]["upstream"]["captured"]
        assert before == after
    clean(echo)


def test_a_drained_instance_has_no_flow_left_and_gets_no_new_one(testbed: Bed) -> None:
    """It serves what no rule claims, and flows of a rule, two ways and one."""
    bed = ready(testbed, 3)
    with Platform(bed, settling_ms=SETTLING) as platform:
        client = platform.client
        bed.run("h1", ["ping", "-c1", "-W5", bed.hosts["h2"].ip4])
        well(client.move("udp,tp_dst=7001", "i2", wait=True))
        well(client.move("udp,tp_dst=7002", "i1", priority=200, wait=True))
        with Echo(bed, flows=20, rate=3000, port=7000) as echo:
            until(lambda: len(served(platform, "i1")) == 19, "all flows")
            done = client.drain_instance("i1", wait=True)
            assert len(done) == 2  # the rule's, and the default's
            for each in done:
                well(each)
            assert not served(platform, "i1")
            before = {side: counter(bed, "i1", side) for side in ("up", "down")}
            arrive_as_new_flows(bed, 50)
            more(echo)
            states = {one["name"]: one["state"] for one in client.instances()}
            assert states == {"i1": "draining", "i2": "active", "i3": "active"}
            with pytest.raises(ControllerError, match="being drained"):
                client.move("udp", "i1")
            grown = {side: counter(bed, "i1", side) - before[side] for side in before}
            assert max(grown.values()) < 50, grown  # control frames
            assert not served(platform, "i1")
            client.remove_instance("i1")
            more(echo)
        clean(echo)


def test_overlapping_moves_at_once_are_done_one_after_the_other(
    lab: tuple[Testbed, Platform, Client],
) -> None:
    bed, _, client = lab
    with Echo(bed, flows=20, rate=3000, port=7000) as echo:
        begun = [
            client.move("udp", "i2", priority=10),
            client.move("udp,tp_dst=7002", "i1", priority=20),
            client.move("udp", "i1", priority=10),
            client.move("udp,tp_dst=7002", "i2", priority=20),
        ]
        for each in begun:
            well(client.wait(each["id"]))
        more(echo)
    clean(echo)
    found = {rule["match"]: rule["to"] for rule in client.rules() if rule["priority"]}
    assert found == {"udp": "i1", "udp,tp_dst=7002": "i2"}


def test_moves_to_and_fro_that_are_asked_for_at_once_end_where_the_last_one_says(
    lab: tuple[Testbed, Platform, Client],
) -> None:
    """Also those to where the flows still are, or are by then: they wait for the one before."""
    bed, platform, client = lab
    with Echo(bed, flows=20, rate=3000) as echo:
        begun = [client.move("udp", to) for to in ("i2", "i1", "i1", "i2", "i1")]
        flows = [well(client.wait(each["id"]))["flows"] for each in begun]
        assert flows == [20, 20, 0, 20, 20]
        more(echo)
        assert len(served(platform, "i1")) == 20
    clean(echo)


def test_a_handover_is_called_off_in_order(lab: tuple[Testbed, Platform, Client]) -> None:
    """At whatever moment: either all is where it was, or all has moved; nothing is lost."""
    bed, _, client = lab
    ends = set()
    with Echo(bed, flows=20, rate=3000) as echo:
        for delay in (*[0.0] * 12, 0.002, 0.01, 0.03, 0.1):
            to = next(r["to"] for r in client.rules() if r["priority"] in (0, 100))
            to = "i2" if to == "i1" else "i1"
            begun = client.move("udp", to, priority=100)
            time.sleep(delay)  # the moment at which it is called off
            with suppress(ControllerError):  # too late: it is over
                client.abort(begun["id"])
            over = client.wait(begun["id"])
            assert over["state"] in ("aborted", "done"), over
            assert over["lost_packets"] == 0
            ends.add(over["state"])
            more(echo)
    clean(echo)
    assert "aborted" in ends
