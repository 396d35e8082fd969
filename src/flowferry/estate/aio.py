"""The calls that wait, for asyncio.

Each waits in a thread of the estate, with the interpreter free; a task that is cancelled goes on at
once, while its request ends by itself, at the latest by its time-out.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, overload

from flowferry.estate.aio_items import AsyncFlowState, AsyncItem
from flowferry.estate.view import LIVE, GlobalRead

if TYPE_CHECKING:
    from flowferry.estate.codec import Codec
    from flowferry.estate.estate import Estate, Pattern
    from flowferry.estate.flow import AnyFlow
    from flowferry.estate.reducers import Function, Named
    from flowferry.estate.view import Consistency, Item, Require, Value, View
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

    @overload
    async def get_global(
        self,
        key: str,
        reduce: "Named",
        *,
        pattern: "Pattern" = None,
        consistency: "Consistency" = LIVE,
        timeout: float | None = None,
        require: "Require" = "all",
    ) -> "Value | None": ...
    @overload
    async def get_global(
        self,
        key: str,
        reduce: "Function[T]",
        *,
        pattern: "Pattern" = None,
        consistency: "Consistency" = LIVE,
        timeout: float | None = None,
        require: "Require" = "all",
    ) -> "T | None": ...
    @overload
    async def get_global(
        self,
        key: str,
        reduce: str,
        *,
        pattern: "Pattern" = None,
        consistency: "Consistency" = LIVE,
        timeout: float | None = None,
        require: "Require" = "all",
    ) -> Any: ...
    async def get_global(
        self,
        key: str,
        reduce: "str | Function[Any]",
        *,
        pattern: "Pattern" = None,
        consistency: "Consistency" = LIVE,
        timeout: float | None = None,
        require: "Require" = "all",
    ) -> Any:
        """See `Estate.get_global`."""
        return await self._run(
            self.estate.get_global,
            key,
            reduce,
            pattern=pattern,
            consistency=consistency,
            timeout=timeout,
            require=require,
        )

    @overload
    async def view_global(
        self,
        key: str,
        reduce: "Named",
        *,
        pattern: "Pattern" = None,
        consistency: "Consistency" = LIVE,
        timeout: float | None = None,
    ) -> "View[Value]": ...
    @overload
    async def view_global(
        self,
        key: str,
        reduce: "Function[T]",
        *,
        pattern: "Pattern" = None,
        consistency: "Consistency" = LIVE,
        timeout: float | None = None,
    ) -> "View[T]": ...
    @overload
    async def view_global(
        self,
        key: str,
        reduce: str,
        *,
        pattern: "Pattern" = None,
        consistency: "Consistency" = LIVE,
        timeout: float | None = None,
    ) -> "View[Any]": ...
    async def view_global(
        self,
        key: str,
        reduce: "str | Function[Any]",
        *,
        pattern: "Pattern" = None,
        consistency: "Consistency" = LIVE,
        timeout: float | None = None,
    ) -> "View[Any]":
        """See `Estate.view_global`."""
        view: View[Any] = await self._run(
            self.estate.view_global,
            key,
            reduce,
            pattern=pattern,
            consistency=consistency,
            timeout=timeout,
        )
        return view

    async def set(
        self,
        key: str,
        value: Any,
        *,
        ttl: float | None = None,
        codec: "Codec | None" = None,
        after: "Iterable[Item] | None" = None,
    ) -> None:
        """See `Estate.set`; for backends that are servers."""
        await self._run(self.estate.set, key, value, ttl=ttl, codec=codec, after=after)

    async def get(self, key: str, default: Any = None, *, codec: "Codec | None" = None) -> Any:
        """See `Estate.get`; for backends that are servers."""
        return await self._run(self.estate.get, key, default, codec=codec)

    async def get_item(self, key: str) -> "Item | None":
        """See `Estate.get_item`; for backends that are servers."""
        item: Item | None = await self._run(self.estate.get_item, key)
        return item

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

    async def item(self, key: str) -> AsyncItem:
        """See `Estate.item`; for backends that are servers."""
        return AsyncItem(await self._run(self.estate.item, key), self._run)

    def flow(self, flow: "AnyFlow") -> AsyncFlowState:
        """See `Estate.flow`; for backends that are servers."""
        return AsyncFlowState(self.estate.flow(flow), self._run)

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

    async def abort_take(self, move_id: int) -> bool:
        """See `Estate.abort_take`; it does not wait for the network."""
        return self.estate.abort_take(move_id)

    async def declare_dead(self, node: str) -> int:
        """See `Estate.declare_dead`; it does not wait for the network."""
        return self.estate.declare_dead(node)

    async def joint(
        self,
        joint_id: int,
        members: Sequence[str],
        *,
        set: "dict[str, Value] | None" = None,
        add: dict[str, int] | None = None,
        delete: Sequence[str] | None = None,
        timeout: float | None = None,
    ) -> None:
        """See `Estate.joint`."""
        await self._run(
            self.estate.joint, joint_id, members, set=set, add=add, delete=delete, timeout=timeout
        )

    async def watch(self, match: str = "*", *, pattern: "Pattern" = "glob") -> "Watch":
        """See `Estate.watch`: `async for event in await es.aio.watch("flow:*")`."""
        watch: Watch = await self._run(self.estate.watch, match, pattern=pattern)
        return watch

    async def members(self) -> list[str]:
        """See `Estate.members`."""
        members: list[str] = await self._run(self.estate.members)
        return members

    async def statistics(self) -> dict[str, int]:
        """See `Estate.statistics`."""
        figures: dict[str, int] = await self._run(self.estate.statistics)
        return figures

    async def on_global_read(self, hook: Callable[[GlobalRead], object]) -> None:
        """See `Estate.on_global_read`; here `hook` runs on the loop that awaits this."""
        loop = asyncio.get_running_loop()

        def told(read: GlobalRead) -> None:
            # A loop that has ended wants to know nothing any more.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(hook, read)

        self.estate.on_global_read(told)

    async def close(self) -> None:
        """See `Estate.close`. It goes on when the task that waits for it is cancelled."""
        # In a thread of its own: those of the estate may all be waiting for what this ends.
        thread = ThreadPoolExecutor(1, "estate-close")
        closing = asyncio.get_running_loop().run_in_executor(thread, self.estate.close)
        thread.shutdown(wait=False)
        await asyncio.shield(closing)

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
        await self.close()
