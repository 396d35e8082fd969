"""The testbed: real namespaces, links, switches and functions on one machine, and nothing left.

`Testbed` is the whole (hosts, switches, instances), `Chain` and `Pair` are the bare parts without
switches, `TestbedError` is what any of them raises for what a user can mend.
"""

from flowferry.testbed.bare import Chain, Host, Pair
from flowferry.testbed.errors import TestbedError
from flowferry.testbed.testbed import Testbed
from flowferry.testbed.topology import Description, Instance, Options, Switch

__all__ = [
    "Chain",
    "Description",
    "Host",
    "Instance",
    "Options",
    "Pair",
    "Switch",
    "Testbed",
    "TestbedError",
]
