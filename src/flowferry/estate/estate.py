"""An instance's estate: its own items, and the view of all."""

import asyncio
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from threading import Lock
from types import TracebackType
from typing import Any, Literal, Self, TypeVar, overload

from flowferry._native import EstateCore
from flowferry.estate import reducers
from flowferry.estate.aio import AsyncEstate
from flowferry.estate.errors import IncompleteError
from flowferry.estate.flow import AnyFlow, FlowState, scopes
from flowferry.estate.reducers import Function, Named
from flowferry.estate.view import (
    LIVE,
    Cached,
    Consistency,
    GlobalRead,
    Live,
    Require,
    Value,
    View,
)
from flowferry.estate.watch import Watch

__all__ = ["Estate", "Tls"]

T = TypeVar("T")
Pattern = Literal["glob", "regex"] | None

#: Calls of one estate that wait at the same time for asyncio; more wait for these. A watch, which
#: may wait for ever, is none of them.
WAITING = 16


@dataclass(frozen=True, slots=True)
class Tls:
    """Files in PEM: who is believed, and who one is."""

    ca: str | os.PathLike[str]
    """Certificate of the authority that signs all members' certificates."""
    certificate: str | os.PathLike[str]
    """This member's certificate."""
    key: str | os.PathLike[str]
    """Its private key."""


