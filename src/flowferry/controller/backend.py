"""What users ask of the controller (`api.Backend`): names resolved, requests checked, JSON out."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

from flowferry.controller import match as matching
from flowferry.controller import naming, overview, strategies, whereabouts
from flowferry.controller.api import Refused
from flowferry.controller.change import Change, moving
from flowferry.controller.handover import Handover
from flowferry.controller.match import MatchError, parse, text
from flowferry.controller.model import Instance, Model, ModelError, Rule
from flowferry.controller.openflow.oxm import of_match
from flowferry.controller.partition import parts
from flowferry.controller.planning import Build
from flowferry.controller.service import Service
from flowferry.controller.store import read_peer
from flowferry.controller.strategies.base import Settings
from flowferry.wire import Match

Json = dict[str, Any]


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
        return overview.status(self._service, self._name)

    def switches(self) -> list[Json]:
        """Switches, connected or not; those that belong to no group are listed too."""
        return overview.switches(self._service)

    def groups(self) -> list[Json]:
        """Groups with their ends, tables and members."""
        return [overview.group(self._model, one) for one in self._model.groups.values()]

    def instances(self) -> list[Json]:
        """Instances with what their agents have said lately."""
        return [self._instance(one) for _, one in sorted(self._model.instances.items())]

    def _instance(self, instance: Instance) -> Json:
        return overview.instance(self._service, instance)

    def rules(self) -> list[Json]:
        """Rules in force, highest first; the last of each group is its default (id 0)."""
        return [
            overview.rule(self._model, rule)
            for group in self._model.groups
            for rule in self._model.rules_of(group)
        ]

    async def flows(self, limit: int) -> Json:
        """Flows that the agents know, each with the instance that its rules lead it to."""
        return await whereabouts.known(self._service.agents, lambda: self._model, limit)

    async def where(self, flow: str) -> Json:
        """Through which instance a flow goes, group by group."""
        return whereabouts.where(self._model, flow, _parsed(flow))

    def subscribe(self) -> AsyncIterator[tuple[str, Json]]:
        """Events from now on; a listener that is too slow loses the oldest."""
        return self._service.events.subscribe()

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
        target = naming.find(self._model, to, group)
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

    # -- instances -----------------------------------------------------------------------------

    async def add_instance(self, fields: Json) -> Json:
        """The new instance."""
        asked = fields.get("group") or naming.only_group(self._model)
        group = naming.known_group(self._model, asked)
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
        naming.refuse_taken(self._model, instance)
        failed = await self._service.adopt(self._model.with_instance(instance))
        refused = [line for line in failed if "refused" in line]
        if refused:
            await self._service.adopt(self._model.without_instance(instance.id))
            raise Refused(f"{refused[0]}; give ports that the switches have")
        self._service.events.publish("instance", self._instance(instance))
        return self._instance(instance)

    async def drain(self, name: str) -> list[Json]:
        """The handovers that bring everything off an instance."""
        instance = naming.find(self._model, name)
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
        self._service.events.publish("instance", self._instance(draining))
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
        instance = naming.find(self._model, name)
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
        self._service.events.publish("instance", {"name": name, "removed": True})


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
