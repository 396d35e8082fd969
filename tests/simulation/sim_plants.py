"""Faults planted in the strategy, to show that the simulation finds them."""

from __future__ import annotations

from collections.abc import Callable

from flowferry.controller.strategies.base import Strategy
from flowferry.controller.strategies.direct import Direct


def strategy_for(plant: str | None) -> Callable[[], Strategy]:
    """The strategy, with a fault if one is to be planted."""
    return Direct
