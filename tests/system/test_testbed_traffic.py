"""What a testbed carries: every kind of frame, once, unharmed, both ways."""

import select
import socket
import struct
import sys
import time
from collections.abc import Callable

import pytest

from flowferry.testbed import Testbed, cgroup, namespace
from flowferry.testbed.commands import Commands
from flowferry.testbed.entries import CONTROL_ETHERTYPE

ETH_P_ALL = 3
SOL_PACKET, PACKET_AUXDATA, PACKET_IGNORE_OUTGOING = 263, 8, 23
TP_STATUS_VLAN_VALID = 0x10
H1, H2 = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")
IPV4 = b"\x08\x00"
#: No host's IP stack answers to this; what we send, only we read.
EXPERIMENT = b"\x88\xb5"
QUIET = 0.3

Build = Callable[..., Testbed]
Throughput = Callable[[Commands, str], float]


class Wire:
    """A raw socket on a host's device; frames in and out as bytes, VLAN tags in their place."""

    def __init__(self, ns: str, dev: str) -> None:
        self.socket = namespace.call(ns, lambda: self._open(dev))

    @staticmethod
    def _open(dev: str) -> socket.socket:
        one = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        one.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
        one.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
        one.bind((dev, ETH_P_ALL))
        return one

    def send(self, frame: bytes) -> None:
        self.socket.send(frame)

    def receive(self) -> bytes:
        frame, extra, _, _ = self.socket.recvmsg(65536, socket.CMSG_SPACE(20))
        for level, kind, data in extra:
            status, *_, tci, tpid = struct.unpack("IIIHHHH", data[:20])
            if (level, kind) == (SOL_PACKET, PACKET_AUXDATA) and status & TP_STATUS_VLAN_VALID:
                frame = frame[:12] + struct.pack("!HH", tpid, tci) + frame[12:]
        return frame

    def collect(self, mark: bytes, expected: int, deadline: float = 5.0) -> list[bytes]:
        """All frames holding `mark`, until `expected` came and then nothing for a while."""
        found: list[bytes] = []
        until = time.monotonic() + deadline
        while (left := until - time.monotonic()) > 0:
            patience = QUIET if len(found) >= expected else left
            if not select.select([self.socket], [], [], patience)[0]:
                break
            frame = self.receive()
            if mark in frame:
                found.append(frame)
        return found


def wires(bed: Testbed) -> tuple[Wire, Wire]:
    h1, h2 = bed.hosts["h1"], bed.hosts["h2"]
    return Wire(h1.namespace, h1.dev), Wire(h2.namespace, h2.dev)


def tag(vid: int, tpid: int = 0x8100) -> bytes:
    return struct.pack("!HH", tpid, vid)


