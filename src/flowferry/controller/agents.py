"""Control frames to and from the instances' support layers, over the switches' data plane.

Frames are signed and numbered here and go out by packet-out at the instance's own port; what comes
in by packet-in is opened, must come from the port of the instance that signed it, and is joined if
it came in parts. Also here: who is alive. An agent is asked for a status at intervals; one that
takes part in a handover more often.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace

from flowferry.controller.model import BOTH_SIDES, DOWNSTREAM, UPSTREAM, Instance, Model
from flowferry.controller.openflow.channel import Channel
from flowferry.controller.openflow.codec import PacketIn
from flowferry.wire import (
    CONTROLLER,
    Assembler,
    Command,
    Counter,
    Flags,
    KeyRing,
    Message,
    Opener,
    PartError,
    RejectedError,
    Sealer,
    Side,
    UnsendableError,
    address_of,
    split,
)

LOG = logging.getLogger(__name__)
#: Means nothing to receivers, and says in a capture who speaks.
SOURCE = address_of(CONTROLLER)
#: Why an agent counts as dead that answers.
RESTARTED = "its agent failed open or was restarted"
#: Between questions to agents that take part in nothing, in heartbeats.
IDLE_FACTOR = 5


@dataclass
class Pulse:
    """What is known of one agent."""

    #: Event loop time of the last frame from it, or `None`.
    heard: float | None = None
    #: Questions since.
    missed: int = 0
    #: Whether the last that others were told of it is that it is there.
    there: bool = False
    #: Of its process as it is now, once that has reported it.
    epoch: int | None = None
    #: Of its process: a greater one is another process, which knows nothing of what was under way.
    boot: int | None = None
    #: Boot and epoch of the last heartbeat's status, and when it came: `counts` are of then.
    counted: tuple[int, int | None, float] | None = None
    name: str | None = None
    counts: Mapping[Counter, int] = field(default_factory=dict)


class Agents:
    """All agents of a model. Not a thread's business but the event loop's."""

    def __init__(
        self,
        keys: KeyRing,
        *,
        boot: int,
        model: Callable[[], Model],
        channels: Mapping[int, Channel],
        on_message: Callable[[Instance, Message], None],
        on_dead: Callable[[Instance, str], None],
        on_alive: Callable[[Instance], None],
        on_lost: Callable[[Instance, int, bool, float], None],
        on_frame: Callable[[str, str], None] = lambda direction, outcome: None,
        heartbeat: float,
        dead_after: int,
    ) -> None:
        """`heartbeat`: seconds; after `dead_after` unanswered ones an agent counts as dead.

        `on_alive`: an agent is heard for the first time, or again after `on_dead`.
        `on_lost`: an agent has begun a new epoch, and that many packets are lost which were held
        in the one before; whether it is another process; when it was last heard of before.
        `on_frame`: a control frame, by direction (`out`, `in`) and outcome (`sent`; `accepted`,
        `rejected`, `misplaced`).
        """
        self._keys = keys
        self._sealer = Sealer(keys, sender=CONTROLLER, boot=boot)
        self.opener = Opener(keys, own=CONTROLLER)
        self._assembler = Assembler()
        self._model, self._channels = model, channels
        self._on_message, self._on_lost = on_message, on_lost
        self._on_dead, self._on_alive = on_dead, on_alive
        self._on_frame = on_frame
        self._heartbeat, self._dead_after = heartbeat, dead_after
        self._lists = itertools.count(1)
        self._last_side: dict[int, Side] = {}
        self._flow_lists: dict[int, asyncio.Future[Message]] = {}
        self._refreshing: list[dict[int, asyncio.Event]] = []
        self.pulses: dict[int, Pulse] = {}
        #: How many handovers an instance takes part in.
        self._engaged: dict[int, int] = {}
        #: Frames that were authentic but came from another instance's port.
        self.misplaced = 0
        #: Data packets that came to the controller: there must be none.
        self.data_packets = 0
        self.frames_out = 0

    # -- out -----------------------------------------------------------------------------------

    def send(self, number: int, side: Side | None, message: Message) -> list[int]:
        """Send to an instance; the sequence numbers of the frames, none if there was no way.

        Without a side it goes to whichever side's switch is there, and repeats (flag `RETRY`)
        alternate between the sides, so that no dead link stands in the way for ever.
        A PREPARE quotes the agent's epoch; while that is not known, the agent is asked for it.
        """
        instance = self._model().instances.get(number)
        if instance is None:
            return []
        if message.command is Command.PREPARE:
            # Recorded, and sent again to an agent that was restarted, it is refused.
            epoch = self.pulses.get(number, Pulse()).epoch
            if epoch is None:
                # It asks for this again soon (`strategies.requests`), when the answer is here.
                self.send(number, side, Message(command=Command.QUERY, flags=message.flags))
                return []
            message = replace(message, epoch=epoch)
        sides = self._sides(instance, side, bool(message.flags & Flags.RETRY))
        for one in sides:
            group = self._model().groups[instance.group]
            channel = self._channels.get(group.at(one).dpid)
            if channel is None:
                continue
            sequences = []
            for each in self._fitting(replace(message, to=number)):
                try:
                    frame, sent = self._sealer.seal(
                        each, destination=address_of(number), source=SOURCE
                    )
                except UnsendableError:
                    LOG.exception("%s to instance %d", message.command.name, number)
                    return []
                channel.packet_out(instance.port(one), frame)
                sequences.append(sent.sequence)
                self._on_frame("out", "sent")
            self.frames_out += len(sequences)
            self._last_side[number] = one
            return sequences
        return []

    def _sides(self, instance: Instance, side: Side | None, retry: bool) -> tuple[Side, ...]:
        if side is not None:
            return (side,)
        last = self._last_side.get(instance.id, DOWNSTREAM if retry else UPSTREAM)
        if retry:
            return (DOWNSTREAM, UPSTREAM) if last is UPSTREAM else (UPSTREAM, DOWNSTREAM)
        return (UPSTREAM, DOWNSTREAM)

    def _fitting(self, message: Message) -> list[Message]:
        """The message, in parts if its lists are too long for one frame."""
        if len(message.overriding or ()) < 8 and len(message.flows or ()) < 20:
            return [message]
        try:
            return split(message, list_number=next(self._lists))
        except UnsendableError:
            LOG.exception("%s to instance %d cannot be sent", message.command.name, message.to)
            return []

    # -- in ------------------------------------------------------------------------------------

    def on_packet(self, channel: Channel, packet: PacketIn) -> None:
        """Take in a frame that a switch sent up."""
        if packet.frame[12:14] != b"\x82\x1c":
            self.data_packets += 1
            return
        try:
            part = self.opener.open(packet.frame)
        except RejectedError as error:
            self._on_frame("in", "rejected")
            LOG.debug("frame from switch %#x port %d: %s", channel.dpid, packet.port, error)
            return
        instance = self._model().instances.get(part.sender)
        if instance is None or not self._is_at(instance, channel.dpid, packet.port):
            self.misplaced += 1
            self._on_frame("in", "misplaced")
            return
        self._on_frame("in", "accepted")
        with suppress(PartError):
            message = self._assembler.add(part)
            self._alive(instance, part)
            if message is not None:
                self._deliver(instance, message)

    def _is_at(self, instance: Instance, dpid: int, port: int) -> bool:
        group = self._model().groups[instance.group]
        return any(
            group.at(side).dpid == dpid and instance.port(side) == port for side in BOTH_SIDES
        )

    def _deliver(self, instance: Instance, message: Message) -> None:
        if message.command is Command.STATUS and message.flows is not None:
            waiting = self._flow_lists.pop(instance.id, None)
            if waiting is not None and not waiting.done():
                waiting.set_result(message)
        elif message.handover:
            self._on_message(instance, message)

    def _alive(self, instance: Instance, message: Message) -> None:
        pulse = self.pulses.setdefault(instance.id, Pulse())
        pulse.heard, pulse.missed = asyncio.get_running_loop().time(), 0
        pulse.name = message.name or pulse.name
        before, pulse.boot = pulse.boot, message.boot
        if before not in (None, message.boot):
            # Before it is heard: it would answer for the one that has died.
            pulse.epoch = None
            self._dead(instance, pulse, RESTARTED)
        if message.command is Command.STATUS:
            epoch, pulse.epoch = pulse.epoch, message.epoch or pulse.epoch
            for waiting in self._refreshing:
                if instance.id in waiting:
                    waiting[instance.id].set()
            if epoch is not None and epoch != pulse.epoch:
                self._dead(instance, pulse, RESTARTED)
            if message.counts is not None and not message.handover:
                self._count(instance, pulse, message, message.counts)
        if not pulse.there:
            pulse.there = True
            self._on_alive(instance)

    def _dead(self, instance: Instance, pulse: Pulse, why: str) -> None:
        pulse.there = False
        self._on_dead(instance, why)

    def _count(
        self, instance: Instance, pulse: Pulse, message: Message, counts: Mapping[Counter, int]
    ) -> None:
        before, counts_before = pulse.counted, pulse.counts
        pulse.counted = message.boot, pulse.epoch, asyncio.get_running_loop().time()
        pulse.counts = counts
        if before is None or before[1] == pulse.epoch:
            return
        fresh = before[0] != message.boot
        known = 0 if fresh else counts_before.get(Counter.LOST_PACKETS, 0)
        lost = counts.get(Counter.LOST_PACKETS, 0) - known
        if lost > 0:
            self._on_lost(instance, lost, fresh, before[2])

    # -- who is alive --------------------------------------------------------------------------

    async def watch(self) -> None:
        """Ask for ever."""
        for turn in itertools.count():
            for instance in list(self._model().instances.values()):
                if self._engaged.get(instance.id) or turn % IDLE_FACTOR == 0:
                    self._ask(instance)
            await asyncio.sleep(self._heartbeat)

    def engage(self, numbers: Iterable[int]) -> None:
        """These take part in one more handover; what they have missed before it does not count."""
        for number in numbers:
            self._engaged[number] = self._engaged.get(number, 0) + 1
            self.pulses.setdefault(number, Pulse()).missed = 0

    def disengage(self, numbers: Iterable[int]) -> None:
        """The inverse of `engage`."""
        for number in numbers:
            self._engaged[number] -= 1

    def ask_all(self) -> None:
        """Ask everybody now: there is a new way to them."""
        for instance in list(self._model().instances.values()):
            self._ask(instance)

    async def refresh(self, numbers: Iterable[int], seconds: float) -> None:
        """Ask these agents and wait for their answers, at most so long.

        What is known of them afterwards, the epoch above all, is not from before a restart.
        """
        waiting = {number: asyncio.Event() for number in numbers}
        self._refreshing.append(waiting)
        try:
            async with asyncio.timeout(seconds):
                for number in waiting:
                    if number in self._model().instances:
                        self._ask(self._model().instances[number])
                for event in waiting.values():
                    await event.wait()
        except TimeoutError:
            return
        finally:
            self._refreshing.remove(waiting)

    def _ask(self, instance: Instance) -> None:
        pulse = self.pulses.setdefault(instance.id, Pulse())
        if pulse.missed == self._dead_after:
            silent = f"its agent did not answer {pulse.missed} heartbeats; see that it runs"
            self._dead(instance, pulse, silent)
        flags = Flags.RETRY if pulse.missed else Flags.NONE
        pulse.missed += 1
        self.send(instance.id, None, Message(command=Command.QUERY, flags=flags))

    def alive(self, number: int) -> bool:
        """Whether an agent has answered lately."""
        pulse = self.pulses.get(number)
        return pulse is not None and pulse.heard is not None and pulse.missed <= self._dead_after

    async def flows(self, number: int, timeout: float) -> Message | None:
        """An agent's flow list (a `status`); `None` if it does not answer within `timeout` s."""
        waiting = self._flow_lists.get(number)
        if waiting is None:
            waiting = asyncio.get_running_loop().create_future()
            self._flow_lists[number] = waiting
        try:
            async with asyncio.timeout(timeout):
                for attempt in itertools.count():
                    flags = Flags.RETRY if attempt else Flags.NONE
                    self.send(number, None, Message(command=Command.QUERY, flows=(), flags=flags))
                    with suppress(TimeoutError):
                        return await asyncio.wait_for(asyncio.shield(waiting), timeout / 4)
        except TimeoutError:
            if self._flow_lists.get(number) is waiting:
                del self._flow_lists[number]
        return None

    def forget(self, handover: int) -> None:
        """Drop what had been joined for a part that is over."""
        self._assembler.forget(handover)
