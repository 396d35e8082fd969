"""Adapters: programs that speak the agent's control channel for functions that do not know us.

An adapter is told of every step of a handover (`channel`), takes the state of the flows out of one
instance, carries it over the management network (`transfer`) and puts it into the other. `hooks`
does so with shell commands of the operator's.
"""

from flowferry.hsl.adapters.channel import ChannelError, Step
from flowferry.hsl.adapters.hooks import Hooks, HooksAdapter, Settings
from flowferry.hsl.adapters.transfer import TransferError

__all__ = ["ChannelError", "Hooks", "HooksAdapter", "Settings", "Step", "TransferError"]
