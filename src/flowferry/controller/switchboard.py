"""The switches as they should be: entries of the model in force, on every switch that is there.

A switch that connects is brought in line: what it has of ours is compared with what it should have,
and only the difference is sent, so that packets find their entries at every instant. One change at
a time goes to a switch. What happened to a switch while it was away, or while the controller was,
needs no memory: the comparison finds it.

While a turn is not decided, a switch that comes back keeps what it has: to turn it behind the
strategy's back, when the old path is said to be fenced already, would put its packets out of order.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from flowferry.controller.model import Model
from flowferry.controller.openflow import tables
from flowferry.controller.openflow.channel import Channel, SwitchError
from flowferry.controller.openflow.codec import Entry
from flowferry.controller.openflow.tables import Key

LOG = logging.getLogger(__name__)


@dataclass
class _Switch:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    #: What it has of ours, as far as it has said; `None` until it is in line.
    has: dict[Key, Entry] | None = None
    #: When it was brought in line last, in the event loop's time.
    since: float = 0.0


class Switchboard:
    """Entries of one model on all switches."""

    def __init__(
        self,
        channels: dict[int, Channel],
        first_table: int,
        on_ready: Callable[[int, bool], None],
    ) -> None:
        """`channels` by dpid, kept by the listener; `on_ready` hears when a switch is in line."""
        self._channels, self._first_table, self._on_ready = channels, first_table, on_ready
        self._switches: dict[int, _Switch] = {}
        self._wanted: dict[int, dict[Key, Entry]] = {}
        #: Keys that a comparison leaves as they are, by the handover whose turn is not decided.
        self._contested: dict[object, set[tuple[int, Key]]] = {}

    @property
    def dpids(self) -> list[int]:
        """All switches of the model."""
        return sorted(self._wanted)

    def ready(self, dpid: int) -> bool:
        """Whether a switch is there and in line."""
        known = self._switches.get(dpid)
        return dpid in self._channels and known is not None and known.has is not None

    def youngest(self, dpids: Iterable[int]) -> float:
        """For how long these switches have been in line, those of them that are, in seconds."""
        now = asyncio.get_running_loop().time()
        since = [self._switches[dpid].since for dpid in dpids if self.ready(dpid)]
        return now - max(since, default=0.0)

    def want(self, model: Model) -> None:
        """Let this be the model; `sync` or the next connection puts it in force."""
        self._wanted = tables.entries(model, self._first_table)

    def contest(self, owner: object, one: Model, other: Model) -> None:
        """Where two models differ, take what a switch has, until `settle`."""
        first = tables.entries(one, self._first_table)
        second = tables.entries(other, self._first_table)
        self._contested[owner] = {
            (dpid, key)
            for dpid in first.keys() | second.keys()
            for key in first.get(dpid, {}).keys() | second.get(dpid, {}).keys()
            if first.get(dpid, {}).get(key) != second.get(dpid, {}).get(key)
        }

    def settle(self, owner: object) -> bool:
        """The owner knows again what is right; whether it did not."""
        return self._contested.pop(owner, None) is not None

    async def greet(self, channel: Channel) -> None:
        """Bring a switch in line that has just connected. Raises `SwitchError`."""
        if channel.dpid not in self._wanted:
            LOG.warning("switch %#x belongs to no group; it is left as it is", channel.dpid)
            return
        switch = self._switches.setdefault(channel.dpid, _Switch())
        async with switch.lock:
            switch.has = None
            found = await channel.entries(tables.COOKIE, tables.COOKIE_MASK)
            has = {each.entry.key: each.entry for each in found if each.entry is not None}
            switch.has = await self._align(channel, has)
            switch.since = asyncio.get_running_loop().time()
        self._on_ready(channel.dpid, True)

    def gone(self, channel: Channel) -> None:
        """A switch has gone."""
        switch = self._switches.get(channel.dpid)
        if switch is not None and self._channels.get(channel.dpid) in (None, channel):
            switch.has = None
            self._on_ready(channel.dpid, False)

    async def sync(self, dpids: Iterable[int], owner: object = None) -> list[str]:
        """Put the wanted entries in force on these switches, and say what failed.

        What is contested stays as it is, but for what the owner contests.
        """
        answers = await asyncio.gather(*(self._sync(dpid, owner) for dpid in dpids))
        return [answer for answer in answers if answer is not None]

    async def _sync(self, dpid: int, owner: object) -> str | None:
        switch = self._switches.setdefault(dpid, _Switch())
        async with switch.lock:
            channel = self._channels.get(dpid)
            if channel is None or switch.has is None:
                return f"switch {dpid:#x} is not connected"
            try:
                switch.has = await self._align(channel, switch.has, owner)
            except SwitchError as error:
                if "refused" not in str(error) or not channel.all_or_none:
                    # Nobody knows what it did: let it come again and be compared.
                    switch.has = None
                    channel.close(str(error))
                return str(error)
        return None

    async def _align(
        self, channel: Channel, has: dict[Key, Entry], owner: object = None
    ) -> dict[Key, Entry]:
        """Send the difference; what it has then."""
        others = (keys for one, keys in self._contested.items() if one != owner)
        # One that has nothing at all was restarted: there is nothing to keep, and what it lacks
        # would lead flows to wherever the rule below says.
        contested: set[tuple[int, Key]] = set().union(*others) if has else set()
        wanted = self._wanted.get(channel.dpid, {})
        target = {
            key: entry
            for key in has.keys() | wanted.keys()
            if (entry := (has.get(key) if (channel.dpid, key) in contested else wanted.get(key)))
            is not None
        }
        await channel.apply(tables.changes(has, target))
        return target
