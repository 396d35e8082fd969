"""Reducers: what becomes of all matching items of all instances.

Those with a name of their own (`latest`, `sum`, `avg`, `min`, `max`, `count`, `any`, `all`,
`union`, `concat`, `causal`) run at the instances, and only what they come to travels. A function
runs at the asker and gets the items.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias, TypeVar, get_args

from flowferry.estate.errors import NoReducer
from flowferry.estate.view import Item

__all__ = ["Function", "Named", "named", "reducer"]

T = TypeVar("T")

Named: TypeAlias = Literal[
    "latest", "sum", "avg", "min", "max", "count", "any", "all", "union", "concat", "causal"
]
"""Reducers that run at the instances."""

Function: TypeAlias = Callable[[Sequence[Item]], T]
"""A reducer that runs at the asker: all matching items, at least one, by key, then node."""

NATIVE: frozenset[str] = frozenset(get_args(Named))
_registered: dict[str, Function[Any]] = {}


def reducer(name: str) -> Callable[[Function[T]], Function[T]]:
    """Give a function a name, by which `get_global` then takes it in this process.

    >>> @reducer("spread")
    ... def spread(items):
    ...     values = [item.value for item in items]
    ...     return max(values) - min(values)

    Raises:
        ValueError: A reducer of that name exists, and is another.
    """

    def register(function: Function[T]) -> Function[T]:
        if name in NATIVE or _registered.setdefault(name, function) is not function:
            raise ValueError(f"there is a reducer {name!r} already; choose another name")
        return function

    return register


def named(name: str) -> Function[Any]:
    """The function registered as `name`.

    Raises:
        NoReducer: There is none.
    """
    try:
        return _registered[name]
    except KeyError:
        known = ", ".join(sorted(NATIVE | _registered.keys()))
        raise NoReducer(f"there is no reducer {name!r}; there are: {known}") from None
