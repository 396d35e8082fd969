"""What users ask of the controller (`api.Backend`): names resolved, requests checked, JSON out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from dataclasses import replace
from importlib.metadata import version
from typing import Any

from flowferry.controller import match as matching
from flowferry.controller import strategies
from flowferry.controller.api import Refused
from flowferry.controller.change import Change, moving
from flowferry.controller.handover import Handover, name_of
from flowferry.controller.match import MatchError, covers, covers_flow, exact, parse, text
from flowferry.controller.model import BOTH_SIDES, Instance, Model, ModelError, Rule
from flowferry.controller.openflow.oxm import of_match
from flowferry.controller.partition import parts
from flowferry.controller.service import Build, Service
from flowferry.controller.store import read_peer, write_peer
from flowferry.controller.strategies.base import Settings
from flowferry.wire import Counter, Flow, Match

Json = dict[str, Any]
#: Events that wait for a slow listener.
BACKLOG = 1000
#: Seconds that an agent has to list its flows.
FLOW_LIST = 2.0


class Controller:
    """A `Backend` on a `Service`."""

    def __init__(self, service: Service, name: str, strategy: str, settings: Settings) -> None:
        """`strategy`, `settings`: what a handover gets that does not say otherwise."""
        self._service, self._name = service, name
        self._strategy, self._settings = strategy, settings

    @property
    def _model(self) -> Model:
        return self._service.model

    # -- what there is -------------------------------------------------------------------------

    def status(self) -> Json:
        """Name, version and numbers of things."""
        agents, board = self._service.agents, self._service.board
        return {
            "name": self._name,
            "version": version("flowferry"),
            "switches": len(board.dpids),
            "switches_ready": sum(board.ready(dpid) for dpid in board.dpids),
            "groups": len(self._model.groups),
            "instances": len(self._model.instances),
            "instances_alive": sum(agents.alive(number) for number in self._model.instances),
            "rules": len(self._model.rules),
            "handovers": len(self._service.handovers),
            "handovers_under_way": sum(not h.is_over for h in self._service.handovers.values()),
            "frames": {
                "sent": agents.frames_out,
                "accepted": agents.opener.accepted,
                "rejected": agents.opener.rejected,
                "misplaced": agents.misplaced,
            },
            "connections_malformed": self._service.listener.malformed,
            "controller_packets": agents.data_packets,
        }

    def switches(self) -> list[Json]:
        """Switches, connected or not; those that belong to no group are listed too."""
        channels, board = self._service.listener.channels, self._service.board
        found = []
        for dpid in sorted({*board.dpids, *channels}):
            channel = channels.get(dpid)
            groups = [
                {"group": group.name, "side": side.name.lower()}
                for group in self._model.groups.values()
                for side in BOTH_SIDES
                if group.at(side).dpid == dpid
            ]
            found.append(
                {
                    "dpid": dpid,
                    "name": f"{dpid:#x}",
                    "connected": channel is not None,
                    "ready": board.ready(dpid),
                    "address": None if channel is None else channel.address,
                    "ends": groups,
                    "packet_ins": 0 if channel is None else channel.packets_in,
                    "packet_outs": 0 if channel is None else channel.packets_out,
                    "errors": 0 if channel is None else channel.errors,
                }
            )
        return found

    def groups(self) -> list[Json]:
        """Groups with their ends, tables and members."""
        found = []
        for group in self._model.groups.values():
            default = self._model.default(group.name)
            first = self._model.first(group.name)
            ends = {
                side.name.lower(): {
                    "dpid": group.at(side).dpid,
                    "ports": list(group.at(side).ports),
                    "group": group.at(side).group,
                }
                for side in BOTH_SIDES
            }
            found.append(
                {
                    "name": group.name,
                    **ends,
                    "instances": [one.name for one in self._model.members(group.name)],
                    "default": None if default is None else name_of(self._model, default.target),
                    "first": None if first is None else first.name,
                }
            )
        return found

    def instances(self) -> list[Json]:
        """Instances with what their agents have said lately."""
        return [self._instance(one) for _, one in sorted(self._model.instances.items())]

    def _instance(self, instance: Instance) -> Json:
        agents = self._service.agents
        pulse = agents.pulses.get(instance.id)
        counts = {} if pulse is None else pulse.counts
        return {
            "name": instance.name,
            "id": instance.id,
            "group": instance.group,
            "state": instance.state,
            "upstream_port": instance.upstream_port,
            "downstream_port": instance.downstream_port,
            "peer": None if instance.peer is None else write_peer(instance.peer),
            "macs": list(instance.macs),
            "alive": agents.alive(instance.id),
            "epoch": None if pulse is None else pulse.epoch,
            "flows": counts.get(Counter.FLOWS),
            "counts": {counter.name.lower(): value for counter, value in counts.items()},
        }

    def rules(self) -> list[Json]:
        """Rules in force, highest first; the last of each group is its default (id 0)."""
        return [
            self._rule(rule) for group in self._model.groups for rule in self._model.rules_of(group)
        ]

    def _rule(self, rule: Rule) -> Json:
        return {
            "id": rule.id,
            "group": rule.group,
            "match": text(rule.match),
            "priority": rule.priority,
            "to": name_of(self._model, rule.target),
            "one_way": rule.one_way,
            "default": rule.id == 0,
        }

    # -- handovers -----------------------------------------------------------------------------

    def handovers(self) -> list[Json]:
        """Handovers, latest first."""
        found = sorted(self._service.handovers.values(), key=lambda one: -one.number)
        return [one.as_json(self._model, timeline=False) for one in found]

    def handover(self, number: int) -> Json:
        """One handover with its timeline."""
        return self._handover(number).as_json(self._model)

    def _handover(self, number: int) -> Handover:
        found = self._service.handovers.get(number)
        if found is None:
            raise LookupError(
                f"there is no handover {number}; list them with 'flowferry handovers list'"
            )
        return found

    async def wait(self, number: int, seconds: float) -> Json:
        """The handover when it is over, or after `seconds`."""
        handover = self._handover(number)
        await self._service.wait(handover, seconds)
        return handover.as_json(self._model)

    async def move(
        self,
        match: str,
        to: str,
        *,
        priority: int | None = None,
        strategy: str | None = None,
        one_way: bool = False,
        settling_ms: int | None = None,
        group: str | None = None,
    ) -> Json:
        """The handover that was begun, or waits for its turn."""
        parsed = _checked(match)
        target = self._find(to, group)
        if target.state != "active":
            raise Refused(f"instance {target.name} is being drained; move to another one")
        number = self._service.store.next_number("rule")

        def build(model: Model) -> Change:
            change = moving(
                model, target.group, parsed, target.id, priority, one_way, number
            )  # fmt: skip
            if priority is None and not _moves(model, change):
                return Change(target.group, there=(parsed,))  # no rule is needed
            return change

        return self._submit(
            target.group, text(parsed), target.name, build, strategy, one_way, settling_ms
        )

    async def remove_rule(self, number: int) -> Json:
        """The handover that brings a rule's flows where the next lower ones say."""
        rule = self._model.rules.get(number)
        if rule is None:
            raise LookupError(f"there is no rule {number}; list them with 'flowferry rules list'")

        def build(model: Model) -> Change:
            if number not in model.rules:
                raise ModelError(f"rule {number} is gone; an earlier handover removed it")
            return Change(rule.group, drop=(number,))

        return self._submit(rule.group, text(rule.match), None, build, None, rule.one_way, None)

    async def abort(self, number: int) -> Json:
        """The handover, called off or on its way to be; `Refused` if it is too late."""
        handover = self._handover(number)
        try:
            await self._service.abort(handover, "called off by request")
        except ModelError as error:
            raise Refused(str(error)) from None
        return handover.as_json(self._model)

    def _submit(
        self,
        group: str,
        match: str,
        to: str | None,
        build: Build,
        strategy: str | None,
        one_way: bool,
        settling_ms: int | None,
    ) -> Json:
        name = strategy or self._strategy
        if name not in strategies.NAMES:
            raise ValueError(
                f"there is no strategy {name!r}; use one of: {', '.join(strategies.NAMES)}"
            )
        settings = self._settings
        if settling_ms is not None:
            settings = replace(settings, settling_ms=settling_ms)
        handover = Handover(
            number=self._service.store.next_number("handover"),
            group=group,
            match=match,
            to=to,
            strategy=name,
            one_way=one_way,
            settings=settings,
            asked=time.time(),
        )
        try:
            self._service.submit(handover, build)
        except ModelError as error:
            raise Refused(str(error)) from None
        return handover.as_json(self._model)

    def _find(self, to: str, group: str | None) -> Instance:
        """An instance by name, MAC address or OpenFlow port."""
        if group is not None and group not in self._model.groups:
            raise LookupError(f"there is no group {group!r}; the controller has {self._groups()}")
        every = list(self._model.instances.values())
        within = [one for one in every if group in (None, one.group)]
        for known in (
            lambda one: one.name == to,
            lambda one: to.lower() in (mac.lower() for mac in one.macs),
            lambda one: to.isdigit() and int(to) == one.upstream_port,
        ):
            found = [one for one in within if known(one)]
            if len(found) > 1:
                places = ", ".join(sorted({one.group for one in found}))
                raise ValueError(f"{to!r} is in several groups; choose a group of: {places}")
            if found:
                return found[0]
        names = ", ".join(one.name for one in within) or "none"
        raise LookupError(f"there is no instance {to!r}; the controller has {names}")

    def _groups(self) -> str:
        return ", ".join(self._model.groups) or "none"

    # -- instances -----------------------------------------------------------------------------

    async def add_instance(self, fields: Json) -> Json:
        """The new instance."""
        group = fields.get("group") or self._only_group()
        if group not in self._model.groups:
            raise LookupError(f"there is no group {group!r}; the controller has {self._groups()}")
        try:
            peer = None if fields.get("peer") is None else read_peer(fields["id"], fields["peer"])
        except ValueError as error:
            raise ValueError(
                f"peer {fields['peer']!r} is no address and port ({error}); write 10.0.0.5:7001"
            ) from None
        instance = Instance(
            fields["name"], fields["id"], group, fields["upstream_port"],
            fields["downstream_port"], peer, tuple(fields.get("macs") or ()),
        )  # fmt: skip
        self._refuse_taken(instance)
        failed = await self._service.adopt(self._model.with_instance(instance))
        refused = [line for line in failed if "refused" in line]
        if refused:
            await self._service.adopt(self._model.without_instance(instance.id))
            raise Refused(f"{refused[0]}; give ports that the switches have")
        self._service.publish("instance", self._instance(instance))
        return self._instance(instance)

    def _only_group(self) -> str:
        if len(self._model.groups) != 1:
            raise ValueError(f"say which group it joins; the controller has {self._groups()}")
        return next(iter(self._model.groups))

    def _refuse_taken(self, new: Instance) -> None:
        for one in self._model.instances.values():
            if one.id == new.id:
                raise Refused(f"id {new.id} is {one.name}'s; give another")
            if one.group == new.group and one.name == new.name:
                raise Refused(f"group {new.group} has an instance {new.name}; give another name")
        taken = {
            (self._model.groups[one.group].at(side).dpid, one.port(side)): one.name
            for one in self._model.instances.values()
            for side in BOTH_SIDES
        } | {
            (group.at(side).dpid, port): f"the outside of {group.name}"
            for group in self._model.groups.values()
            for side in BOTH_SIDES
            for port in group.at(side).ports
        }
        for side in BOTH_SIDES:
            place = (self._model.groups[new.group].at(side).dpid, new.port(side))
            if place in taken:
                raise Refused(
                    f"port {place[1]} of switch {place[0]:#x} is {taken[place]}'s; give another"
                )

    async def drain(self, name: str) -> list[Json]:
        """The handovers that bring everything off an instance."""
        instance = self._find(name, None)
        others = [
            one
            for one in self._model.members(instance.group)
            if one.state == "active" and one.id != instance.id
        ]
        if not others:
            raise Refused(
                f"{instance.name} is the only active instance of group {instance.group}; "
                "add another one first"
            )
        draining = replace(instance, state="draining")
        await self._service.adopt(self._model.with_instance(draining))
        self._service.publish("instance", self._instance(draining))
        target = others[0]
        begun = []
        for rule in self._model.rules_of(instance.group):
            if rule.target == instance.id:
                build = _retarget(rule, target.id)
                begun.append(
                    self._submit(
                        rule.group, text(rule.match), target.name, build, None, rule.one_way, None
                    )
                )
        return begun

    async def remove_instance(self, name: str) -> None:
        """Forget an instance that nothing leads to."""
        instance = self._find(name, None)
        remedy = f"drain it first: flowferry instances drain {name}"
        default = self._model.default(instance.group)
        alone = len(self._model.members(instance.group)) == 1
        if default is not None and default.target == instance.id and not alone:
            raise Refused(f"instance {name} serves what no rule of its group claims; {remedy}")
        for handover in self._service.handovers.values():
            ends = {end for part in handover.parts for end in (part.source, part.destination)}
            if not handover.is_over and instance.id in ends:
                raise Refused(
                    f"instance {name} takes part in handover {handover.number}; "
                    "wait until it is over"
                )
        try:
            left = self._model.without_instance(instance.id)
        except ModelError as error:
            raise Refused(str(error)) from None
        await self._service.adopt(left)
        self._service.publish("instance", {"name": name, "removed": True})

    # -- flows ---------------------------------------------------------------------------------

    async def flows(self, limit: int) -> Json:
        """Flows that the agents know, each with the instance that its rules lead it to."""
        alive = [
            one for one in self._model.instances.values() if self._service.agents.alive(one.id)
        ]
        lists = await asyncio.gather(
            *(self._service.agents.flows(one.id, FLOW_LIST) for one in alive)
        )
        found: dict[str, Json] = {}
        silent = []
        for instance, answer in zip(alive, lists, strict=True):
            if answer is None:
                silent.append(instance.name)
                continue
            for flow in answer.flows or ():
                if isinstance(flow, Flow):
                    key = f"{instance.group} {flow}"
                    served = self._serving(instance.group, flow)
                    row = found.setdefault(
                        key,
                        {"flow": _flow_text(flow), "instance": served, "group": instance.group,
                         "known_to": []},
                    )  # fmt: skip
                    row["known_to"].append(instance.name)
        rows = list(found.values())
        return {"flows": rows[:limit], "total": len(rows), "unanswered": silent}

    def _serving(self, group: str, flow: Flow) -> str:
        for rule in self._model.rules_of(group):
            if covers_flow(rule.match, flow):
                return name_of(self._model, rule.target)
        return ""

    async def where(self, flow: str) -> Json:
        """Through which instance a flow goes, group by group."""
        asked = matching.flow(_parsed(flow))
        if asked is None:
            raise ValueError(
                f"{flow!r} is more than one flow; name protocol, both addresses and both ports"
            )
        ways = []
        for group in self._model.groups:
            for rule in self._model.rules_of(group):
                if covers(rule.match, _whole(_parsed(flow))):
                    target = name_of(self._model, rule.target)
                    ways.append({"group": group, "instance": target, "rule": rule.id})
                    break
        if not ways:
            raise LookupError("no group has an instance yet; add one: flowferry instances add")
        return {
            "flow": flow,
            "instance": ways[0]["instance"],
            "rule": ways[0]["rule"],
            "ways": ways,
        }

    # -- events --------------------------------------------------------------------------------

    async def subscribe(self) -> AsyncIterator[tuple[str, Json]]:
        """Events from now on; a listener that is too slow loses the oldest."""
        queue: asyncio.Queue[tuple[str, Json]] = asyncio.Queue(BACKLOG)

        def put(event: str, data: Json) -> None:
            if queue.full():
                queue.get_nowait()
            queue.put_nowait((event, data))

        self._service.watchers.add(put)
        try:
            while True:
                yield await queue.get()
        finally:
            self._service.watchers.discard(put)


