"""The controller's REST interface: `/v1/…`, events as they happen, metrics, its own description.

What may enter: requests. What leaves: calls of `Backend`, answers. It knows no switch, no agent and
no strategy.
"""

from flowferry.controller.api.app import create
from flowferry.controller.api.backend import Backend, Refused
from flowferry.controller.api.metrics import Metrics
from flowferry.controller.api.serve import Door, serve

__all__ = ["Backend", "Door", "Metrics", "Refused", "create", "serve"]
