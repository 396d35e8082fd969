"""Arms of a comparison: a chain brought into one of several states, and measured there in turn."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from pyroute2 import IPRoute

from flowferry.bench import statistics
from flowferry.hsl import Agent, Client
from flowferry.hsl.wiring import config_for
from flowferry.testbed import Chain, links, namespace

S = TypeVar("S")

#: Other work on the machine should wait for a measurement, not the other way round. Everything
#: that a bench starts inherits it, in every arm alike.
NICENESS = -15


@dataclass(frozen=True)
class Arm:
    """A name, the chain it is measured on, and how that gets into the state meant.

    `state` is entered before a measurement and left after it, unless the next measurement is of
    the same arm. It yields a client of the agent, if the state has one.
    """

    name: str
    chain: Chain
    state: Callable[[], AbstractContextManager[Client | None]] = nullcontext


def take_turns(
    arms: Sequence[Arm], passes: int, measure: Callable[[Arm, Client | None], S]
) -> dict[str, list[S]]:
    """Measure every arm once a pass, in alternating order; the samples by arm, in pass order.

    One more pass goes first and is thrown away: caches, tables and clocks warm up in it.
    """
    samples: dict[str, list[S]] = {arm.name: [] for arm in arms}
    order = statistics.passes(arms, passes + 1)
    with ExitStack() as outer:
        current: Arm | None = None
        client: Client | None = None
        stack = outer.enter_context(ExitStack())
        for number, arm in ((n, arm) for n, one in enumerate(order) for arm in one):
            if arm is not current:
                stack.close()
                client = stack.enter_context(arm.state())
                current = arm
            sample = measure(arm, client)
            if number > 0:
                samples[arm.name].append(sample)
    return samples


@contextmanager
def attached(chain: Chain, *, cpu: int | None = None, stall_ms: int = 0) -> Iterator[Client]:
    """An agent in front of the chain's function; afterwards nothing of it is left there."""
    with Agent(config_for(chain, stall_ms=stall_ms), cpu=cpu) as agent, agent.client() as client:
        yield client
        client.stop(detach=True)
        agent.result()


@contextmanager
def bridged(chain: Chain) -> Iterator[None]:
    """Outer and inner interfaces joined by plain bridges of the kernel, no BPF anywhere."""
    nf = chain.namespaces["nf"]
    pairs = {"bru": ("up", "iup"), "brd": ("down", "idown")}
    for name, ports in pairs.items():
        links.bridge(nf, name, ports, mtu=chain.mtu)
    try:
        yield
    finally:
        for name in pairs:
            namespace.configure(nf, partial(_delete, dev=name))


def _delete(ipr: IPRoute, dev: str) -> None:
    ipr.link("del", index=links.index(ipr, dev))


@contextmanager
def preferred() -> Iterator[None]:
    """Run everything from here on, and what it starts, before other work of the machine."""
    before = os.getpriority(os.PRIO_PROCESS, 0)
    os.setpriority(os.PRIO_PROCESS, 0, NICENESS)
    try:
        yield
    finally:
        os.setpriority(os.PRIO_PROCESS, 0, before)


def say(text: str) -> None:
    """Tell on stderr what is being measured, where somebody looks."""
    if sys.stderr.isatty():
        print(text, file=sys.stderr, flush=True)
