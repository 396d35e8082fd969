"""Whatever is held arrives byte for byte, in order within its flow and once."""

import hashlib
import itertools
import os
import random
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import pytest
from frames_through import (
    MACS,
    SO_RCVBUFFORCE,
    UDP,
    Source,
    Tap,
    Through,
    datagram,
    datagram6,
    fragment4,
    ip4,
    kinds,
    udp,
)
from hsl_rig import patient
from markers import UDP_SEGMENT, key_file
from numbered import Traffic, until
from pings import pinging, whole
from softnet import room

from flowferry.hsl import Agent, Client, Instance
from flowferry.hsl.client import BOTH, Side
from flowferry.testbed import links, namespace
from flowferry.testbed.bare import Chain
from flowferry.testbed.links import End

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


@contextmanager
def keep_sending(through: Through, builds: Mapping[str, Callable[[int], bytes]]) -> Iterator[None]:
    """Send frames of each kind in turn, for as long as the block lasts."""
    ends = threading.Event()

    def work() -> None:
        os.sched_setaffinity(0, {0})  # a sender that moves to another CPU reorders by itself
        for number in itertools.count():
            if ends.wait(0.002):
                return
            for flow, build in builds.items():
                through.send(flow, build, [number])

    with ThreadPoolExecutor() as pool:
        sending = pool.submit(work)
        try:
            yield
        finally:
            ends.set()
        sending.result()


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
    with Agent(patient(chain)) as agent, agent.client() as client, Through(chain) as through:
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
    with Agent(patient(chain)) as agent, agent.client() as client, Through(chain) as through:
        with keep_sending(through, kinds(9000)):
            for _ in range(10):
                before = captured(client)
                hold = client.hold("*", sides=["upstream"])
                until(lambda before=before: captured(client) > before + 50, "packets are held")  # type: ignore[misc]
                finish(client, hold)
        through.got()


ENOUGH = 50 << 20  # bytes


class Transfer:
    """A TCP connection from h1 to h2 that sends until it is told to end, and `ENOUGH` at least."""

    def __init__(self, chain: Chain, family: socket.AddressFamily) -> None:
        """Connect and begin."""
        self.sent, self.received = hashlib.sha256(), hashlib.sha256()
        self.bytes = 0
        host = chain.hosts["h2"]
        address = host.ip4 if family == socket.AF_INET else host.ip6
        listener = namespace.call(
            chain.namespaces["h2"], lambda: socket.create_server((address, 9000), family=family)
        )
        self._out = namespace.call(
            chain.namespaces["h1"], lambda: socket.create_connection((address, 9000), 10)
        )
        with listener:
            self._in, _ = listener.accept()
        self._in.settimeout(10)
        self._ends = threading.Event()
        self._pool = ThreadPoolExecutor()
        self._work = [self._pool.submit(self._send), self._pool.submit(self._receive)]

    def _send(self) -> None:
        block = random.randbytes(1 << 20)
        while self.bytes < ENOUGH or not self._ends.is_set():
            block = block[1:] + block[:1]
            self._out.sendall(block)
            self.sent.update(block)
            self.bytes += len(block)
        self._out.shutdown(socket.SHUT_WR)

    def _receive(self) -> None:
        while chunk := self._in.recv(1 << 18):
            self.received.update(chunk)

    def end(self) -> None:
        """Let it come to its end; raises what went wrong in between."""
        self._ends.set()
        for work in self._work:
            work.result(timeout=20)
        self._pool.shutdown()
        self._out.close()
        self._in.close()


@both_shims
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6], ids=["ipv4", "ipv6"])
def test_tcp_with_offloads_comes_through_ten_holds(
    netns_chain: Build, function: str, family: socket.AddressFamily
) -> None:
    chain = netns_chain(function=function, static_neighbours=True)
    match = "tcp" if family == socket.AF_INET else "tcp6"
    with Agent(patient(chain)) as agent, agent.client() as client:
        transfer = Transfer(chain, family)
        sizes = []
        for number in range(10):
            before = captured(client)
            sides: tuple[Side, ...] = ("upstream",) if number % 2 else BOTH
            hold = client.hold(match, sides=sides)
            until(lambda before=before: captured(client) > before, "segments are held")  # type: ignore[misc]
            ended = finish(client, hold)
            sizes.append(ended["captured_bytes_peak"] / ended["captured_packets"])
        transfer.end()
        assert transfer.bytes >= ENOUGH
        assert transfer.received.digest() == transfer.sent.digest()
        assert max(sizes) > 2 * 1500, sizes  # on average over the packets of a hold


