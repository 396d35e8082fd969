"""Strategies: how a handover is done, each a pure state machine behind `base.Strategy`."""

import importlib
from collections.abc import Callable
from typing import Any

from flowferry.controller.strategies.base import Strategy

#: Where each is: module and class.
_PLACES = {"direct": ("direct", "Direct"), "reroute": ("reroute", "Reroute")}
NAMES = tuple(_PLACES)


def make(name: str, hook: Callable[[Any], None] | None = None) -> Strategy:
    """A new one; failpoints hang at `hook`. Raises `ValueError` for a name that is none."""
    if name not in _PLACES:
        raise ValueError(f"there is no strategy {name!r}; use one of: {', '.join(NAMES)}")
    module, kind = _PLACES[name]
    found = importlib.import_module(f"{__name__}.{module}")
    made: Strategy = getattr(found, kind)(hook)
    return made
