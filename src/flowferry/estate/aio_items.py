"""Items for asyncio where they are at a server: an item resolved once, and those of a flow."""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flowferry._native import EstateItem
    from flowferry.estate.codec import Codec
    from flowferry.estate.flow import FlowState

__all__ = ["AsyncFlowState", "AsyncItem"]

Run = Callable[..., Awaitable[Any]]


class AsyncItem:
    """An item handle whose calls are awaited. `item` is the handle itself."""

    def __init__(self, item: "EstateItem", run: Run) -> None:
        """Use `AsyncEstate.item`."""
        self.item = item
        """The handle, for backends that keep items in this process."""
        self._run = run

    @property
    def key(self) -> str:
        """The key."""
        return self.item.key

    async def get(self) -> Any:
        """See `ItemHandle.get`."""
        return await self._run(self.item.get)

    async def set(self, value: bytes | str | int | float) -> None:
        """See `ItemHandle.set`."""
        await self._run(self.item.set, value)

    async def add(self, delta: int = 1) -> int:
        """See `ItemHandle.add`."""
        value: int = await self._run(self.item.add, delta)
        return value

    async def delete(self) -> bool:
        """See `ItemHandle.delete`."""
        gone: bool = await self._run(self.item.delete)
        return gone


class AsyncFlowState:
    """The items of one flow, by their names, awaited. `flow` is the same without waiting."""

    def __init__(self, flow: "FlowState", run: Run) -> None:
        """Use `AsyncEstate.flow`."""
        self.flow = flow
        """The flow's items, for backends that keep them in this process."""
        self._run = run

    @property
    def scope(self) -> str:
        """What the keys begin with, without the slash."""
        return self.flow.scope

    def key(self, name: str) -> str:
        """The key of the item `name`."""
        return self.flow.key(name)

    async def set(self, name: str, value: Any, *, codec: "Codec | None" = None) -> None:
        """See `FlowState.set`."""
        await self._run(self.flow.set, name, value, codec=codec)

    async def get(self, name: str, default: Any = None, *, codec: "Codec | None" = None) -> Any:
        """See `FlowState.get`."""
        return await self._run(self.flow.get, name, default, codec=codec)

    async def add(self, name: str, delta: int = 1) -> int:
        """See `FlowState.add`."""
        value: int = await self._run(self.flow.add, name, delta)
        return value

    async def delete(self, name: str) -> bool:
        """See `FlowState.delete`."""
        gone: bool = await self._run(self.flow.delete, name)
        return gone

    async def item(self, name: str) -> AsyncItem:
        """See `FlowState.item`."""
        return AsyncItem(await self._run(self.flow.item, name), self._run)

    async def names(self) -> list[str]:
        """See `FlowState.names`."""
        names: list[str] = await self._run(self.flow.names)
        return names
