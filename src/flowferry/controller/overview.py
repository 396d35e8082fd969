"""What there is, as JSON for users: numbers of things, switches, groups, instances, rules."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from flowferry.controller.handover import name_of
from flowferry.controller.match import text
from flowferry.controller.model import BOTH_SIDES, Group, Instance, Model, Rule
from flowferry.controller.service import Service
from flowferry.controller.store import write_peer
from flowferry.wire import Counter

Json = dict[str, Any]


def status(service: Service, name: str) -> Json:
    """Name, version and numbers of things."""
    agents, board, model = service.agents, service.board, service.model
    return {
        "name": name,
        "version": version("flowferry"),
        "switches": len(board.dpids),
        "switches_ready": sum(board.ready(dpid) for dpid in board.dpids),
        "groups": len(model.groups),
        "instances": len(model.instances),
        "instances_alive": sum(agents.alive(number) for number in model.instances),
        "rules": len(model.rules),
        "handovers": len(service.handovers),
        "handovers_under_way": sum(not h.is_over for h in service.handovers.values()),
        "frames": {
            "sent": agents.frames_out,
            "accepted": agents.opener.accepted,
            "rejected": agents.opener.rejected,
            "misplaced": agents.misplaced,
        },
        "connections_malformed": service.listener.malformed,
        "controller_packets": agents.data_packets,
    }


def switches(service: Service) -> list[Json]:
    """Switches, connected or not; those that belong to no group are listed too."""
    dpids = {*service.board.dpids, *service.listener.channels}
    return [_switch(service, dpid) for dpid in sorted(dpids)]


def _switch(service: Service, dpid: int) -> Json:
    channel = service.listener.channels.get(dpid)
    ends = [
        {"group": group.name, "side": side.name.lower()}
        for group in service.model.groups.values()
        for side in BOTH_SIDES
        if group.at(side).dpid == dpid
    ]
    return {
        "dpid": dpid,
        "name": f"{dpid:#x}",
        "connected": channel is not None,
        "ready": service.board.ready(dpid),
        "address": None if channel is None else channel.address,
        "ends": ends,
        "packet_ins": 0 if channel is None else channel.packets_in,
        "packet_outs": 0 if channel is None else channel.packets_out,
        "errors": 0 if channel is None else channel.errors,
    }


def group(model: Model, one: Group) -> Json:
    """A group with its ends and members."""
    default, first = model.default(one.name), model.first(one.name)
    ends = {
        side.name.lower(): {
            "dpid": one.at(side).dpid,
            "ports": list(one.at(side).ports),
            "group": one.at(side).group,
        }
        for side in BOTH_SIDES
    }
    return {
        "name": one.name,
        **ends,
        "instances": [each.name for each in model.members(one.name)],
        "default": None if default is None else name_of(model, default.target),
        "first": None if first is None else first.name,
    }


def instance(service: Service, one: Instance) -> Json:
    """An instance with what its agent has said lately."""
    agents = service.agents
    pulse = agents.pulses.get(one.id)
    counts = {} if pulse is None else pulse.counts
    return {
        "name": one.name,
        "id": one.id,
        "group": one.group,
        "state": one.state,
        "upstream_port": one.upstream_port,
        "downstream_port": one.downstream_port,
        "peer": None if one.peer is None else write_peer(one.peer),
        "macs": list(one.macs),
        "alive": agents.alive(one.id),
        "epoch": None if pulse is None else pulse.epoch,
        "flows": counts.get(Counter.FLOWS),
        "counts": {counter.name.lower(): value for counter, value in counts.items()},
    }


def rule(model: Model, one: Rule) -> Json:
    """A rule in force; a group's default has id 0."""
    return {
        "id": one.id,
        "group": one.group,
        "match": text(one.match),
        "priority": one.priority,
        "to": name_of(model, one.target),
        "one_way": one.one_way,
        "default": one.id == 0,
    }
