"""What a testbed consists of, as plain values: options in, description out.

    h1 ── ingress switch ══ i1 … iN ══ egress switch ── h2
                            │    │
                            └ management network ┘

Each part of the data path lives in a namespace of its own, the two switches share one (they are
bridges of one ovs-vswitchd) unless they are wanted `apart`, so that one can fail without the other;
the root namespace is not touched.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, cast, get_args

from flowferry.testbed import functions
from flowferry.testbed.bare import Host
from flowferry.testbed.errors import TestbedError

PortType = Literal["system", "afxdp", "afxdp-nonpmd"]
PORT_TYPES: tuple[PortType, ...] = get_args(PortType)
#: Room for two VLAN tags on every device that only carries frames; hosts keep the plain MTU.
TAG_ROOM = 8
#: Open vSwitch's AF_XDP ports hold a frame in a buffer of 2,048 bytes with its headroom.
AFXDP_MTU = 1500
#: OpenFlow port of the host on its switch, and of instance k: FIRST_INSTANCE_PORT + k.
HOST_PORT = 1
FIRST_INSTANCE_PORT = 10
MAX_INSTANCES = 64


@dataclass(frozen=True)
class Options:
    """How a testbed is to be built."""

    instances: int = 2
    function: str = "bridge"
    #: Largest IP packet, bytes, on the hosts' devices.
    mtu: int = 1500
    ports: PortType = "system"
    #: CPUs each instance's processes may use (0.25: a quarter of one), or None for no limit.
    cpu_share: float | None = None
    #: Mbit/s of every data link, each direction, or None for no limit.
    rate: float | None = None
    #: Milliseconds, one way, added on each host's link.
    delay: float = 0.0
    #: Receive packet steering over all CPUs on the devices of hosts and instances.
    steering: bool = False
    #: The switches have an Open vSwitch and a namespace each: one can fail without the other.
    apart: bool = False
    #: Certificates for all, and TLS between agents and between switches and controller.
    tls: bool = False

    def check(self) -> "Options":
        """Return self if it can be built. Raises `TestbedError` saying what to change."""
        function = functions.lookup(self.function)
        if not 1 <= self.instances <= MAX_INSTANCES:
            raise TestbedError(
                f"{self.instances} instances are not possible", f"ask for 1 to {MAX_INSTANCES}"
            )
        if self.ports not in PORT_TYPES:
            raise TestbedError(
                f"there is no port type {self.ports!r}", f"use one of: {', '.join(PORT_TYPES)}"
            )
        if self.ports != "system" and function.behind_veth:
            # The kernel runs no generic XDP program on what another program has redirected.
            raise TestbedError(
                f"{self.ports} ports do not see what a {self.function} behind its shim sends",
                "use --ports system, or another function",
            )
        if not 1280 <= self.mtu <= 9000:
            raise TestbedError(f"an MTU of {self.mtu} is not possible", "use 1280 to 9000")
        if self.ports != "system" and self.mtu > AFXDP_MTU:
            raise TestbedError(
                f"{self.ports} ports cannot carry an MTU of {self.mtu}",
                f"use up to {AFXDP_MTU}, or --ports system",
            )
        if self.rate is not None and self.rate < 0.1:
            raise TestbedError(f"a rate of {self.rate} Mbit/s is too low", "use at least 0.1")
        if self.delay < 0:
            raise TestbedError("a delay cannot be negative", "use 0 or more milliseconds")
        return self

    @property
    def transit_mtu(self) -> int:
        """MTU of the devices between the hosts."""
        return self.mtu + (TAG_ROOM if self.ports == "system" else 0)


@dataclass(frozen=True)
class Instance:
    """One running copy of the function and where its devices are."""

    name: str
    #: What control frames address it by.
    id: int
    namespace: str
    #: The function's own namespace if it lives behind inner pairs, else None.
    function_namespace: str | None
    function: str
    #: Devices in `namespace`: upstream-facing, downstream-facing, management.
    up: str
    down: str
    mgmt: str
    mgmt_ip: str
    #: The HSL's side of the inner pairs, in `namespace`, and the function's side, in
    #: `function_namespace`; None if there are none.
    inner_up: str | None
    inner_down: str | None
    function_up: str
    function_down: str
    #: OpenFlow port, the same on both switches.
    port: int


@dataclass(frozen=True)
class Switch:
    """One bridge of the testbed's own ovs-vswitchd."""

    name: str
    #: "upstream" or "downstream": the side of the instances it is on.
    side: str
    dpid: int
    #: OpenFlow port number by port name.
    ports: Mapping[str, int]
    host_port: int
    #: Where `ovs-ofctl` and a controller can reach it.
    management: str
    #: The role of its namespace.
    role: str = "sw"


@dataclass(frozen=True)
class Description:
    """Everything a user or a controller needs to know of a running testbed."""

    name: str
    namespaces: Mapping[str, str]
    hosts: Mapping[str, Host]
    switches: Mapping[str, Switch]
    #: URL, or None while the testbed runs on its own static entries.
    controller: str | None
    instances: tuple[Instance, ...]
    options: Options
    #: The run's directory: sockets, logs, and `bpf`, a private BPF file system.
    directory: str
    bpf: str
    #: The OVSDB socket, as `ovs-vsctl --db=` takes it.
    ovsdb: str

    def as_json(self) -> dict[str, Any]:
        """The object that `testbed up --json` prints."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Description":
        """The inverse of `as_json`."""
        fields = dict(data)
        fields["hosts"] = {k: Host(**v) for k, v in data["hosts"].items()}
        fields["switches"] = {k: Switch(**v) for k, v in data["switches"].items()}
        fields["instances"] = tuple(Instance(**v) for v in data["instances"])
        fields["options"] = Options(**data["options"])
        return cls(**fields)


def port_type(text: str) -> PortType:
    """`text` as a port type. Raises `TestbedError` if it is none."""
    Options(ports=cast(PortType, text)).check()
    return cast(PortType, text)
