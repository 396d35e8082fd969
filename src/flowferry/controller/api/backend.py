"""What the interface asks of the controller behind it. All answers are plain JSON values."""

from collections.abc import AsyncIterator
from typing import Any, Protocol

Json = dict[str, Any]


class Refused(Exception):
    """A request that cannot be granted as things stand; one line with the remedy."""


class Backend(Protocol):
    """A controller. Raises `Refused`, `LookupError` (no such thing), `ValueError` (wrong input)."""

    def status(self) -> Json:
        """Name, version and numbers of things."""

    def switches(self) -> list[Json]:
        """Switches, connected or not."""

    def groups(self) -> list[Json]:
        """Groups."""

    def instances(self) -> list[Json]:
        """Instances."""

    def rules(self) -> list[Json]:
        """Rules, highest first."""

    def handovers(self) -> list[Json]:
        """Handovers, latest first."""

    def handover(self, number: int) -> Json:
        """One handover with its timeline."""

    async def wait(self, number: int, seconds: float) -> Json:
        """The handover when it is over, or after `seconds`."""

    async def add_instance(self, fields: Json) -> Json:
        """The new instance."""

    async def drain(self, name: str) -> list[Json]:
        """The handovers that take everything off an instance."""

    async def remove_instance(self, name: str) -> None:
        """Forget it."""

    async def move(
        self,
        match: str,
        to: str,
        *,
        priority: int | None,
        strategy: str | None,
        one_way: bool,
        settling_ms: int | None,
        group: str | None,
    ) -> Json:
        """The handover that was begun."""

    async def remove_rule(self, number: int) -> Json:
        """The handover that takes its flows elsewhere."""

    async def abort(self, number: int) -> Json:
        """The handover, called off or on its way to be; `Refused` if it is too late."""

    async def flows(self, limit: int) -> Json:
        """`flows` with the instance of each, and `total`."""

    async def where(self, flow: str) -> Json:
        """`flow`, `instance`, `rule`."""

    def subscribe(self) -> AsyncIterator[tuple[str, Json]]:
        """Name and data of every event from now on."""