@both_shims
@pytest.mark.parametrize("version", [4, 6])
def test_udp_super_packets_come_through_a_hold(
    netns_chain: Build, function: str, version: int
) -> None:
    chain = netns_chain(function=function, static_neighbours=True)
    host, segment, segments, sends = chain.hosts["h2"], 1000, 20, 15
    address = host.ip4 if version == 4 else host.ip6
    family = socket.AF_INET if version == 4 else socket.AF_INET6

    def open_sink() -> socket.socket:
        one = socket.socket(family, socket.SOCK_DGRAM)
        one.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 8 << 20)
        one.bind((address, 7001))
        one.settimeout(5)
        return one

    def open_source() -> socket.socket:
        one = socket.socket(family, socket.SOCK_DGRAM)
        one.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, segment)
        one.connect((address, 7001))
        return one

    with (
        Agent(patient(chain)) as agent,
        agent.client() as client,
        namespace.call(chain.namespaces["h2"], open_sink) as sink,
        namespace.call(chain.namespaces["h1"], open_source) as source,
    ):
        due = []
        for hold_number in range(3):
            hold = client.hold("udp" if version == 4 else "udp6", sides=["upstream"])
            before = captured(client)
            for _ in range(sends):
                pieces = [random.randbytes(segment) for _ in range(segments)]
                source.send(b"".join(pieces))
                due += pieces
            until(lambda before=before: captured(client) >= before + sends, "all are held")  # type: ignore[misc]
            ended = finish(client, hold)
            assert ended["captured_packets"] == sends, "a super-packet is one packet"
            assert ended["captured_bytes_peak"] > sends * segments * segment
            start = hold_number * sends * segments
            arrived = [sink.recv(2048) for _ in due[start:]]
            assert arrived == due[start:]
        sink.settimeout(0.05)
        with pytest.raises(TimeoutError):
            sink.recv(2048)


@both_shims
@pytest.mark.parametrize(("match", "version"), [("icmp", "-4"), ("icmp6", "-6")])
def test_pings_of_1400_bytes_come_through_holds(
    netns_chain: Build, function: str, match: str, version: str
) -> None:
    chain = netns_chain(function=function, static_neighbours=True)
    host = chain.hosts["h2"]
    target = host.ip4 if version == "-4" else host.ip6
    options = (version, "-i", "0.01", "-s", "1400", "-W", "60")
    holds: list[tuple[Side, ...]] = [("upstream",), ("downstream",), BOTH]

    def start(argv: list[str], out: IO[str]) -> "subprocess.Popen[str]":
        return chain.popen("h1", argv, stdout=out, text=True)

    with (
        Agent(patient(chain)) as agent,
        agent.client() as client,
        pinging(start, *options, target) as answered,
    ):
        for sides in holds:
            side = sides[0]
            before = captured(client, side)
            hold = client.hold(match, sides=sides)
            until(lambda b=before, s=side: captured(client, s) > b + 2, "pings are held")  # type: ignore[misc]
            finish(client, hold)
    whole(answered, 3)


def port(number: int) -> Callable[[int], bytes]:
    """Datagrams to a port, from 10.9.0.1."""
    return lambda n: ip4(UDP, udp(n, number))


def flow_of(number: int) -> str:
    """The flow of `port(number)`."""
    return f"udp,nw_src=10.9.0.1,nw_dst=10.9.0.2,tp_src=6001,tp_dst={number}"


class Rig:
    """A chain with its agent, and frames through it."""

    def __init__(self, client: Client, there: Through, back: Through) -> None:
        """`there`: from h1 to h2."""
        self.client, self.there, self.back = client, there, back

    def held(self, count: int, side: str = "upstream") -> None:
        """Wait until so many packets have been captured on a side in all; none more are."""
        until(
            lambda: captured(self.client, side) >= count,
            lambda: f"{captured(self.client, side)} of {count} captured {side}",
            timeout=5.0,
        )
        self.there.tap.drained()
        assert captured(self.client, side) == count


