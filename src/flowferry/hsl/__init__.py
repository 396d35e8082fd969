"""The handover support layer as Python sees it: its agent, and a client of it."""

from flowferry.hsl.agent import Agent, Config, Instance, Interfaces, KeyFile, Tls
from flowferry.hsl.client import Client, HslError

__all__ = ["Agent", "Client", "Config", "HslError", "Instance", "Interfaces", "KeyFile", "Tls"]