def _parsed(words: str) -> Match:
    try:
        return parse(words)
    except MatchError as error:
        raise ValueError(str(error)) from None


def _checked(words: str) -> Match:
    """A match that switches can compare. Raises `ValueError`."""
    found = _parsed(words)
    for each in matching.families(found):
        of_match(each)
    return found


def _moves(model: Model, change: Change) -> bool:
    """Whether any flow changes its instance."""
    return bool(parts(model, change.apply(model), change.group))


def _retarget(rule: Rule, target: int) -> Build:
    def build(model: Model) -> Change:
        if rule.id == 0:
            return Change(rule.group, default=target)
        if rule.id not in model.rules:
            raise ModelError(f"rule {rule.id} is gone; an earlier handover removed it")
        return Change(rule.group, (replace(model.rules[rule.id], target=target),))

    return build


def _whole(match: Match) -> Match:
    """A flow's match with the tags that it does not have."""
    flow = matching.flow(match)
    assert flow is not None
    full = exact(flow)
    return replace(match, outer_vlan=full.outer_vlan, inner_vlan=full.inner_vlan)


def _flow_text(flow: Flow) -> str:
    shown: Iterable[str] = text(exact(flow)).split(",")
    return ",".join(part for part in shown if not part.endswith("_vlan=none"))
