"""A controller with scripts for switches and strategies, which do what a test says."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
from test_controller_tables import frame, sent_to
from test_partition import model

from flowferry.controller import strategies
from flowferry.controller.change import Change, moving
from flowferry.controller.handover import Handover
from flowferry.controller.match import parse
from flowferry.controller.model import Instance, Model
from flowferry.controller.openflow.channel import Channel, SwitchError
from flowferry.controller.openflow.codec import Change as EntryChange
from flowferry.controller.openflow.codec import Entry, EntryStats
from flowferry.controller.openflow.oxm import Oxm
from flowferry.controller.service import Service
from flowferry.controller.store import Store, read_peer
from flowferry.controller.strategies.base import (
    AbortRequested,
    Action,
    Decided,
    Event,
    Finished,
    HandoverState,
    Journal,
    Plan,
    Report,
    Settings,
    SwitchGone,
)
from flowferry.wire import (
    KeyRing,
    Match,
)

KEYS = KeyRing(1, bytes(32))
FLOW = parse("udp,nw_src=10.0.0.1,nw_dst=10.0.0.2,tp_src=5,tp_dst=80")


class Switch:
    """A switch that keeps its entries; `refuses` makes it refuse the next change."""

    all_or_none = True

    def __init__(self, dpid: int) -> None:
        self.dpid, self.address = dpid, "test"
        self.entries_now: dict[tuple[int, int, Oxm], Entry] = {}
        self.refuses = False
        self.sent: list[tuple[int, bytes]] = []
        self.closed = False

    async def entries(self, cookie: int, mask: int) -> list[EntryStats]:
        return [
            EntryStats(one, one.cookie, one.table, one.priority, 0, 0)
            for one in self.entries_now.values()
            if one.cookie & mask == cookie
        ]

    async def apply(self, changes: Sequence[EntryChange]) -> None:
        await asyncio.sleep(0)
        if self.refuses and changes:
            raise SwitchError(f"switch {self.dpid} refused an entry")
        for change in changes:
            if change.remove:
                del self.entries_now[change.entry.key]
            else:
                self.entries_now[change.entry.key] = change.entry

    def packet_out(self, port: int, sent: bytes) -> None:
        self.sent.append((port, sent))

    def close(self, why: str = "") -> None:
        self.closed = True


def obey(event: Event) -> list[Action]:
    """A strategy that lets itself be called off, and does nothing else."""
    return [Decided(True)] if isinstance(event, AbortRequested) else []


class Script:
    """A strategy that does what the test says, and keeps what it is told."""

    made: list["Script"]

    def __init__(self) -> None:
        self.name = "script"
        self.plan: Plan
        self.events: list[Event] = []
        self.restored: Mapping[str, Any] | None = None
        self.answers: Callable[[Event], list[Action]] = obey
        self.state = HandoverState.PREPARING
        self.next_due: float | None = None
        Script.made.append(self)

    def start(self, plan: Plan, now: float) -> list[Action]:
        self.plan = plan
        return [Journal("preparing", {"x": 1})]

    def restore(self, plan: Plan, data: Mapping[str, Any], now: float) -> list[Action]:
        self.plan, self.restored = plan, data
        return []

    def handle(self, event: Event, now: float) -> list[Action]:
        self.events.append(event)
        return self.answers(event)

    def report(self, now: float) -> Report:
        return Report(duration_ms=1.0)


class World:
    """A service with two switches."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.switches = {1: Switch(1), 2: Switch(2)}

    async def up(self, *, connected: bool = True) -> Service:
        made = model()
        for one in list(made.instances.values()):
            peer = read_peer(one.id, f"172.31.0.{one.id}:7001")
            made = made.with_instance(Instance(one.name, one.id, "nf", *(10 + one.id,) * 2, peer))
        service = Service(
            made, Store(self.path), KEYS, first_table=10, heartbeat=9.0, dead_after=5,
            echo_interval=9.0, timeout=1.0, greeting=0.0,
        )  # fmt: skip
        service.start()
        if connected:
            await self.connect(service)
        return service

    async def connect(self, service: Service) -> None:
        for dpid, switch in self.switches.items():
            service.listener.channels[dpid] = cast(Channel, switch)
            await service.board.greet(cast(Channel, switch))

    def way(self, packet: Match = FLOW) -> int:
        """The port that the upstream switch sends a flow's packets by."""
        (port,) = sent_to(self.switches[1].entries_now.values(), frame(packet, 1))
        return port


Case = Callable[[World], Awaitable[None]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Case], None]:
    """Run a case in an event loop of its own."""
    Script.made = []
    monkeypatch.setattr(strategies, "make", lambda name, hook=None: Script())

    def work(case: Case) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(20):
                await case(World(tmp_path / "journal.db"))

        asyncio.run(bounded())

    return work


def ask(
    service: Service,
    words: str,
    to: int,
    priority: int | None = None,
    settings: Settings | None = None,
) -> Handover:
    number = service.store.next_number("handover")
    rule = service.store.next_number("rule")
    settings = settings or Settings()
    handover = Handover(number, "nf", words, f"i{to}", "script", False, settings, time.time())

    def build(now: Model) -> Change:
        return moving(now, "nf", parse(words), to, priority, False, rule)

    return service.submit(handover, build)


async def settle() -> None:
    """Let everything that is ready to run do so."""
    for _ in range(20):
        await asyncio.sleep(0)


async def act(service: Service, number: int, *actions: Action) -> None:
    """Have the strategy of a handover answer something with these actions."""
    script = next(one for one in reversed(Script.made) if one.plan.number == number)
    script.answers = lambda event: []
    first = [list(actions)]
    script.answers = lambda event: first.pop() if first else []
    conductor = service._conductors[number]
    conductor.feed(SwitchGone(99, ()))
    await settle()


def done(script: Script) -> Finished:
    return Finished(HandoverState.DONE, None, tuple(p.number for p in script.plan.parts))


def aborted(why: str) -> Finished:
    return Finished(HandoverState.ABORTED, why, ())
