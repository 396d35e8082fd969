"""The static entries as a small network of repeaters: what reaches whom, and nothing loops."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from flowferry.testbed.entries import CONTROL_ETHERTYPE, Entry, static_entries

HOST = 1
BROADCAST = "ff:ff:ff:ff:ff:ff"
UNICAST = "02:00:00:00:00:02"
IPV4 = 0x0800


def output(entries: list[Entry], in_port: int, dst: str, ethertype: int) -> int | None:
    """The port that a switch with these entries sends a frame to; None if it drops it."""
    for entry in sorted(entries, key=lambda e: -e.priority):
        fields = dict(f.split("=") for f in entry.match.split(","))
        multicast = int(dst[:2], 16) & 1
        if int(fields.get("in_port", in_port)) != in_port:
            continue
        if int(fields.get("dl_type", hex(ethertype)), 16) != ethertype:
            continue
        if "dl_dst" in fields and not multicast:
            continue
        return None if entry.actions == "drop" else int(entry.actions.removeprefix("output:"))
    return None


def deliveries(instances: int, start: tuple[str, int], dst: str, ethertype: int) -> Counter[str]:
    """Send one frame into a switch port; count what the hosts get. Instances repeat everything."""
    ports = list(range(11, 11 + instances))
    entries = static_entries(HOST, ports)
    got: Counter[str] = Counter()
    frames = [start]
    for _ in range(100):
        if not frames:
            return got
        switch, in_port = frames.pop()
        port = output(entries, in_port, dst, ethertype)
        if port == HOST:
            got[switch] += 1
        elif port is not None:
            frames.append(("egress" if switch == "ingress" else "ingress", port))
    raise AssertionError("the frame goes round and round")


@given(st.integers(1, 8), st.sampled_from(["ingress", "egress"]), st.booleans())
def test_a_frame_from_one_host_reaches_the_other_once(n: int, switch: str, broadcast: bool) -> None:
    got = deliveries(n, (switch, HOST), BROADCAST if broadcast else UNICAST, IPV4)
    assert got == {"egress" if switch == "ingress" else "ingress": 1}


@given(st.integers(1, 8), st.integers(0, 7), st.sampled_from(["ingress", "egress"]))
def test_broadcast_comes_out_of_the_first_instance_only(n: int, k: int, switch: str) -> None:
    port = 11 + k % n
    got = deliveries(n, (switch, port), BROADCAST, IPV4)
    assert got == ({switch: 1} if port == 11 else {})


@given(st.integers(1, 8), st.integers(0, 7))
def test_any_instance_may_send_to_a_host(n: int, k: int) -> None:
    assert deliveries(n, ("egress", 11 + k % n), UNICAST, IPV4) == {"egress": 1}


@given(st.integers(1, 8), st.integers(0, 8), st.sampled_from([BROADCAST, UNICAST]))
def test_control_frames_neither_come_from_nor_reach_a_host(n: int, k: int, dst: str) -> None:
    port = HOST if k == 0 else 11 + (k - 1) % n
    assert deliveries(n, ("ingress", port), dst, CONTROL_ETHERTYPE) == {}


def test_every_priority_is_explicit_and_below_no_other_kind() -> None:
    text = [str(entry) for entry in static_entries(HOST, [11, 12])]
    assert all("priority=" in line and "cookie=0xf10fe0001" in line for line in text)