@pytest.fixture(params=SHIMS)
def rig(request: pytest.FixtureRequest, netns_chain: Build) -> Iterator[Rig]:
    """Hosts that say nothing, with either shim between them."""
    chain = silent(netns_chain(function=request.param))
    with (
        Agent(patient(chain)) as agent,
        agent.client() as client,
        Through(chain) as there,
        Through(chain, "h2", "h1") as back,
    ):
        yield Rig(client, there, back)


def test_a_hold_takes_what_it_names_and_nothing_else(rig: Rig) -> None:
    hold = rig.client.hold("udp,tp_dst=7001")
    for number in range(10):
        rig.there.send("held", port(7001), [number])
        rig.there.send("free", port(7002), [number])
        rig.there.send("fragments", fragment4, [number])  # of datagrams to 7001
        rig.there.send("ipv6", datagram6, [number])
    rig.there.got("free", "fragments", "ipv6")
    rig.held(10)
    assert finish(rig.client, hold)["captured_packets"] == 10
    rig.there.got()


def test_a_hold_without_ports_takes_fragments_as_a_flow_of_their_own(rig: Rig) -> None:
    hold = rig.client.hold("udp")
    rig.there.send("fragments", fragment4, range(9))
    rig.there.send("whole", port(7001), range(9))
    rig.held(18)
    assert rig.there.tap.total() == 0
    ended = finish(rig.client, hold)
    assert (ended["flows"], ended["captured_packets"]) == (2, 18)
    rig.there.got()


def test_what_is_excepted_passes(rig: Rig) -> None:
    hold = rig.client.hold("udp", except_=["udp,tp_dst=7002", "udp,tp_dst=7003"])
    for number in range(10):
        for flow in ("7001", "7002", "7003", "7004"):
            rig.there.send(flow, port(int(flow)), [number])
    rig.there.got("7002", "7003")
    rig.held(20)
    finish(rig.client, hold)
    rig.there.got()


def test_a_hold_on_one_side_leaves_the_other_alone(rig: Rig) -> None:
    hold = rig.client.hold("*", sides=["downstream"])
    rig.there.send("there", port(7001), range(10))
    rig.back.send("back", port(7001), range(10))
    rig.there.got()
    rig.held(10, "downstream")
    rig.held(0, "upstream")
    assert rig.back.tap.total() == 0
    finish(rig.client, hold)
    rig.back.got()


def test_one_flow_is_released_while_the_hold_lasts(rig: Rig) -> None:
    hold = rig.client.hold("udp")
    rig.there.send("7001", port(7001), range(10))
    rig.there.send("7002", port(7002), range(10))
    rig.held(20)
    rig.client.release(hold, flow_of(7001))
    rig.there.got("7001")
    rig.there.send("7001", port(7001), range(10, 20))
    rig.there.got("7001")
    rig.there.send("7002", port(7002), range(10, 20))
    rig.there.got("7001")
    assert rig.client.holds()[0]["state"] == "holding"
    finish(rig.client, hold)
    rig.there.got()


def test_an_armed_side_takes_new_flows_only(rig: Rig) -> None:
    rig.there.send("old", port(7001), range(10))
    rig.there.got()
    hold = rig.client.hold("udp", role="arm")
    rig.there.send("old", port(7001), range(10, 20))
    rig.there.send("new", port(7002), range(10))
    rig.there.got("old")
    rig.held(10)
    finish(rig.client, hold)
    rig.there.got()


def test_an_alias_holds_the_way_back_under_its_other_headers(rig: Rig) -> None:
    rig.client.alias(flow_of(7001), flow_of(7999))
    hold = rig.client.hold(flow_of(7001))
    rig.there.send("there", port(7001), range(10))
    rig.there.send("other", port(7999), range(10))  # upstream, these are somebody else's
    rig.back.send("back", port(7999), range(10))
    rig.back.send("other", port(7001), range(10))
    rig.there.got("other")
    rig.back.got("other")
    rig.held(10, "upstream")
    rig.held(10, "downstream")
    finish(rig.client, hold)
    rig.there.got()
    rig.back.got()


