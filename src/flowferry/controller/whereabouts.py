"""Who serves which flow: what the agents know, and what the rules say."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from flowferry.controller import match as matching
from flowferry.controller.agents import Agents
from flowferry.controller.handover import name_of
from flowferry.controller.match import covers, covers_flow, exact, text
from flowferry.controller.model import Model
from flowferry.wire import Flow, Match

Json = dict[str, Any]
#: Seconds that an agent has to list its flows.
FLOW_LIST = 2.0


async def known(agents: Agents, model: Callable[[], Model], limit: int) -> Json:
    """Flows that the agents know, each with the instance that its rules lead it to.

    `model`: the one in force, also when the agents have answered.
    """
    alive = [one for one in model().instances.values() if agents.alive(one.id)]
    lists = await asyncio.gather(*(agents.flows(one.id, FLOW_LIST) for one in alive))
    now = model()
    found: dict[str, Json] = {}
    silent = []
    for instance, answer in zip(alive, lists, strict=True):
        if answer is None:
            silent.append(instance.name)
            continue
        for flow in answer.flows or ():
            if isinstance(flow, Flow):
                row = found.setdefault(
                    f"{instance.group} {flow}",
                    {
                        "flow": _text(flow),
                        "instance": _serving(now, instance.group, flow),
                        "group": instance.group,
                        "known_to": [],
                    },
                )
                row["known_to"].append(instance.name)
    rows = list(found.values())
    return {"flows": rows[:limit], "total": len(rows), "unanswered": silent}


def where(model: Model, words: str, match: Match) -> Json:
    """Through which instance a flow goes, group by group. `words`: the flow as it was asked for.

    Raises `ValueError` if it is more than one flow, `LookupError` if there is no instance.
    """
    asked = matching.flow(match)
    if asked is None:
        raise ValueError(
            f"{words!r} is more than one flow; name protocol, both addresses and both ports"
        )
    full = exact(asked)
    # With the tags that it does not have.
    whole = replace(match, outer_vlan=full.outer_vlan, inner_vlan=full.inner_vlan)
    ways = []
    for group in model.groups:
        rule = next((one for one in model.rules_of(group) if covers(one.match, whole)), None)
        if rule is not None:
            target = name_of(model, rule.target)
            ways.append({"group": group, "instance": target, "rule": rule.id})
    if not ways:
        raise LookupError("no group has an instance yet; add one: flowferry instances add")
    return {"flow": words, "instance": ways[0]["instance"], "rule": ways[0]["rule"], "ways": ways}


def _serving(model: Model, group: str, flow: Flow) -> str:
    for rule in model.rules_of(group):
        if covers_flow(rule.match, flow):
            return name_of(model, rule.target)
    return ""


def _text(flow: Flow) -> str:
    shown: Iterable[str] = text(exact(flow)).split(",")
    return ",".join(part for part in shown if not part.endswith("_vlan=none"))
