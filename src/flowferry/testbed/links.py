"""Devices: veth pairs across namespaces, addresses, bridges, offloads, receive steering.

Every function acts at once, inside the namespaces it names, and raises what the kernel says. Pairs
are made in place, each end in its own namespace under its final name: nothing ever passes through
the root namespace.
"""

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pyroute2 import IPRoute

from flowferry.testbed import namespace
from flowferry.testbed.errors import TestbedError

#: Everything that lets a frame leave a host other than as it goes over the wire.
OFFLOADS = ("rx", "tx", "sg", "tso", "gso", "gro", "rxvlan", "txvlan")
#: Forward every link-local multicast group. The pause group (bit 1) the kernel never lets pass.
ALL_GROUPS_BUT_PAUSE = 0xFFFD
#: On the bridge itself the kernel keeps bits 0 to 2 for itself.
BRIDGE_GROUPS = 0xFFF8


@dataclass(frozen=True)
class End:
    """One end of a veth pair: a device in a namespace, and its MAC address if that matters."""

    ns: str
    dev: str
    mac: str | None = None


def veth(one: End, other: End, *, mtu: int = 1500) -> None:
    """Join two namespaces by a veth pair, both ends up."""
    with (namespace.DIRECTORY / other.ns).open() as peer_ns:
        peer = {"ifname": other.dev, "net_ns_fd": peer_ns.fileno(), "mtu": mtu}
        here = {"ifname": one.dev, "mtu": mtu}
        if one.mac is not None:
            here["address"] = one.mac
        if other.mac is not None:
            peer["address"] = other.mac
        namespace.configure(
            one.ns, lambda ipr: ipr.link("add", kind="veth", peer=peer, state="up", **here)
        )
    namespace.configure(
        other.ns, lambda ipr: ipr.link("set", index=index(ipr, other.dev), state="up")
    )


def index(ipr: IPRoute, dev: str) -> int:
    """The index of a device. Raises `TestbedError` if it is not there."""
    found = ipr.link_lookup(ifname=dev)
    if not found:
        raise TestbedError(f"device {dev} is not in its namespace", "start the testbed again")
    return int(found[0])


def mac(ns: str, dev: str) -> str:
    """The MAC address of a device. Raises `TestbedError` if it is not there."""

    def look(ipr: IPRoute) -> str:
        (link,) = ipr.get_links(index(ipr, dev))
        return str(link.get_attr("IFLA_ADDRESS"))

    return namespace.configure(ns, look)


def addresses(ns: str, dev: str, ip4: str, ip6: str) -> None:
    """Give a host its addresses (`a.b.c.d/n`, `x::y/n`), usable at once.

    IPv6 is switched on for this device only, without router solicitations, and without duplicate
    address detection, which would keep the address unusable for its first second.
    """

    def work() -> None:
        for key, value in (("accept_ra", "0"), ("router_solicitations", "0"), ("accept_dad", "0")):
            namespace.write_sysctl(f"net/ipv6/conf/{dev}/{key}", value)
        namespace.write_sysctl(f"net/ipv6/conf/{dev}/disable_ipv6", "0")

    namespace.call(ns, work)
    for cidr in (ip4, ip6):
        address(ns, dev, cidr)


def address(ns: str, dev: str, cidr: str) -> None:
    """Add one address with its prefix length to a device."""
    plain, _, length = cidr.partition("/")
    namespace.configure(
        ns,
        lambda ipr: ipr.addr("add", index=index(ipr, dev), address=plain, prefixlen=int(length)),
    )


def set_mtu(ns: str, dev: str, mtu: int) -> None:
    """Set the largest packet a device sends, bytes without the Ethernet header."""
    namespace.configure(ns, lambda ipr: ipr.link("set", index=index(ipr, dev), mtu=mtu))


def neighbour(ns: str, dev: str, address: str, mac: str) -> None:
    """Add a permanent neighbour entry, so that no resolution is needed."""
    namespace.configure(
        ns,
        lambda ipr: ipr.neigh(
            "replace", dst=address, lladdr=mac, ifindex=index(ipr, dev), state="permanent"
        ),
    )


def bridge(ns: str, name: str, ports: Sequence[str], *, mtu: int = 1500) -> None:
    """Join devices to a repeater: what enters one port leaves the others, and nothing is eaten.

    No spanning tree, no learning (a frame never stays because its destination was once seen on its
    own side), no snooping, no netfilter hooks; link-local groups pass, all but pause frames.
    """

    def work(ipr: IPRoute) -> None:
        for kind in ("iptables", "ip6tables", "arptables"):
            namespace.write_sysctl(f"net/bridge/bridge-nf-call-{kind}", "0")
        ipr.link(
            "add",
            ifname=name,
            kind="bridge",
            mtu=mtu,
            br_stp_state=0,
            br_forward_delay=0,
            br_mcast_snooping=0,
            br_group_fwd_mask=BRIDGE_GROUPS,
        )
        number = index(ipr, name)
        ipr.link("set", index=number, state="up")
        for port in ports:
            ipr.link("set", index=index(ipr, port), master=number)
            ipr.brport(
                "set",
                index=index(ipr, port),
                learning=0,
                unicast_flood=1,
                mcast_flood=1,
                bcast_flood=1,
                group_fwd_mask=ALL_GROUPS_BUT_PAUSE,
            )

    namespace.configure(ns, work)


def offloads_off(ns: str, dev: str) -> None:
    """Make a device send and receive frames exactly as they go over a wire."""
    argv = ["ethtool", "-K", dev]
    for feature in OFFLOADS:
        argv += [feature, "off"]
    done = namespace.call(
        ns, lambda: subprocess.run(argv, capture_output=True, text=True, check=False)
    )
    if done.returncode != 0:
        raise TestbedError(
            f"offloads of {dev} in {ns} could not be switched off: {done.stderr.strip()}",
            "check that ethtool is installed and the kernel supports it",
        )


def steer(ns: str, devs: Sequence[str], *, on: bool) -> None:
    """Spread a namespace's received packets over all CPUs by flow hash (RPS), or stop that.

    With it, packets of one flow stay on one CPU wherever they were sent from.
    """
    mask = cpu_mask(os.cpu_count() or 1) if on else "0"

    def work() -> None:
        for dev in devs:
            for queue in Path(f"/sys/class/net/{dev}/queues").glob("rx-*"):
                (queue / "rps_cpus").write_text(mask)

    namespace.call(ns, work, own_sys=True)


def cpu_mask(count: int) -> str:
    """The kernel's bit mask of the first `count` CPUs: 32-bit words in hex, highest first.

    >>> cpu_mask(2), cpu_mask(34)
    ('3', '3,ffffffff')
    """
    words = []
    bits = (1 << count) - 1
    while bits:
        words.append(bits & 0xFFFFFFFF)
        bits >>= 32
    head, *rest = reversed(words)
    return ",".join([f"{head:x}", *(f"{word:08x}" for word in rest)])