@both_shims
def test_noise_on_the_taps_disturbs_none_of_200_holds(netns_chain: Build, function: str) -> None:
    # Steered, a flow keeps to one CPU: otherwise order after a release rests on `settle_us`.
    chain = netns_chain(function=function, static_neighbours=True, steering=True)
    nf = chain.namespaces["nf"]
    for scope in ("all", "default"):  # every device in nf may speak
        chain.run("nf", ["sysctl", "-qw", f"net.ipv6.conf.{scope}.disable_ipv6=0"])
    with (
        room(),
        Agent(patient(chain)) as agent,
        agent.client() as client,
        Traffic(chain, flows=4) as traffic,
        namespace.call(nf, lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)) as daemon,
    ):
        with traffic.keep_sending(4000):
            for _ in range(200):
                hold = client.hold("*")
                for tap in ("ff1u", "ff1d"):  # as one that announces itself on every device
                    with pytest.raises(OSError, match="No buffer space"):  # dropped on the spot
                        daemon.sendto(MACS + datagram(0), (tap, 0))
                finish(client, hold)
        traffic.settled(lost=0)
        status = client.status()
        assert (status["lost_packets"], status["tripped"]) == (0, False)
        assert status["holds"]["done"] == 200
        for side in BOTH:
            assert status["counters"][side]["foreign"] >= 200


def test_a_packet_socket_function_sees_each_packet_once(netns_chain: Build) -> None:
    chain = silent(netns_chain(function="forwarder"))
    with (
        Agent(patient(chain)) as agent,
        agent.client() as client,
        Through(chain) as through,
        closing(Tap(chain, "fn", "fup")) as seen,
    ):
        with keep_sending(through, {f"{n}": port(n) for n in range(7001, 7005)}):
            for _ in range(20):
                before = captured(client)
                hold = client.hold("udp")
                until(lambda before=before: captured(client) > before + 10, "packets are held")  # type: ignore[misc]
                finish(client, hold)
        through.got()
        seen.got(through.source)


def test_strays_arrive_once_and_before_what_is_held_where_they_go(
    netns_chain: Build, tmp_path: Path
) -> None:
    old, new = silent(netns_chain()), silent(netns_chain(function="forwarder"))
    links.veth(End(old.namespaces["nf"], "mgmt"), End(new.namespaces["nf"], "mgmt"))
    for number, chain in enumerate((old, new), start=1):
        links.address(chain.namespaces["nf"], "mgmt", f"192.0.2.{number}/24")
    file, _ = key_file(tmp_path)
    listens = "192.0.2.2:7700"
    first = patient(old, keys=[file])
    second = replace(
        patient(new, keys=[file], strays_listen=listens), instance=Instance("other", 2)
    )
    with (
        Agent(first) as source,
        source.client() as at_old,
        Agent(second) as target,
        target.client() as at_new,
        closing(Source(old)) as sends_old,
        closing(Source(new)) as sends_new,
        closing(Tap(old)) as taps_old,
        closing(Tap(new)) as taps_new,
    ):
        straying = at_old.hold("udp", role="stray", peer=listens)
        sends_old.send_some("free", port(7001), range(20))  # nobody holds it at the new
        taps_new.got(sends_old)

        hold = at_new.hold("udp,tp_dst=7002")
        sends_new.send_some("7002", port(7002), range(100, 120))
        until(lambda: captured(at_new) == 20, "packets are held at the new")
        sends_old.send_some("7002", port(7002), range(20))
        until(lambda: at_new.holds()[0]["followed_packets"] == 20, "the strays have followed")
        taps_new.drained()
        assert taps_new.total() == 20
        ended = finish(at_new, hold)
        assert (ended["captured_packets"], ended["released_packets"]) == (20, 40)
        until(lambda: taps_new.total() == 60, lambda: f"{taps_new.total()} of 60", timeout=5.0)
        taps_new.drained()
        assert taps_new.frames == sends_old.sent + sends_new.sent

        assert finish(at_old, straying)["stray_packets"] == 40
        assert taps_old.total() == 0
        sends_old.send_some("free", port(7001), range(100, 110))  # and it passes where it comes
        until(lambda: taps_old.total() == 10, "packets pass at the old again")
        assert taps_old.frames == sends_old.sent[40:]
