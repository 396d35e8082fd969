"""What a handover would change on the rules as they are. Pure, but for the handover it fills in."""

from __future__ import annotations

from collections.abc import Callable

from flowferry.controller import remainder
from flowferry.controller.change import Change
from flowferry.controller.handover import Handover
from flowferry.controller.model import Model, ModelError
from flowferry.controller.partition import parts as parts_of

#: What is asked for, on the rules as they are when its time has come. Raises `ModelError`.
Build = Callable[[Model], Change]


def plan(handover: Handover, build: Build, model: Model) -> None:
    """Work out what would change. Raises `ModelError` when it cannot be done."""
    change = build(model)
    handover.change = change
    handover.concerns = change.concerns(model)
    remainder.check(change, model)
    handover.parts = parts_of(model, change.apply(model), handover.group)
    if change.put:
        handover.priority, handover.rule = change.put[0].priority, change.put[0].id
    for number in {end for part in handover.parts for end in (part.source, part.destination)}:
        instance = model.instances[number]
        if instance.peer is None:
            raise ModelError(
                f"instance {instance.name} has no support layer; give it a peer, the address "
                "of its agent's stream"
            )
