"""The calls that wait, for asyncio.

Each waits in a thread of the estate, with the interpreter free; a task that is cancelled goes on at
once, while its request ends by itself, at the latest by its time-out.
"""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

if TYPE_CHECKING:
    from flowferry.estate.estate import Estate, Pattern
    from flowferry.estate.flow import AnyFlow
    from flowferry.estate.reducers import Function
    from flowferry.estate.view import Consistency, Require, View
    from flowferry.estate.watch import Watch

__all__ = ["AsyncEstate"]

T = TypeVar("T")


class AsyncEstate:
    """An estate whose waiting calls are awaited. Local operations are those of `estate`."""

    def __init__(self, estate: "Estate", run: Callable[..., Awaitable[Any]]) -> None:
        """Use `Estate.aio` or `aopen`."""
        self.estate = estate
        """The estate itself, for operations that do not wait."""
        self._run = run

    async def get_global(
        self,
        key: str,
        reduce: "str | Function[Any]",
        *,
        pattern: "Pattern" = None,
        consistency: "Consistency | None" = None,
        timeout: float | None = None,
        require: "Require" = "all",
    ) -> Any:
        """See `Estate.get_global`."""
        options = {} if consistency is None else {"consistency": consistency}
        return await self._run(
            self.estate.get_global,
            key,
            reduce,
            pattern=pattern,
            timeout=timeout,
            require=require,
            **options,
        )

    async def view_global(
        self,
        key: str,
        reduce: "str | Function[Any]",
        *,
        pattern: "Pattern" = None,
        consistency: "Consistency | None" = None,
        timeout: float | None = None,
    ) -> "View[Any]":
        """See `Estate.view_global`."""
        options = {} if consistency is None else {"consistency": consistency}
        view: View[Any] = await self._run(
            self.estate.view_global, key, reduce, pattern=pattern, timeout=timeout, **options
        )
        return view

    async def set(self, key: str, value: Any, **options: Any) -> None:
        """See `Estate.set`; for backends that are servers."""
        await self._run(self.estate.set, key, value, **options)

    async def get(self, key: str, default: Any = None, **options: Any) -> Any:
        """See `Estate.get`; for backends that are servers."""
        return await self._run(self.estate.get, key, default, **options)

    async def add(self, key: str, delta: int = 1) -> int:
        """See `Estate.add`; for backends that are servers."""
        value: int = await self._run(self.estate.add, key, delta)
        return value

    async def delete(self, key: str) -> bool:
        """See `Estate.delete`; for backends that are servers."""
        gone: bool = await self._run(self.estate.delete, key)
        return gone

    async def keys(self, match: str = "*", *, pattern: "Pattern" = "glob") -> list[str]:
        """See `Estate.keys`."""
        keys: list[str] = await self._run(self.estate.keys, match, pattern=pattern)
        return keys

    async def take(
        self,
        flows: "Iterable[AnyFlow] | None" = None,
        source: str = "",
        move_id: int = 0,
        *,
        keys: Iterable[str] | None = None,
    ) -> int:
        """See `Estate.take`."""
        taken: int = await self._run(self.estate.take, flows, source, move_id, keys=keys)
        return taken

    async def joint(self, joint_id: int, members: Sequence[str], **writes: Any) -> None:
        """See `Estate.joint`."""
        await self._run(self.estate.joint, joint_id, members, **writes)

    async def watch(self, match: str = "*", *, pattern: "Pattern" = "glob") -> "Watch":
        """See `Estate.watch`: `async for event in await es.aio.watch("flow:*")`."""
        watch: Watch = await self._run(self.estate.watch, match, pattern=pattern)
        return watch

    async def members(self) -> list[str]:
        """See `Estate.members`."""
        members: list[str] = await self._run(self.estate.members)
        return members

    async def close(self) -> None:
        """See `Estate.close`."""
        await self._run(self.estate.close)

    async def __aenter__(self) -> Self:
        """Be a member for the length of a block."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave."""
        self.estate.close()
