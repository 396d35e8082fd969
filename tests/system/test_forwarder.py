"""The packet-socket forwarder between two hosts: it carries everything, once, and lies never."""

import hashlib
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from flowferry import probe
from flowferry.functions.forwarder import ForwarderReport, forward
from flowferry.functions.seen import count_probe_packets, read_seen
from flowferry.testbed import Chain, namespace

DEADLINE = 30.0
EXPERIMENT = b"\x88\xb5"
ETH_P_ALL = 3
SOL_PACKET, PACKET_AUXDATA, PACKET_IGNORE_OUTGOING = 263, 8, 23
TP_STATUS_VLAN_VALID = 0x10


@pytest.fixture(scope="module")
def chain() -> Iterator[Chain]:
    """h1 — nf — h2, and nothing in nf yet."""
    with Chain(function=None, mtu=9000, bpffs=False, static_neighbours=True) as one:
        yield one


def wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < until
        threading.Event().wait(0.002)


@contextmanager
def forwarding(chain: Chain, **options: Any) -> Iterator["Future[ForwarderReport]"]:
    """A forwarder in nf for the length of the block."""
    control = probe.Control()
    netns = chain.namespaces["nf"]
    with ThreadPoolExecutor() as pool:
        report = pool.submit(forward, "up", "down", netns=netns, control=control, **options)
        try:
            wait_for(lambda: control.ready or report.done())
            yield report
        finally:
            control.stop()


def exchange(
    chain: Chain, to: str = "", sink: dict[str, Any] | None = None, **options: Any
) -> tuple[probe.SendReport, probe.SinkReport]:
    """A run of the probe from h1 to h2."""
    control = probe.Control()
    with ThreadPoolExecutor() as pool:
        netns = chain.namespaces["h2"]
        sunk = pool.submit(probe.sink, netns=netns, control=control, **(sink or {}))
        try:
            address = to or chain.hosts["h2"].ip4
            sent = probe.send(address, netns=chain.namespaces["h1"], **options)
        except BaseException:
            control.stop()
            raise
        return sent, sunk.result()


def test_faults_on_purpose_are_counted_exactly(chain: Chain) -> None:
    plan = "drop=every:100,991-1000 dup=every:41 swap=every:37 on=a"
    with forwarding(chain, faults=[plan]) as forwarded:
        sent, got = exchange(chain, count=1000, rate=2000, sink={"linger": 0.3})
    faults = forwarded.result()["a_to_b"]["faults"]
    assert sent["sent"] == faults["counted"] == 1000
    assert got["lost"] == faults["dropped"] == 19
    assert got["duplicated"] == faults["duplicated"] == 24
    assert got["reordered"] == faults["swapped"] == 26
    assert got["max_extent"] == 1
    assert (got["unclassified"], got["sink_dropped"], got["clean"]) == (0, 0, False)


def test_each_direction_has_its_own_faults(chain: Chain) -> None:
    plans = ["drop=5 on=a", "dup=7,8 on=b"]
    with forwarding(chain, faults=plans):
        sent, got = exchange(
            chain, chain.hosts["h2"].ip6, {"echo": True, "linger": 0.3},
            count=100, rate=1000, echo=True, linger=0.3,
        )  # fmt: skip
    replies = sent["replies"]
    assert replies is not None
    assert (got["lost"], got["duplicated"]) == (1, 0)
    assert (replies["lost"], replies["duplicated"]) == (1, 2)


def test_the_function_sees_each_packet_once(chain: Chain, tmp_path: Path) -> None:
    with forwarding(chain, seen=tmp_path / "seen") as forwarded:
        sent, got = exchange(chain, sink={"echo": True}, flows=100, count=20, rate=8000, echo=True)
    assert got["clean"]
    replies = sent["replies"]
    assert replies is not None
    assert replies["clean"]
    seen = count_probe_packets(tmp_path / "seen")
    assert seen.keys() == {(s, f, n) for s in "ab" for f in range(100) for n in range(20)}
    assert set(seen.values()) == {1}
    counts = forwarded.result()
    frames = counts["a_to_b"]["received"] + counts["b_to_a"]["received"]
    assert frames == len(list(read_seen(tmp_path / "seen")))
    assert counts["a_to_b"]["sent"] == counts["a_to_b"]["received"]