class Estate(EstateCore):
    """An instance's place in a cluster. Use `open`.

    Local operations (`set`, `get`, `delete`, `add`, `keys`, `item`) are about this instance's own
    items, which nobody else writes; with `local` and `p2p` they never wait for the network. Global
    ones ask the members. All may be called from any thread, and let other threads run while they
    wait.
    """

    __slots__ = ("_aio", "_lock", "_pool")

    def __init__(self, **_: Any) -> None:
        """Use `open`."""
        self._lock = Lock()
        self._pool: ThreadPoolExecutor | None = None
        self._aio: AsyncEstate | None = None

    @overload
    def get_global(
        self,
        key: str,
        reduce: Named,
        *,
        pattern: Pattern = None,
        consistency: Consistency = LIVE,
        timeout: float | None = None,
        require: Require = "all",
    ) -> Value | None: ...
    @overload
    def get_global(
        self,
        key: str,
        reduce: Function[T],
        *,
        pattern: Pattern = None,
        consistency: Consistency = LIVE,
        timeout: float | None = None,
        require: Require = "all",
    ) -> T | None: ...
    @overload
    def get_global(
        self,
        key: str,
        reduce: str,
        *,
        pattern: Pattern = None,
        consistency: Consistency = LIVE,
        timeout: float | None = None,
        require: Require = "all",
    ) -> Any: ...
    def get_global(
        self,
        key: str,
        reduce: str | Function[Any],
        *,
        pattern: Pattern = None,
        consistency: Consistency = LIVE,
        timeout: float | None = None,
        require: Require = "all",
    ) -> Any:
        """What all matching items of all members come to; None if there are none (`count`: 0).

        Args:
            key: A key, or a pattern.
            reduce: What becomes of the items: the name of a reducer, or a function that gets them.
            pattern: How `key` is meant: exactly, as a glob, or as a regular expression.
            consistency: `Live()`, `Cached(max_age)` or `Snapshot()`.
            timeout: Seconds to wait for members that do not answer; None: as the estate was opened.
            require: Members that have to answer: `"all"`, `"quorum"` (more than half), or a number.

        Raises:
            IncompleteError: Fewer have answered in time; its `view` says what the others say.
            TypeConflict: The reducer cannot put these items together; it names key and node.
            EstateError: And what else can go wrong.
        """
        level, age = _level(consistency)
        if isinstance(reduce, str) and reduce in reducers.NATIVE:
            return self.global_value(key, pattern, reduce, level, age, timeout, require)
        function = reducers.named(reduce) if isinstance(reduce, str) else reduce
        try:
            found = self.global_view(
                key, pattern, "collect", level, age, timeout, require, insist=True
            )
        except IncompleteError as error:
            error.view = _reduced(error.view, function, key)
            raise
        return _reduced(View(*found), function, key).value

    @overload
    def view_global(
        self,
        key: str,
        reduce: Named,
        *,
        pattern: Pattern = None,
        consistency: Consistency = LIVE,
        timeout: float | None = None,
    ) -> View[Value]: ...
    @overload
    def view_global(
        self,
        key: str,
        reduce: Function[T],
        *,
        pattern: Pattern = None,
        consistency: Consistency = LIVE,
        timeout: float | None = None,
    ) -> View[T]: ...
    @overload
    def view_global(
        self,
        key: str,
        reduce: str,
        *,
        pattern: Pattern = None,
        consistency: Consistency = LIVE,
        timeout: float | None = None,
    ) -> View[Any]: ...
    def view_global(
        self,
        key: str,
        reduce: str | Function[Any],
        *,
        pattern: Pattern = None,
        consistency: Consistency = LIVE,
        timeout: float | None = None,
    ) -> View[Any]:
        """The same with who has answered, who is missing and how old it is.

        It is no error here that members are missing: look at `complete`.
        """
        level, age = _level(consistency)
        native = isinstance(reduce, str) and reduce in reducers.NATIVE
        name = reduce if isinstance(reduce, str) and native else "collect"
        found = self.global_view(key, pattern, name, level, age, timeout, "all", insist=False)
        view: View[Any] = View(*found)
        if native:
            return view
        return _reduced(view, reducers.named(reduce) if isinstance(reduce, str) else reduce, key)

    def flow(self, flow: AnyFlow) -> FlowState:
        """The items that belong to one flow, whichever direction it is given in."""
        return FlowState(self, flow)

    def take(
        self,
        flows: Iterable[AnyFlow] | None = None,
        source: str = "",
        move_id: int = 0,
        *,
        keys: Iterable[str] | None = None,
    ) -> int:
        """Move all items of `flows` (or of `keys`) from the member `source` to this one.

        Each item moves exactly once: with the same `move_id` the call can be repeated after an
        error, and does nothing more when it was done. A global sum counts each item once all the
        while.

        Returns:
            How many items this move has brought here.

        Raises:
            NoMember: Nobody is called `source`.
            MoveAborted: It has not taken place; the items are where they were.
            MoveUndecided: `source` was cut off when it was to decide; call it again.
        """
        if flows is not None and isinstance(flows, str):
            raise TypeError("flows is a list of flows, not one: write [flow]")
        return self.take_from(
            None if flows is None else scopes(flows),
            None if keys is None else list(keys),
            source,
            move_id,
        )

    def watch(self, match: str = "*", *, pattern: Pattern = "glob") -> Watch:
        """Changes of matching items on all members.

        All that are made after this has returned are told; it waits for the members to say that
        they watch. A member that has not within the estate's time-out, that joins later, or that
        was cut off for long, tells all that it has when it hears of the watch. A slow reader
        misses what was in between, and never the last change of an item.
        """
        return Watch(self.watch_for(match, pattern), self.check)

    def on_global_read(self, hook: Callable[[GlobalRead], object]) -> None:
        """Have `hook` called whenever another member has read globally what is here.

        It runs on a thread of the estate and must not wait; what it raises is reported as
        unraisable.

        Raises:
            Unsupported: The backend is a server: reads do not come by here.
        """
        self.hook_global_reads(lambda by, pattern: hook(GlobalRead(by, pattern)))

    @property
    def aio(self) -> AsyncEstate:
        """The calls that wait, for asyncio: `await es.aio.get_global("packets", "sum")`."""
        if self._aio is None:
            self._aio = AsyncEstate(self, self._in_thread)
        return self._aio

    def _in_thread(self, call: Callable[..., T], *args: Any, **options: Any) -> "asyncio.Future[T]":
        # A pool inherited from a parent process has no threads.
        self.check()
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(WAITING, "estate")
        loop = asyncio.get_running_loop()
        try:
            return loop.run_in_executor(self._pool, partial(call, *args, **options))
        except RuntimeError:
            # Closed since it was looked at: the pool takes no more.
            self.check()
            raise

    def close(self) -> None:
        """Leave the cluster. Closing again does nothing, every other call is an error then."""
        super().close()
        if self._pool is not None:
            self._pool.shutdown(wait=False)

    def __enter__(self) -> Self:
        """Be a member for the length of a block."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave."""
        self.close()

    def __repr__(self) -> str:
        """Say who this is."""
        return f"<estate {self.node} of {self.cluster}, {self.backend}>"


def _level(consistency: Consistency) -> tuple[int, float]:
    if isinstance(consistency, Live):
        return 0, 0.0
    return (1, consistency.max_age) if isinstance(consistency, Cached) else (2, 0.0)


def _reduced(view: View[Any], function: Function[Any], key: str) -> View[Any]:
    """The view with what a function makes of its items."""
    if not view.items:
        return view
    items: Sequence[Any] = view.items
    try:
        return replace(view, value=function(items))
    except Exception as error:
        error.add_note(f"in the reducer of a global read of {key!r}, with {len(items)} items")
        raise
