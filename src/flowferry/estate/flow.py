"""Items that belong to one flow: they move together, and keep their names."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TypeAlias

from flowferry._native import EstateItem, estate_flow
from flowferry.estate.codec import Codec
from flowferry.wire import Flow, LinkFlow

if TYPE_CHECKING:
    from flowferry.estate.estate import Estate

__all__ = ["AnyFlow", "FlowState", "scope"]

AnyFlow: TypeAlias = Flow | LinkFlow | str
"""A flow of packets, or the name of something else that moves as a whole, such as a session."""


def scope(flow: AnyFlow) -> str:
    """What the keys of a flow's items begin with; the same in every language and direction.

    >>> from ipaddress import ip_address
    >>> a, b = (ip_address("10.0.0.1"), 1024), (ip_address("10.0.0.2"), 80)
    >>> scope(Flow(6, a, b)) == scope(Flow(6, b, a)) == "flow:6,10.0.0.1:1024,10.0.0.2:80"
    True
    >>> scope("session-7")
    'flow:session-7'

    Raises:
        ValueError: The name is empty or has a slash.
    """
    if isinstance(flow, Flow):
        ends = [(address.packed, port) for address, port in (flow.low, flow.high)]
        return estate_flow((flow.low[0].version, flow.protocol, list(flow.vlans), *ends))
    if isinstance(flow, LinkFlow):
        ends = [(flow.low, 0), (flow.high, 0)]
        return estate_flow((2, flow.ethertype, list(flow.vlans), *ends))
    name = flow.removeprefix("flow:")
    if not name or "/" in name:
        raise ValueError(f"{flow!r} names no flow: a name is not empty and has no '/'")
    return f"flow:{name}"


class FlowState:
    """The items of one flow, by their names."""

    def __init__(self, estate: "Estate", flow: AnyFlow) -> None:
        """Use `Estate.flow`."""
        self._estate = estate
        self.scope = scope(flow)
        """What the keys begin with, without the slash."""

    def key(self, name: str) -> str:
        """The key of the item `name`."""
        return f"{self.scope}/{name}"

    def set(self, name: str, value: Any, *, codec: Codec | None = None) -> None:
        """See `Estate.set`."""
        self._estate.set(self.key(name), value, codec=codec)

    def get(self, name: str, default: Any = None, *, codec: Codec | None = None) -> Any:
        """See `Estate.get`."""
        return self._estate.get(self.key(name), default, codec=codec)

    def add(self, name: str, delta: int = 1) -> int:
        """See `Estate.add`."""
        return self._estate.add(self.key(name), delta)

    def delete(self, name: str) -> bool:
        """See `Estate.delete`."""
        return self._estate.delete(self.key(name))

    def item(self, name: str) -> EstateItem:
        """See `Estate.item`."""
        return self._estate.item(self.key(name))

    def names(self) -> list[str]:
        """Names of the flow's items that are here."""
        # The text of a flow may hold signs of a glob: IPv6 addresses stand in brackets.
        literal = "".join(f"\\{c}" if c in "*?[]\\" else c for c in self.scope)
        return [key[len(self.scope) + 1 :] for key in self._estate.keys(f"{literal}/*")]

    def __repr__(self) -> str:
        """Say which flow."""
        return f"<state of {self.scope}>"


def scopes(flows: Iterable[AnyFlow]) -> list[str]:
    """The scopes of flows, each once."""
    return list(dict.fromkeys(map(scope, flows)))
