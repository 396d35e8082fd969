"""The controller: which flows go through which instance, and moving them while they flow.

`Client` talks to one, `Daemon` runs one as a child, `Platform` makes a testbed into a whole
deployment: an agent in front of every instance and a controller of the switches.
"""

from flowferry.controller.client import Client, ControllerError
from flowferry.controller.daemon import Daemon
from flowferry.controller.platform import Platform

__all__ = ["Client", "ControllerError", "Daemon", "Platform"]