@pytest.mark.parametrize("frame", [58, 1000, 9014])
def test_frames_of_every_size_pass(chain: Chain, frame: int) -> None:
    with forwarding(chain):
        _, got = exchange(chain, frame=frame, flows=10, count=50, rate=5000)
    assert got["clean"], got["verdict"]


def test_udp_super_frames_pass_and_are_seen_packet_by_packet(chain: Chain, tmp_path: Path) -> None:
    with forwarding(chain, seen=tmp_path / "seen") as forwarded:
        _, got = exchange(chain, count=320, segments=16, payload=500, rate=5000)
    assert got["clean"], got["verdict"]
    assert forwarded.result()["a_to_b"]["super_frames"] >= 10
    seen = count_probe_packets(tmp_path / "seen")
    assert seen == dict.fromkeys([("a", 0, n) for n in range(320)], 1)


def test_tcp_with_offloads_passes_unharmed(chain: Chain) -> None:
    data = os.urandom(1 << 20) * 16
    with forwarding(chain) as forwarded, ThreadPoolExecutor() as pool:
        server = namespace.call(chain.namespaces["h2"], lambda: socket.create_server(("", 9000)))
        with server:
            received = pool.submit(receive_all, server)
            client = namespace.call(chain.namespaces["h1"], socket.socket)
            with client:
                client.settimeout(DEADLINE)
                client.connect((chain.hosts["h2"].ip4, 9000))
                client.sendall(data)
            assert received.result() == hashlib.sha256(data).hexdigest()
    assert forwarded.result()["a_to_b"]["super_frames"] > 0