def payload(mark: bytes, length: int) -> bytes:
    return (mark + bytes(range(256)) * (length // 256 + 1))[:length]


#: What stands between the two MAC addresses and the payload, and the payload's length.
FRAMES = {
    "smallest": (EXPERIMENT, 46),
    "largest": (EXPERIMENT, 1500),
    "vlan": (tag(7) + EXPERIMENT, 1500),
    "vlan with priority": (tag(0xE007) + EXPERIMENT, 46),
    "double vlan": (tag(7) + tag(8) + EXPERIMENT, 1496),
    # The sending host itself allows no room for a provider tag.
    "provider vlan": (tag(7, 0x88A8) + tag(8) + EXPERIMENT, 1492),
    "802.2 length field": (struct.pack("!H", 100) + b"\xaa\xaa\x03", 97),
    "fragment of nothing": (IPV4 + b"\x4f", 40),
}
MULTICAST = {
    "broadcast": "ffffffffffff",
    "IPv4 multicast": "01005e000001",
    "IPv6 multicast": "333300000001",
    "spanning tree": "0180c2000000",
    "slow protocols": "0180c2000002",
    "LLDP": "0180c200000e",
}


@pytest.mark.parametrize("instances", [1, 2])
def test_every_kind_of_frame_crosses_once_and_unharmed(testbed: Build, instances: int) -> None:
    one, other = wires(testbed(instances=instances))
    for sender, receiver, macs in ((one, other, H2 + H1), (other, one, H1 + H2)):
        frames = [
            macs + header + payload(b"flowferry %s" % name.encode(), length)
            for name, (header, length) in FRAMES.items()
        ]
        for frame in frames:
            sender.send(frame)
        # Frames of different kinds are different flows, which the switch may put in another order.
        assert sorted(receiver.collect(b"flowferry", len(frames))) == sorted(frames)


def test_multicast_crosses_once_however_many_instances(testbed: Build) -> None:
    one, other = wires(testbed(instances=3))
    frames = [
        bytes.fromhex(group) + H1 + EXPERIMENT + payload(b"flowferry %s" % name.encode(), 60)
        for name, group in MULTICAST.items()
    ]
    for frame in frames:
        one.send(frame)
    assert sorted(other.collect(b"flowferry", len(frames))) == sorted(frames)
    assert one.collect(b"flowferry", 0) == []


def test_jumbo_frames_cross(testbed: Build) -> None:
    one, other = wires(testbed(instances=1, mtu=9000))
    for header in (EXPERIMENT, tag(7) + EXPERIMENT):
        frame = H2 + H1 + header + payload(b"flowferry", 9000)
        one.send(frame)
        assert other.collect(b"flowferry", 1) == [frame]


def test_control_frames_from_a_host_are_dropped(testbed: Build) -> None:
    one, other = wires(testbed())
    forged = H2 + H1 + struct.pack("!H", CONTROL_ETHERTYPE) + payload(b"flowferry", 60)
    honest = H2 + H1 + EXPERIMENT + payload(b"flowferry", 61)
    one.send(forged)
    one.send(honest)
    assert other.collect(b"flowferry", 1) == [honest]


@pytest.mark.parametrize("family", ["ip4", "ip6"])
@pytest.mark.parametrize("ports", ["system", "afxdp", "afxdp-nonpmd"])
def test_hosts_talk_tcp_over_every_port_type(
    testbed: Build, throughput: Throughput, ports: str, family: str
) -> None:
    bed = testbed(ports=ports)
    assert throughput(bed, getattr(bed.hosts["h2"], family)) > 20e6


def test_a_rate_is_kept_and_reached(testbed: Build, throughput: Throughput) -> None:
    bed = testbed(instances=1, rate=50.0)
    reached = 0.0
    for _ in range(5):  # a second without a CPU is a second without packets
        reached = throughput(bed, bed.hosts["h2"].ip4)
        assert reached < 52e6
        if reached > 30e6:
            return
    pytest.fail(f"{reached / 1e6:.1f} Mbit/s of 50 at the last of five tries")


@pytest.mark.parametrize("ports", ["system", "afxdp-nonpmd"])
def test_the_packet_socket_function_forwards(
    testbed: Build, throughput: Throughput, ports: str
) -> None:
    bed = testbed(function="forwarder-direct", ports=ports)
    assert throughput(bed, bed.hosts["h2"].ip4) > 20e6


def test_a_function_behind_inner_pairs_waits_for_its_shim(testbed: Build) -> None:
    bed = testbed(function="forwarder", instances=1)
    (instance,) = bed.instances
    assert instance.function_namespace == bed.namespaces["i1-fn"]
    assert (instance.inner_up, instance.function_up) == ("iup", "fup")
    one, other = wires(bed)
    one.send(H2 + H1 + EXPERIMENT + payload(b"flowferry", 60))
    assert other.collect(b"flowferry", 0) == []
    # The function itself forwards: what its inner side gets on one device leaves the other.
    up, down = Wire(instance.namespace, "iup"), Wire(instance.namespace, "idown")
    up.send(H2 + H1 + EXPERIMENT + payload(b"flowferry", 60))
    assert len(down.collect(b"flowferry", 1)) == 1


def test_delay_is_added_on_each_hosts_link_both_ways(testbed: Build) -> None:
    bed = testbed(instances=1, delay=5.0)
    connect = (
        "import socket, sys, time\n"
        "end, took = time.monotonic() + 10, 1.0\n"
        "while took > 0.03 and time.monotonic() < end:\n"
        "    with socket.socket() as one:\n"
        "        began = time.monotonic()\n"
        "        assert one.connect_ex((sys.argv[1], 9)) == 111  # refused: there and back\n"
        "        took = time.monotonic() - began\n"
        "        print(took)\n"
    )
    argv = [sys.executable, "-c", connect, bed.hosts["h2"].ip4]
    trips = [float(line) for line in bed.run("h1", argv).stdout.split()]
    assert min(trips) >= 0.02
    assert min(trips) < 0.04


def test_instances_reach_each_other_over_the_management_network(testbed: Build) -> None:
    bed = testbed(instances=2)
    first, second = bed.instances

    def listen() -> socket.socket:
        return socket.create_server((second.mgmt_ip, 0))

    with namespace.call(second.namespace, listen) as server:
        address = server.getsockname()
        with (
            namespace.call(
                first.namespace, lambda: socket.create_connection(address, timeout=5)
            ) as client,
            server.accept()[0] as accepted,
        ):
            client.sendall(b"hello")
            assert accepted.recv(5) == b"hello"
            assert accepted.getpeername()[0] == first.mgmt_ip


def test_steering_is_set_where_packets_are_received(testbed: Build) -> None:
    bed = testbed(instances=1, steering=True)
    for ns, dev in (("h1", "eth0"), ("h2", "eth0"), ("i1", "up"), ("i1", "down")):
        masks = bed.run(ns, ["sh", "-c", f"cat /sys/class/net/{dev}/queues/rx-*/rps_cpus"]).stdout
        assert set(masks.split()) != {"0"}, (ns, dev)
    plain = testbed(instances=1)
    assert int(plain.run("i1", ["cat", "/sys/class/net/up/queues/rx-0/rps_cpus"]).stdout, 16) == 0


def test_a_cpu_share_holds_a_busy_loop_down(testbed: Build) -> None:
    bed = testbed(instances=2, cpu_share=0.2)
    loop = (
        "import time; began = time.monotonic(), time.process_time()\n"
        "while time.process_time() < began[1] + 0.3: pass\n"
        "print(time.monotonic() - began[0])"
    )
    took = float(bed.run("i1", ["python3", "-c", loop]).stdout)
    assert took > 0.3 / 0.2 * 0.9  # however busy the machine is; less a period's share at each end
    quota = ("cpu.max", "cpu.cfs_quota_us")
    where = cgroup.paths(bed.name, "i1")[-1]
    (said,) = [(where / name).read_text() for name in quota if (where / name).exists()]
    assert said.split()[0] == f"{0.2 * cgroup.PERIOD:.0f}"
    group = f"/{cgroup.PARENT}/{bed.name}/"
    assert group in bed.run("i1", ["cat", "/proc/self/cgroup"]).stdout
    assert group not in bed.run("h1", ["cat", "/proc/self/cgroup"]).stdout
