"""E-State: the state of an elastic network function, kept where its packets are.

Every instance writes its own items at memory speed; a global read asks all instances, reduces what
they hold to one value, and never passes over one that has not answered (docs/estate.md).

>>> from flowferry import estate
>>> with estate.open(cluster="ids", node="nf1", backend="local") as es:
...     es.add("packets", 41), es.add("packets")
...     es.get_global("packets", "sum")
(41, 42)
42
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, ParamSpec

from flowferry._native import EstateItem as ItemHandle
from flowferry.estate.aio import AsyncEstate
from flowferry.estate.aio_items import AsyncFlowState, AsyncItem
from flowferry.estate.codec import JSON, PICKLE, Codec
from flowferry.estate.errors import (
    BackendFailed,
    Closed,
    CounterOverflow,
    EstateError,
    Forked,
    Frozen,
    IncompleteError,
    KeyInvalid,
    MemberFailed,
    MemoryFull,
    MoveAborted,
    MoveUndecided,
    NameTaken,
    NoMember,
    NoReducer,
    NotJoined,
    OptionInvalid,
    PatternInvalid,
    ScanStopped,
    TypeConflict,
    Unsupported,
    ValueTooBig,
)
from flowferry.estate.estate import Estate, Tls
from flowferry.estate.flow import AnyFlow, FlowState, scope
from flowferry.estate.reducers import reducer
from flowferry.estate.view import (
    Cached,
    Consistency,
    Event,
    GlobalRead,
    Item,
    Live,
    Snapshot,
    View,
)
from flowferry.estate.watch import Watch

__all__ = [
    "JSON",
    "PICKLE",
    "AnyFlow",
    "AsyncEstate",
    "AsyncFlowState",
    "AsyncItem",
    "BackendFailed",
    "Cached",
    "Closed",
    "Codec",
    "Consistency",
    "CounterOverflow",
    "Estate",
    "EstateError",
    "Event",
    "FlowState",
    "Forked",
    "Frozen",
    "GlobalRead",
    "IncompleteError",
    "Item",
    "ItemHandle",
    "KeyInvalid",
    "Live",
    "MemberFailed",
    "MemoryFull",
    "MoveAborted",
    "MoveUndecided",
    "NameTaken",
    "NoMember",
    "NoReducer",
    "NotJoined",
    "OptionInvalid",
    "PatternInvalid",
    "ScanStopped",
    "Snapshot",
    "Tls",
    "TypeConflict",
    "Unsupported",
    "ValueTooBig",
    "View",
    "Watch",
    "aopen",
    "open",
    "reducer",
    "scope",
]

P = ParamSpec("P")


def open(
    *,
    cluster: str,
    node: str,
    listen: str | Sequence[str] = (),
    peers: str | Sequence[str] = (),
    backend: str = "p2p",
    scouting: bool = False,
    relay: bool = False,
    tls: Tls | None = None,
    memory_limit: int | None = None,
    failure_after: float = 1.0,
    timeout: float = 1.0,
) -> Estate:
    """Join a cluster; leave it by `close`, or at the end of a `with` block.

    Args:
        cluster: Its name. Only members of one cluster see each other.
        node: The name of this instance, unique in the cluster.
        listen: With `p2p`, the address to be reached at, ``host:port``; port 0 takes a free one.
        peers: With `p2p`, addresses of members to begin with; not all of them have to be up.
        backend: ``p2p``; ``local`` shares nothing; ``redis://host:port``,
            ``redis+unix:///path`` and ``redis+cluster://host:port,…`` keep items at servers.
        scouting: With `p2p`, find members by multicast, too.
        relay: With `p2p`, pass messages on between members that are linked to this one and
            cannot reach each other, as those of two sites.
        tls: With `p2p`, mutual authentication; all members have it, or none.
        memory_limit: The most bytes that items may take in this process; then those with a time
            to live are evicted, the least recently used first, and without such a write fails.
        failure_after: Seconds after which a member that is not heard of has failed.
        timeout: Seconds that a global operation waits unless it says so itself.

    Raises:
        OptionInvalid: A name or an address cannot be.
        NameTaken: A live member has this name.
        BackendFailed: The server cannot be reached.
    """
    return Estate(
        cluster=cluster,
        node=node,
        backend=backend,
        listen=_addresses(listen),
        peers=_addresses(peers),
        scouting=scouting,
        relay=relay,
        tls=None if tls is None else (tls.ca, tls.certificate, tls.key),
        memory_limit=memory_limit,
        failure_after=failure_after,
        timeout=timeout,
    )


def _addresses(given: str | Sequence[str]) -> list[str]:
    return [given] if isinstance(given, str) else list(given)


def _awaited(opening: Callable[P, Estate]) -> Callable[P, Coroutine[Any, Any, AsyncEstate]]:
    async def opened(*args: P.args, **options: P.kwargs) -> AsyncEstate:
        return (await asyncio.to_thread(opening, *args, **options)).aio

    return opened


aopen = _awaited(open)
"""`open` with the same options for asyncio: ``async with await estate.aopen(…) as es: …``."""