def receive_all(server: socket.socket) -> str:
    server.settimeout(DEADLINE)
    digest = hashlib.sha256()
    connection, _ = server.accept()
    with connection:
        connection.settimeout(DEADLINE)
        while chunk := connection.recv(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


ADDRESSES = b"\xff" * 6 + b"\x02" * 6


@pytest.mark.parametrize(
    ("tags", "retagged"),
    [("", 0), ("8100 a00a", 1), ("88a8 0014 8100 200a", 1), ("8100 0000", 1)],
)
def test_frames_of_any_ethertype_pass_both_ways_with_their_tags(
    chain: Chain, tags: str, retagged: int
) -> None:
    with forwarding(chain) as forwarded:
        ends = {role: RawSocket(chain, role) for role in ("h1", "h2")}
        for one, other in (("h1", "h2"), ("h2", "h1")):
            body = EXPERIMENT + one.encode().ljust(50, b".")
            frame = ADDRESSES + bytes.fromhex(tags) + body
            ends[one].socket.send(frame)
            assert ends[other].receive() == frame
        for end in ends.values():
            end.socket.close()
    lanes = forwarded.result()
    assert (lanes["a_to_b"]["retagged"], lanes["b_to_a"]["retagged"]) == (retagged, retagged)


def test_probe_packets_are_recognised_under_tags(chain: Chain, tmp_path: Path) -> None:
    plain = probe_frame(chain, tmp_path)
    with forwarding(chain, seen=tmp_path / "seen"):
        ends = {role: RawSocket(chain, role) for role in ("h1", "h2")}
        tagged = plain[:12] + bytes.fromhex("88a8 0014 8100 000a") + plain[12:]
        ends["h1"].socket.send(tagged)
        while ends["h2"].receive() != tagged:
            pass
        for end in ends.values():
            end.socket.close()
    frames = [f for f in read_seen(tmp_path / "seen") if f.kind == "data"]
    assert [(f.side, f.flow, f.seq, f.length) for f in frames] == [("a", 0, 0, len(tagged))]


def probe_frame(chain: Chain, tmp_path: Path) -> bytes:
    """The first data frame of a run."""
    with forwarding(chain):
        tap = RawSocket(chain, "h2")
        exchange(chain, count=1, rate=1000)
        while len(frame := tap.receive()) != 42 + 64:
            pass
        tap.socket.close()
    return frame


class RawSocket:
    """A packet socket on a host's device; frames come with their VLAN tag in its place."""

    def __init__(self, chain: Chain, role: str) -> None:
        def work() -> socket.socket:
            one = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            one.settimeout(DEADLINE)
            one.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
            one.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
            one.bind((chain.hosts[role].dev, ETH_P_ALL))
            return one

        self.socket = namespace.call(chain.namespaces[role], work)

    def receive(self) -> bytes:
        frame, extra, _, _ = self.socket.recvmsg(65536, socket.CMSG_SPACE(20))
        for level, kind, data in extra:
            status, *_, tci, tpid = struct.unpack("IIIHHHH", data[:20])
            if (level, kind) == (SOL_PACKET, PACKET_AUXDATA) and status & TP_STATUS_VLAN_VALID:
                frame = frame[:12] + struct.pack("!HH", tpid, tci) + frame[12:]
        return frame


def test_a_delay_line_keeps_every_frame_in_order_and_not_shorter(chain: Chain) -> None:
    with forwarding(chain, delay=0.005):
        sent, got = exchange(chain, sink={"echo": True}, flows=50, count=40, rate=5000, echo=True)
    replies = sent["replies"]
    assert got["clean"]
    assert replies is not None
    assert replies["clean"]
    there, round_trip = got["delay_ns"], replies["delay_ns"]
    assert there is not None
    assert round_trip is not None
    assert there["min"] >= 5_000_000
    assert round_trip["min"] >= 10_000_000


def test_what_a_full_delay_line_drops_is_counted(chain: Chain) -> None:
    with forwarding(chain, delay=0.05, delay_buffer=20_000) as forwarded:
        _, got = exchange(chain, count=2000, rate=20_000, sink={"linger": 0.3})
    dropped = forwarded.result()["a_to_b"]["delay_dropped"]
    assert 0 < got["lost"] <= dropped


class TestProgram:
    """`python -m flowferry.functions.forwarder`."""

    def start(self, *words: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-m", "flowferry.functions.forwarder", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def test_it_reports_on_sigusr1_and_at_the_end(self, chain: Chain, tmp_path: Path) -> None:
        stats = tmp_path / "stats.json"
        netns = chain.namespaces["nf"]
        child = self.start(
            "up", "down", "--netns", netns, "--delay", "200us", "--stats", str(stats)
        )
        wait_for(lambda: stats.exists() or child.poll() is not None)
        _, got = exchange(chain, count=100, rate=2000)
        assert got["clean"]
        child.send_signal(signal.SIGUSR1)
        wait_for(lambda: json.loads(stats.read_text())["a_to_b"]["received"] >= 100)
        child.send_signal(signal.SIGTERM)
        out, err = child.communicate(timeout=DEADLINE)
        assert (child.returncode, err) == (0, "")
        assert json.loads(out)["a_to_b"]["sent"] >= 100

    def test_errors_are_one_line(self, chain: Chain) -> None:
        child = self.start("up", "nothere", "--netns", chain.namespaces["nf"])
        _, err = child.communicate(timeout=DEADLINE)
        assert child.returncode == 1
        assert len(err.splitlines()) == 1
        assert "nothere" in err
        child = self.start("up", "down", "--fault", "lose=1")
        child.communicate(timeout=DEADLINE)
        assert child.returncode == 2

    def test_a_vanished_interface_ends_it(self, chain: Chain) -> None:
        netns = chain.namespaces["nf"]
        subprocess.run(["ip", "-n", netns, "link", "add", "x", "type", "veth"], check=True)
        subprocess.run(["ip", "-n", netns, "link", "set", "x", "up"], check=True)
        control = probe.Control()
        with ThreadPoolExecutor() as pool:
            running = pool.submit(forward, "x", "veth0", netns=netns, control=control)
            wait_for(lambda: control.ready or running.done())
            subprocess.run(["ip", "-n", netns, "link", "del", "x"], check=True)
            with pytest.raises(RuntimeError, match="is gone"):
                running.result(timeout=DEADLINE)
