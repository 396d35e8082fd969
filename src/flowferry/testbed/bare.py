"""Two hosts with one instance between them and no switch: what capture tests and benches need.

`Pair` is h1 — h2; `Chain` is h1 — nf — h2. Both are context managers, clean up after themselves,
and can be cleaned up by name (`flowferry testbed down --name …`) when their process was killed.

    with Chain(function="bridge", steering=True) as chain:
        chain.run("h1", ["ping", "-c1", chain.hosts["h2"].ip4])
"""

import secrets
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from flowferry.testbed import functions, links, namespace
from flowferry.testbed.commands import Commands
from flowferry.testbed.links import End
from flowferry.testbed.run import Failpoint, Run


@dataclass(frozen=True)
class Host:
    """An end host: its namespace and the addresses of its only device."""

    namespace: str
    dev: str
    ip4: str
    ip6: str
    mac: str


def host(ns: str, number: int) -> Host:
    """The host h<number>: 10.0.0.<number>, fd00::<number>, both hosts in one subnet."""
    return Host(ns, "eth0", f"10.0.0.{number}", f"fd00::{number:x}", f"02:00:00:00:00:{number:02x}")


def address_hosts(hosts: Mapping[str, Host], *, static_neighbours: bool) -> None:
    """Give hosts their addresses, and each the others' MAC addresses if asked to."""
    for one in hosts.values():
        links.addresses(one.namespace, one.dev, f"{one.ip4}/24", f"{one.ip6}/64")
        for other in hosts.values():
            if static_neighbours and other is not one:
                links.neighbour(one.namespace, one.dev, other.ip4, other.mac)
                links.neighbour(one.namespace, one.dev, other.ip6, other.mac)


class Bare(Commands):
    """What `Pair` and `Chain` share: a run, its namespaces by role, and commands in them."""

    def __init__(self, name: str | None, failpoint: Failpoint | None) -> None:
        """Make nothing yet; without a name one is made up."""
        self.name = name or f"bare-{secrets.token_hex(4)}"
        #: Role ("h1", "nf", …) to name of the namespace.
        self.namespaces: dict[str, str] = {}
        self.hosts: dict[str, Host] = {}
        self._failpoint = failpoint
        self._run: Run | None = None

    @abstractmethod
    def _build(self, run: Run) -> None:
        """Make everything in the name of `run`."""

    def __enter__(self) -> Self:
        """Build everything; if that fails, nothing is left and the error is raised."""
        self._run = Run.claim(self.name, failpoint=self._failpoint)
        try:
            self._build(self._run)
            self._run.complete()
        except BaseException:
            self._run.undo()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Take everything down."""
        if self._run is not None:
            self._run.undo()

    @property
    def owner(self) -> Run:
        """The run that owns all this. Raises `RuntimeError` outside the `with` block."""
        if self._run is None:
            raise RuntimeError("use it as a context manager")
        return self._run

    def _make_namespaces(self, run: Run, *roles: str) -> None:
        for role in roles:
            self.namespaces[role] = run.namespace(role)
        for number, role in enumerate(("h1", "h2"), start=1):
            self.hosts[role] = host(self.namespaces[role], number)

    def _host_end(self, role: str) -> End:
        one = self.hosts[role]
        return End(one.namespace, one.dev, one.mac)


class Pair(Bare):
    """h1 and h2, joined by one veth pair."""

    def __init__(
        self,
        *,
        name: str | None = None,
        mtu: int = 1500,
        offloads: bool = True,
        static_neighbours: bool = False,
        failpoint: Failpoint | None = None,
    ) -> None:
        """Make nothing yet; `with` does."""
        super().__init__(name, failpoint)
        self.mtu = mtu
        self.offloads = offloads
        self.static_neighbours = static_neighbours

    def _build(self, run: Run) -> None:
        self._make_namespaces(run, "h1", "h2")
        links.veth(self._host_end("h1"), self._host_end("h2"), mtu=self.mtu)
        if not self.offloads:
            for one in self.hosts.values():
                links.offloads_off(one.namespace, one.dev)
        address_hosts(self.hosts, static_neighbours=self.static_neighbours)


class Chain(Bare):
    """h1 `eth0` — `up` nf `down` — `eth0` h2, with a function in nf.

    function   `bridge`, `forwarder-direct`, `forwarder` (behind inner pairs: nf has `iup` and
               `idown`, the namespace fn has `fup` and `fdown`, and nothing joins `up` to `iup`
               until a handover support layer does), or None
    steering   receive packet steering over all CPUs on every device of h1, nf and h2
    offloads   False switches checksum and segmentation offload off on the hosts' devices
    bpffs      mount a private BPF file system, found at `bpf`
    """

    def __init__(
        self,
        *,
        function: str | None = "bridge",
        name: str | None = None,
        mtu: int = 1500,
        steering: bool = False,
        offloads: bool = True,
        static_neighbours: bool = False,
        bpffs: bool = True,
        failpoint: Failpoint | None = None,
    ) -> None:
        """Make nothing yet; `with` does."""
        super().__init__(name, failpoint)
        self.function = functions.lookup(function) if function is not None else None
        self.mtu = mtu
        self.steering = steering
        self.offloads = offloads
        self.static_neighbours = static_neighbours
        self.bpffs = bpffs

    @property
    def bpf(self) -> Path:
        """Where the private BPF file system is mounted."""
        return self.owner.directory / "bpf"

    def _build(self, run: Run) -> None:
        behind = self.function is not None and self.function.behind_veth
        self._make_namespaces(run, "h1", "nf", "h2", *(["fn"] if behind else []))
        nf = self.namespaces["nf"]
        if self.bpffs:
            run.bpffs()
        links.veth(self._host_end("h1"), End(nf, "up"), mtu=self.mtu)
        run.step("link up")
        links.veth(self._host_end("h2"), End(nf, "down"), mtu=self.mtu)
        run.step("link down")
        site = functions.Site(run, "nf", nf, "up", "down", self.mtu)
        if behind:
            site = self._inner_pairs(run, nf)
        if not self.offloads:
            for one in self.hosts.values():
                links.offloads_off(one.namespace, one.dev)
        address_hosts(self.hosts, static_neighbours=self.static_neighbours)
        if self.steering:
            inner = ["iup", "idown"] if behind else []
            links.steer(nf, ["up", "down", *inner], on=True)
            if behind:
                links.steer(self.namespaces["fn"], ["fup", "fdown"], on=True)
            for one in self.hosts.values():
                links.steer(one.namespace, [one.dev], on=True)
        run.step("devices")
        if self.function is not None:
            self.function.start(site)
            run.step("function")

    def _inner_pairs(self, run: Run, nf: str) -> functions.Site:
        fn = self.namespaces["fn"]
        links.veth(End(nf, "iup"), End(fn, "fup"), mtu=self.mtu)
        links.veth(End(nf, "idown"), End(fn, "fdown"), mtu=self.mtu)
        run.step("inner pairs")
        return functions.Site(run, "nf", fn, "fup", "fdown", self.mtu)


def index_of(ns: str, dev: str) -> int:
    """The interface index of a device in a namespace, as BPF programs need it."""
    return namespace.configure(ns, lambda ipr: links.index(ipr, dev))
