"""A testbed made into a deployment: an agent before each instance, a controller of the switches."""

import time
from collections.abc import Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

import yaml

from flowferry.controller import wiring
from flowferry.controller.client import Client, ControllerError
from flowferry.controller.daemon import Daemon
from flowferry.hsl.agent import Agent, Config, KeyFile, Tls
from flowferry.hsl.certificates import name_of
from flowferry.hsl.wiring import config_for as agent_config_for
from flowferry.testbed import Testbed
from flowferry.testbed.entries import COOKIE as STATIC
from flowferry.testbed.process import TOKEN

#: Seconds for the switches to connect and to be given their entries.
PATIENCE = 30.0


class Platform:
    """Agents and controller of a testbed that is up; a context manager that ends them."""

    def __init__(
        self,
        bed: Testbed,
        *,
        function_sockets: bool = False,
        agent: Mapping[str, Any] | None = None,
        agents: Mapping[str, Mapping[str, Any]] | None = None,
        detached: bool = False,
        **controller: Any,
    ) -> None:
        """Start nothing yet.

        function_sockets   let each agent have a control channel, `fn-<instance>.sock`
        agent, agents      further fields of the agents' `Config`: of all, and by instance
        controller         further fields of the controller's configuration
        detached           leave them running at the end of the block
        """
        self.bed = bed
        self._function_sockets = function_sockets
        self._fields = {**(agent or {})}, {**(agents or {})}
        self._controller = controller
        self._detached = detached
        self._stack = ExitStack()
        self.agents: dict[str, Agent] = {}
        self.controller: Daemon

    @property
    def keys(self) -> list[KeyFile]:
        """The deployment's keys."""
        return [wiring.key_of(self.bed.owner.directory)]

    @property
    def client(self) -> Client:
        """A client of the controller."""
        return self.controller.client()

    def agent_config(self, instance: str) -> Config:
        """What the agent of an instance is told."""
        bed = self.bed
        one = next(each for each in bed.instances if each.name == instance)
        common, own = self._fields
        fields: dict[str, Any] = {
            "keys": self.keys,
            "strays_listen": f"{one.mgmt_ip}:{wiring.STRAYS_PORT}",
            **self._certificate(one.id),
            **common,
            **own.get(instance, {}),
        }
        if self._function_sockets:
            fields["function_socket"] = str(bed.owner.directory / f"fn-{instance}.sock")
        return agent_config_for(bed, instance, **fields)

    def _certificate(self, number: int) -> dict[str, Any]:
        if not self.bed.options.tls:
            return {}
        found = wiring.certificate_of(self.bed, name_of(number))
        return {"tls": Tls(found.cert, found.key, found.ca)}

    def start_agent(self, instance: str) -> Agent:
        """Start the agent of an instance (again)."""
        # With the run's mark, 'testbed down' finds it should this process be killed.
        env = {TOKEN: self.bed.owner.token}
        agent = Agent(self.agent_config(instance), env=env)
        if not self._detached:
            self._stack.push(agent)
        self.agents[instance] = agent
        return agent

    def up(self) -> Self:
        """Start all; when this returns the switches are the controller's. Raises on failure."""
        bed, directory = self.bed, self.bed.owner.directory
        try:
            for one in bed.instances:
                self.start_agent(one.name)
            told = wiring.config_for(bed, **self._controller)
            path = directory / wiring.CONFIG
            path.write_text(yaml.safe_dump(told, sort_keys=False))
            url = f"http://{told['rest']['listen']}"
            self.controller = Daemon(path, url, env={TOKEN: bed.owner.token})
            if not self._detached:
                self._stack.push(self.controller)
            self.connect_switches(wiring.OPENFLOW_PORT)
            self._await_switches()
            for switch in bed.switches:
                bed.ovs_of(switch).remove_entries(switch, STATIC)
            (directory / wiring.URL).write_text(url + "\n")
            bed.belongs_to(url)
        except BaseException:
            self._stack.close()
            raise
        return self

    def connect_switches(self, port: int) -> None:
        """Have the switches connect to this port of the controller's address."""
        bed = self.bed
        protocol = "ssl" if bed.options.tls else "tcp"
        for switch in bed.switches.values():
            if bed.options.tls:
                own = wiring.certificate_of(bed, wiring.SWITCHES)
                bed.ovs_of(switch.name).set_certificate(own)
            target = f"{protocol}:{bed.controller_address}:{port}"
            bed.ovs_of(switch.name).set_controller([switch], target)

    def _await_switches(self) -> None:
        """Until every switch has its entries. Raises `ControllerError` if one does not get them."""
        client, wanted = self.client, len(self.bed.switches)
        deadline = time.monotonic() + PATIENCE
        while sum(bool(switch["ready"]) for switch in client.switches()) < wanted:
            if time.monotonic() > deadline:
                raise ControllerError(
                    f"a switch has not got its entries in {PATIENCE:g} s; see {self.controller.log}"
                )
            time.sleep(0.01)

    def __enter__(self) -> Self:
        """Start all."""
        return self.up()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End all, the controller first."""
        self._stack.close()
