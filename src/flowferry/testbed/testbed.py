"""The testbed: two hosts, two switches, N instances, all real, on one machine.

    with Testbed("lab", instances=2) as tb:
        tb.run("h1", ["iperf3", "-c", tb.hosts["h2"].ip4])

`up` and `down` do the same without a block and across processes; `Testbed.attach` finds one that
another process made. See `topology` for the picture.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from flowferry.testbed import bare, delay, entries, functions, links, shaping
from flowferry.testbed.bare import Host
from flowferry.testbed.commands import Commands
from flowferry.testbed.errors import TestbedError
from flowferry.testbed.links import End
from flowferry.testbed.run import Failpoint, Run
from flowferry.testbed.switches import OpenVSwitch
from flowferry.testbed.topology import (
    FIRST_INSTANCE_PORT,
    HOST_PORT,
    Description,
    Instance,
    Options,
    Switch,
)

DEFAULT_NAME = "lab"
#: An instance's devices in the data path.
_DEVICES = ("up", "down")
DESCRIPTION = "testbed.json"
#: Roles of the namespaces that hold the switches (the second one's only where they are apart) and
#: the management bridge.
SWITCHES, EGRESS, MANAGEMENT = "sw", "sw2", "mg"
#: Of the link between switches that are apart, by which both reach a controller in the first's
#: namespace.
CONTROL_NETWORK = ("172.31.1.1", "172.31.1.2")


class Testbed(Commands):
    """A testbed by name. Building is all or nothing; taking down is idempotent."""

    __test__ = False  # pytest would otherwise try to collect the name

    def __init__(
        self,
        name: str = DEFAULT_NAME,
        *,
        failpoint: Failpoint | None = None,
        **options: Any,
    ) -> None:
        """Make nothing yet. `options` are the fields of `topology.Options`."""
        self.name = name
        self.options = Options(**options).check()
        self.namespaces = {}
        self._failpoint = failpoint
        self._run: Run | None = None
        self._description: Description | None = None
        self._groups: dict[str, Sequence[Path]] = {}

    @classmethod
    def attach(cls, name: str = DEFAULT_NAME) -> "Testbed":
        """The running testbed of this name. Raises `TestbedError` if there is none."""
        run = Run.reopen(name)
        try:
            data = json.loads((run.directory / DESCRIPTION).read_text())
        except FileNotFoundError:
            raise TestbedError(
                f"testbed {name} is not complete",
                f"take it down with 'flowferry testbed down --name {name}'",
            ) from None
        found = Description.from_json(data)
        testbed = cls(name)
        testbed.options = found.options
        testbed.namespaces = dict(found.namespaces)
        testbed._run = run
        testbed._description = found
        for entry in run.journal():
            if entry["kind"] == "share":
                testbed._groups[entry["namespace"]] = [Path(path) for path in entry["groups"]]
        return testbed

    def __enter__(self) -> Self:
        """Build it; it is taken down at the end of the block."""
        self.up()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Take it down."""
        self.down()

    def up(self, *, detach: bool = False) -> Description:
        """Build the testbed; if that fails, nothing is left and the error is raised.

        With `detach` it outlives this process; without, `make clean` may remove it afterwards.
        """
        run = Run.claim(self.name, failpoint=self._failpoint)
        self._run = run
        try:
            self._description = self._build(run)
            self._describe()
            run.step("description")
            run.complete(detach=detach)
        except BaseException:
            self.down()
            raise
        return self._description

    def belongs_to(self, controller: str) -> None:
        """Note in the description that a controller at this URL leads the switches."""
        self._description = replace(self.description, controller=controller)
        self._describe()

    def _describe(self) -> None:
        text = json.dumps(self.description.as_json(), indent=2) + "\n"
        path = self.owner.directory / DESCRIPTION
        part = path.with_suffix(".part")
        part.write_text(text)
        part.rename(path)

    def down(self) -> None:
        """Remove everything the testbed made, and its processes. Does nothing if it is not up."""
        if self._run is not None:
            self._run.undo()

    # -- what is there -------------------------------------------------------------------------

    @property
    def owner(self) -> Run:
        """The run that owns everything. Raises `RuntimeError` before `up`."""
        if self._run is None:
            raise RuntimeError("the testbed is not up; call up() or use it as a context manager")
        return self._run

    @property
    def description(self) -> Description:
        """All names, addresses and paths. Raises `RuntimeError` before `up`."""
        if self._description is None:
            raise RuntimeError("the testbed is not up; call up() or use it as a context manager")
        return self._description

    @property
    def hosts(self) -> Mapping[str, Host]:
        """h1 and h2."""
        return self.description.hosts

    @property
    def instances(self) -> tuple[Instance, ...]:
        """All instances; the first is the one that broadcast goes through."""
        return self.description.instances

    @property
    def switches(self) -> Mapping[str, Switch]:
        """The switches by name, `ingress` and `egress`."""
        return self.description.switches

    @property
    def ovs(self) -> OpenVSwitch:
        """The daemons behind the switches, or the ingress switch, to read counters, set entries."""
        return self.ovs_of("ingress")

    def ovs_of(self, switch: str) -> OpenVSwitch:
        """The daemons behind a switch."""
        return self._open_vswitch(self.owner, self.switches[switch].role)

    def _open_vswitch(self, run: Run, role: str) -> OpenVSwitch:
        name = "ovs" if role == SWITCHES else f"ovs-{role}"
        return OpenVSwitch(run, self.namespaces.get(role), name)

    @property
    def controller_address(self) -> str:
        """Where a controller in the namespace of the ingress switch is found by all switches."""
        return CONTROL_NETWORK[0] if self.options.apart else "127.0.0.1"

    def _cgroups(self, ns: str) -> Sequence[Path]:
        return self._groups.get(ns, ())

    # -- building ------------------------------------------------------------------------------

    def _build(self, run: Run) -> Description:
        numbers = range(1, self.options.instances + 1)
        apart = (EGRESS,) if self.options.apart else ()
        for role in (SWITCHES, *apart, MANAGEMENT, "h1", "h2", *(f"i{k}" for k in numbers)):
            self.namespaces[role] = run.namespace(role)
        bpf = run.bpffs()
        hosts = {f"h{k}": bare.host(self.namespaces[f"h{k}"], k) for k in (1, 2)}
        for role, one in hosts.items():
            self._join_host(run, role, one)
        bare.address_hosts(hosts, static_neighbours=False)
        run.step("hosts")
        instances = tuple(self._make_instance(run, k) for k in numbers)
        switches = self._start_switches(run, instances)
        for instance in instances:
            functions.lookup(self.options.function).start(self._site(run, instance))
            run.step(f"function {instance.name}")
        return Description(
            name=self.name,
            namespaces=dict(self.namespaces),
            hosts=hosts,
            switches=switches,
            controller=None,
            instances=instances,
            options=self.options,
            directory=str(run.directory),
            bpf=str(bpf),
            ovsdb=self._open_vswitch(run, SWITCHES).database,
        )

    def _join_host(self, run: Run, role: str, one: Host) -> None:
        """Link a host to its switch port, over a delay line if one is wanted."""
        options = self.options
        here = End(one.namespace, one.dev, one.mac)
        port = End(self.namespaces[self._beside("up" if role == "h1" else "down")], role)
        if options.delay:
            line = f"{role}-delay"
            self.namespaces[line] = delay.line(
                run, line, here, port, milliseconds=options.delay, mtu=options.transit_mtu
            )
        else:
            links.veth(here, port, mtu=options.transit_mtu)
        links.set_mtu(one.namespace, one.dev, options.mtu)
        links.offloads_off(one.namespace, one.dev)
        if options.steering:
            links.steer(one.namespace, [one.dev], on=True)
        self._shape(here, port)
        run.step(f"link {role}")

    def _make_instance(self, run: Run, number: int) -> Instance:
        options = self.options
        role = f"i{number}"
        ns = self.namespaces[role]
        behind = functions.lookup(options.function).behind_veth
        for dev in ("up", "down"):
            port = End(self.namespaces[self._beside(dev)], f"{role}-{dev}")
            links.veth(End(ns, dev), port, mtu=options.transit_mtu)
            self._shape(End(ns, dev), port)
        steered = ["up", "down"]
        function_ns = None
        if behind:
            function_ns = self.namespaces[f"{role}-fn"] = run.namespace(f"{role}-fn")
            for inner, outer in (("iup", "fup"), ("idown", "fdown")):
                links.veth(End(ns, inner), End(function_ns, outer), mtu=options.transit_mtu)
                steered.append(inner)
        if options.steering:
            links.steer(ns, steered, on=True)
            if function_ns is not None:
                links.steer(function_ns, ["fup", "fdown"], on=True)
        links.veth(End(ns, "mgmt"), End(self.namespaces[MANAGEMENT], role))
        mgmt_ip = f"172.31.0.{number}"
        links.address(ns, "mgmt", f"{mgmt_ip}/24")
        if options.cpu_share is not None:
            self._share(run, role, [ns, *([function_ns] if function_ns else [])])
        run.step(f"instance {role}")
        return Instance(
            name=role,
            id=number,
            namespace=ns,
            function_namespace=function_ns,
            function=options.function,
            up="up",
            down="down",
            mgmt="mgmt",
            mgmt_ip=mgmt_ip,
            inner_up="iup" if behind else None,
            inner_down="idown" if behind else None,
            function_up="fup" if behind else "up",
            function_down="fdown" if behind else "down",
            port=FIRST_INSTANCE_PORT + number,
        )

    def _share(self, run: Run, role: str, spaces: Sequence[str]) -> None:
        """One control group for all processes of an instance, whichever namespace they are in."""
        assert self.options.cpu_share is not None
        groups = run.cgroup(role, share=self.options.cpu_share)[-1:]
        for ns in spaces:
            self._groups[ns] = groups
            run.record("share", namespace=ns, groups=[str(group) for group in groups])

    def _beside(self, dev: str) -> str:
        """The role of the namespace with the switch that an instance's device leads to."""
        return EGRESS if self.options.apart and dev == "down" else SWITCHES

    def _start_switches(self, run: Run, instances: Sequence[Instance]) -> dict[str, Switch]:
        links.bridge(self.namespaces[MANAGEMENT], "br0", [one.name for one in instances])
        run.step("management network")
        if self.options.apart:
            self._join_switches()
        daemons = {role: self._open_vswitch(run, role) for role in map(self._beside, _DEVICES)}
        for ovs in daemons.values():
            ovs.start()
        switches = {
            name: Switch(
                name=name,
                side=side,
                dpid=dpid,
                ports={role: HOST_PORT, **{f"{i.name}-{dev}": i.port for i in instances}},
                host_port=HOST_PORT,
                management=f"unix:{daemons[self._beside(dev)].directory}/{name}.mgmt",
                role=self._beside(dev),
            )
            for name, side, dpid, role, dev in (
                ("ingress", "upstream", 1, "h1", "up"),
                ("egress", "downstream", 2, "h2", "down"),
            )
        }
        ports = [instance.port for instance in instances]
        for role, ovs in daemons.items():
            beside = [switch for switch in switches.values() if switch.role == role]
            ovs.add(beside, self.options.ports)
            for switch in beside:
                ovs.replace_entries(switch.name, entries.static_entries(HOST_PORT, ports))
        return switches

    def _join_switches(self) -> None:
        ends = [End(self.namespaces[role], "control") for role in (SWITCHES, EGRESS)]
        links.veth(*ends)
        for end, address in zip(ends, CONTROL_NETWORK, strict=True):
            links.address(end.ns, end.dev, f"{address}/30")

    def _site(self, run: Run, instance: Instance) -> functions.Site:
        ns = instance.function_namespace or instance.namespace
        return functions.Site(
            run,
            instance.name,
            ns,
            instance.function_up,
            instance.function_down,
            self.options.transit_mtu,
            tuple(self._cgroups(ns)),
        )

    def _shape(self, *ends: End) -> None:
        if self.options.rate is not None:
            for end in ends:
                shaping.limit(end.ns, end.dev, self.options.rate, mtu=self.options.transit_mtu)
