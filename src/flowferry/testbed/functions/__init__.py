"""The functions an instance can run. A new one is a small file here and a line in `FUNCTIONS`."""

from flowferry.testbed.errors import TestbedError
from flowferry.testbed.functions.bridge import Bridge
from flowferry.testbed.functions.forwarder import Forwarder
from flowferry.testbed.functions.site import Function, Site

__all__ = ["FUNCTIONS", "Function", "Site", "lookup"]

FUNCTIONS: dict[str, Function] = {
    function.name: function
    for function in (
        Bridge(),
        Forwarder("forwarder", behind_veth=True),
        Forwarder("forwarder-direct", behind_veth=False),
    )
}


def lookup(name: str) -> Function:
    """The function of this name. Raises `TestbedError` that lists the known ones."""
    try:
        return FUNCTIONS[name]
    except KeyError:
        raise TestbedError(
            f"there is no function named {name!r}", f"use one of: {', '.join(sorted(FUNCTIONS))}"
        ) from None
