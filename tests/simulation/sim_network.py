"""Switches with stale caches, links that keep their order, and steering that does not.

What the model grants, and no more: a switch looks a flow up once and then uses what it found,
after a change for up to `stale` nanoseconds beyond its barrier reply; a flow stays with one cache
entry; what a switch puts out of one port stays in order. On arrival packets are spread over the
CPUs of the instance by flow, so that order is kept within a flow only; a control frame lands on
any of them.
"""

from __future__ import annotations

from collections.abc import Callable

from sim_clock import MS, US, Clock
from sim_ledger import Flow, Packet

from flowferry.wire import Side


class Port:
    """The way from a switch to one interface of an instance."""

    def __init__(self, clock: Clock, cpus: int, stall: float) -> None:
        """`stall`: how often a CPU is held up."""
        self._clock = clock
        self._stall = stall
        self._link_free = 0
        self._cpu_free = [0] * cpus

    def carry(self, cpu: int | None, call: Callable[..., None], *args: object) -> None:
        """Call when the frame is handled, on its CPU or on any."""
        clock = self._clock
        self._link_free = max(self._link_free, clock.now + clock.between(5 * US, 60 * US))
        if cpu is None:
            cpu = clock.random.randrange(len(self._cpu_free))
        self._handle(cpu % len(self._cpu_free), self._link_free, call, *args)

    def _handle(self, cpu: int, arrival: int, call: Callable[..., None], *args: object) -> int:
        clock = self._clock
        spent = clock.between(1 * US, 6 * US)
        if clock.random.random() < self._stall:
            spent += clock.between(0, 2 * MS)
        done = max(self._cpu_free[cpu], arrival) + spent
        self._cpu_free[cpu] = done
        clock.at(done, call, *args)
        return done

    def flush(self, call: Callable[..., None], *args: object) -> None:
        """Call when everything that is queued on any CPU now has been handled."""
        now = self._clock.now
        done = [self._handle(cpu, now, _nothing) for cpu in range(len(self._cpu_free))]
        self._clock.at(max(done), call, *args)


def _nothing() -> None:
    """What a flush frame does."""


class Switch:
    """One side's switch: which instance each flow goes to, now and by stale entries."""

    def __init__(self, clock: Clock, side: Side, stale: int) -> None:
        """`stale`: nanoseconds that an old entry may live on after the barrier reply."""
        self._clock, self.side, self._stale = clock, side, stale
        #: Part number to instance; a flow of no part is at its home.
        self.entries: dict[int, int] = {}
        self._cache: dict[Flow, int] = {}
        self._stale_until: dict[Flow, int] = {}
        #: The controller's connection is there.
        self.connected = True
        self.refuses = False

    def change(self, entries: dict[int, int]) -> None:
        """New entries are in force, but for what is cached."""
        clock = self._clock
        for flow in self._cache:
            if flow.part in entries and self.entries.get(flow.part) != entries[flow.part]:
                # Mostly soon, sometimes as late as can be.
                share = clock.random.random() ** clock.random.choice((1, 6))
                until = clock.now + int(self._stale * share)
                self._stale_until[flow] = max(until, self._stale_until.get(flow, 0))
        self.entries |= entries

    def instance_for(self, packet: Packet) -> int:
        """Where it goes."""
        flow = packet.flow
        cached = self._cache.get(flow)
        if cached is not None and self._clock.now < self._stale_until.get(flow, 0):
            return cached
        self._cache[flow] = self.entries.get(flow.part, flow.home) if flow.part else flow.home
        return self._cache[flow]
