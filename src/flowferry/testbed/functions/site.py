"""What a function is given, and what it has to offer."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from flowferry.testbed.run import Run


@dataclass(frozen=True)
class Site:
    """Where one instance's function runs."""

    run: Run
    #: Names the instance in log files.
    instance: str
    #: The namespace with the two devices the function joins.
    namespace: str
    #: Its upstream-facing and downstream-facing device there.
    up: str
    down: str
    mtu: int = 1500
    #: Control groups its processes belong in.
    cgroups: Sequence[Path] = field(default=())


class Function(Protocol):
    """A kind of network function that the testbed can start on a site."""

    @property
    def name(self) -> str:
        """What users call it."""

    @property
    def behind_veth(self) -> bool:
        """Whether it has a namespace of its own behind inner veth pairs (docs/design.md §4)."""

    def start(self, site: Site) -> None:
        """Start it and return when it forwards. Raises `TestbedError`."""
