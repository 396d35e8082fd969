"""Control frames under way: between controller and agents, and among agents, by the switches.

They may be lost, late or doubled, and a stranger may send some, with everything right but the key.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from sim_clock import MS, US
from sim_ledger import SIDES
from sim_scenario import DESTINATION

from flowferry.wire import Command, Flags, KeyRing, Message, Reason, Report, Sealer, Side

if TYPE_CHECKING:
    from sim_world import World


class Frames:
    """All of one run."""

    def __init__(self, world: World) -> None:
        """None is under way."""
        self._world, self._clock = world, world.clock
        self._stranger = Sealer(KeyRing(1, bytes(32)), sender=0, boot=1 << 40)
        #: Instances whose control frames are all lost.
        self.unheard: set[int] = set()

    def down(self, instance: int, side: Side | None, retry: bool, frame: bytes) -> None:
        """From the controller: a packet-out at a switch to an instance's port."""
        if instance in self.unheard:
            return
        if side is None:
            there = [one for one in SIDES if self._world.switches[one].connected]
            if not there:
                return
            side = there[-1] if retry and self._clock.random.random() < 0.5 else there[0]
        for pause in self._fates():
            self._clock.after(pause, self._put_out, instance, side, frame)

    def _put_out(self, instance: int, side: Side, frame: bytes) -> None:
        if self._world.switches[side].connected:
            self._pass_on(instance, side, frame)

    def out(self, instance: int, to: int, side: int, frame: bytes) -> None:
        """From an instance to another one, by a switch, or to the controller as a packet-in."""
        if instance in self.unheard:
            return
        if to:
            for pause in self._fates():
                self._clock.after(pause, self._pass_on, to, Side(side), frame)
        elif self._world.switches[Side(side)].connected:
            for pause in self._fates():
                self._clock.after(pause, self._world.controller.on_frame, frame)

    def _pass_on(self, instance: int, side: Side, frame: bytes) -> None:
        agent = self._world.agents[instance]
        agent.ports[side].carry(None, agent.on_frame, side, frame)

    def _fates(self) -> Iterator[int]:
        """When a control frame arrives: once, or late, or twice, or never."""
        random, scenario = self._clock.random, self._world.scenario
        if random.random() < scenario.loss:
            return
        for _ in range(2 if random.random() < scenario.doubling else 1):
            late = 30 * MS if random.random() < scenario.lateness else 0
            yield self._clock.between(40 * US, 600 * US + late)

    def forge(self) -> None:
        """A stranger's frame, with everything right but the key."""
        number = self._clock.random.choice((*self._world.sources, DESTINATION))
        message = self._clock.random.choice(
            (
                Message(command=Command.RELEASE, flags=Flags.UNFENCED | Flags.STATE_LOST),
                Message(command=Command.ABORT, error=Report(Reason.OTHER, "forged")),
                Message(command=Command.MARKER, side=Side.UPSTREAM, round=0xFFFFFFFF),
            )
        )
        handover = 1 << 8 | self._clock.random.choice(self._world.sources)
        message = replace(message, to=number, handover=handover)
        frame, _ = self._stranger.seal(message, destination=bytes(6), source=bytes(6))
        self._put_out(number, self._clock.random.choice(SIDES), frame)
        self._world.controller.on_frame(frame)
