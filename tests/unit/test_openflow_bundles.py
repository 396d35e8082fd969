"""Entries on a switch that knows no bundles: in their order, step by step."""

import asyncio
import itertools
import logging
import socket
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest
from test_controller_tables import FIRST, three

from flowferry.controller.match import parse
from flowferry.controller.model import Rule
from flowferry.controller.openflow import codec, tables
from flowferry.controller.openflow.channel import Channel, SwitchError
from flowferry.controller.openflow.codec import Change
from flowferry.controller.openflow.listener import Listener
from flowferry.controller.switchboard import Switchboard

DEADLINE = 20.0
#: Statistics of flows, the last part, without one.
NO_ENTRIES = struct.pack("!HH4x", 1, 0)
#: What it answers: an experimenter that it does not know; a table that is full.
BAD_EXPERIMENTER, TABLE_FULL = struct.pack("!HH", 1, 3), struct.pack("!HH", 5, 1)


class Switch:
    """Says what a switch without bundles says; keeps what came between barriers."""

    def __init__(self) -> None:
        self.asked_for_bundles = 0
        #: Entry changes between barriers, as bytes without their transaction ids.
        self.steps: list[list[bytes]] = [[]]
        #: The number of the change that it refuses, from 0.
        self.refuses: int | None = None

    @property
    def taken(self) -> list[bytes]:
        """Entry changes behind each other."""
        return [one for step in self.steps for one in step]

    async def serve(self, address: tuple[str, int]) -> None:
        reader, writer = await asyncio.open_connection(*address)
        writer.write(codec.hello(1))
        with suppress(EOFError):
            while True:
                head = await reader.readexactly(codec.HEADER.size)
                body = await reader.readexactly(codec.frame_length(head) - len(head))
                _, kind, _, xid = codec.HEADER.unpack(head)
                writer.write(self.answer(kind, xid, head, body))
        writer.close()

    def answer(self, kind: int, xid: int, head: bytes, body: bytes) -> bytes:
        match kind:
            case codec.FEATURES_REQUEST:
                features = struct.pack("!QIBB2xII", 1, 0, 254, 0, 0, 0)
                return codec.message(codec.FEATURES_REPLY, xid, features)
            case codec.EXPERIMENTER:
                self.asked_for_bundles += 1
                return codec.message(codec.ERROR, xid, BAD_EXPERIMENTER + head)
            case codec.FLOW_MOD:
                self.steps[-1].append(body)
                if len(self.taken) - 1 == self.refuses:
                    return codec.message(codec.ERROR, xid, TABLE_FULL + head)
            case codec.MULTIPART_REQUEST:
                return codec.message(codec.MULTIPART_REPLY, xid, NO_ENTRIES)
            case codec.BARRIER_REQUEST:
                self.steps.append([])
                return codec.message(codec.BARRIER_REPLY, xid)
        return b""


def run(case: Callable[[Switch, Channel], Awaitable[None]]) -> None:
    """A case with a switch whose connection is up."""

    async def work() -> None:
        up: asyncio.Future[Channel] = asyncio.get_running_loop().create_future()

        async def on_up(channel: Channel) -> None:
            up.set_result(channel)

        listener = Listener(
            on_up=on_up, on_down=lambda *_: None, on_packet=lambda *_: None, timeout=DEADLINE
        )
        switch = Switch()
        with socket.create_server(("127.0.0.1", 0)) as sock:
            await listener.start(sock)
            serving = asyncio.create_task(switch.serve(sock.getsockname()))
            async with asyncio.timeout(DEADLINE):
                await case(switch, await up)
                await listener.stop()
                await serving

    logging.getLogger("flowferry.controller.openflow").setLevel(logging.CRITICAL)
    try:
        asyncio.run(work())
    finally:
        logging.getLogger("flowferry.controller.openflow").setLevel(logging.NOTSET)


def changes() -> list[Change]:
    """One entry comes, one goes."""
    before = three().with_rule(Rule(1, "nf", parse("udp"), 100, 2))
    after = three().with_rule(Rule(2, "nf", parse("udp,tp_dst=80"), 200, 3))
    found = tables.changes(tables.entries(before, FIRST)[1], tables.entries(after, FIRST)[1])
    assert [change.remove for change in found] == [False, True]
    return found


def as_sent(found: list[Change]) -> list[bytes]:
    return [codec.flow_mod(0, change)[codec.HEADER.size :] for change in found]


def test_entries_come_in_their_order_and_nobody_asks_for_a_bundle_again() -> None:
    async def case(switch: Switch, channel: Channel) -> None:
        found = changes()
        for times in (1, 2):
            await channel.apply(found)
            assert switch.taken == as_sent(found) * times
        assert switch.asked_for_bundles == 1

    run(case)


def test_a_barrier_stands_wherever_the_order_matters() -> None:
    """A switch may take what comes between two barriers in any order."""

    def of_one_step(change: Change) -> tuple[bool, int, int]:
        return change.remove, change.entry.table, change.entry.priority

    async def case(switch: Switch, channel: Channel) -> None:
        found = changes()
        await channel.apply(found)
        assert switch.steps == [*([one] for one in as_sent(found)), []]
        switch.steps = [[]]
        whole = tables.changes({}, tables.entries(three(), FIRST)[1])
        await channel.apply(whole)
        steps = [as_sent(list(step)) for _, step in itertools.groupby(whole, of_one_step)]
        assert len(steps) > 4
        assert switch.steps == [*steps, []]

    run(case)


def test_a_refused_entry_is_named_though_others_are_taken() -> None:
    async def case(switch: Switch, channel: Channel) -> None:
        found = changes()
        switch.refuses = 1
        where = f"table {found[1].entry.table}, priority {found[1].entry.priority}"
        with pytest.raises(SwitchError, match=rf"refused an entry \({where}\): .*full"):
            await channel.apply(found)
        assert len(switch.taken) == len(found)

    run(case)


def test_nobody_believes_to_know_what_a_switch_has_that_took_half_of_a_change() -> None:
    async def case(switch: Switch, channel: Channel) -> None:
        board = Switchboard({1: channel}, FIRST, lambda *_: None)
        before = three().with_rule(Rule(1, "nf", parse("udp"), 100, 2))
        board.want(before)
        await board.greet(channel)
        assert board.ready(1)
        switch.refuses = len(switch.taken)
        board.want(before.with_rule(Rule(2, "nf", parse("udp,tp_dst=80"), 200, 3)))
        (failed,) = await board.sync([1])
        assert "refused an entry" in failed
        board.want(before)
        assert await board.sync([1]) == ["switch 0x1 is not connected"]

    run(case)
