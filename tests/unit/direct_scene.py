"""A strategy `direct`, the time, and agents whose answers are given by hand."""

from __future__ import annotations

from ipaddress import IPv4Address
from itertools import count

from flowferry.controller.strategies.base import (
    Action,
    Decided,
    Event,
    Finished,
    Journal,
    Part,
    Plan,
    Received,
    Send,
    Settings,
    Tick,
    Turn,
    TurnAccepted,
    TurnBack,
)
from flowferry.controller.strategies.direct import Direct
from flowferry.controller.strategies.direct_table import (
    Transition,
)
from flowferry.wire import Command, Counter, Match, Message, Peer, Reason, Report, Side

A, B = 1, 2
SIDES = (Side.UPSTREAM, Side.DOWNSTREAM)
SETTINGS = Settings()


def part(number: int = 1, source: int = A, destination: int = B) -> Part:
    return Part(number, Match(family=4), (), source, destination, SIDES, 1)


def plan(*parts: Part, settings: Settings = SETTINGS) -> Plan:
    peers = {i: Peer(i, IPv4Address("192.0.2.1"), 7000 + i) for i in (1, 2, 3)}
    return Plan(7, parts or (part(),), peers, settings)


class Scene:
    """A strategy, the time, and everything it has asked for so far."""

    def __init__(self, *parts: Part, settings: Settings = SETTINGS) -> None:
        self.now = 100.0
        self.plan = plan(*parts, settings=settings)
        self.rows: list[Transition] = []
        self.direct = Direct(self.rows.append)
        self.actions: list[Action] = []
        self.timed: list[tuple[float, Send]] = []
        self.boot = count(1)
        self.take(self.direct.start(self.plan, self.now))

    def take(self, actions: list[Action]) -> None:
        self.actions += actions
        self.timed += [(self.now, action) for action in actions if isinstance(action, Send)]

    def tell(self, event: Event) -> None:
        self.take(self.direct.handle(event, self.now))

    @property
    def decided(self) -> list[bool]:
        """What has become of requests to call it off."""
        return [action.called_off for action in self.actions if isinstance(action, Decided)]

    def run(self, seconds: float) -> None:
        """Let time pass, tick by tick as the shell would."""
        end = self.now + seconds
        while (due := self.direct.next_due) is not None and due <= end:
            self.now = max(self.now, due)
            self.tell(Tick())
        self.now = end

    def sent(self, command: Command, to: int, number: int = 1) -> list[Send]:
        wire_id = self.plan.number << 8 | number
        return [
            action
            for action in self.actions
            if isinstance(action, Send)
            and (action.message.command, action.instance) == (command, to)
            and action.message.handover == wire_id
        ]

    def say(self, instance: int, command: Command, number: int = 1, **fields: object) -> None:
        """An instance says something of its own accord."""
        message = Message(
            command=command,
            sender=instance,
            handover=self.plan.number << 8 | number,
            **fields,  # type: ignore[arg-type]
        )
        self.tell(Received(instance, message))

    def answer(
        self,
        command: Command,
        to: int,
        number: int = 1,
        error: Reason | None = None,
        **fields: object,
    ) -> None:
        """Answer the last request of that kind: ACK, or NACK with a reason."""
        send = self.sent(command, to, number)[-1]
        message = Message(
            command=Command.ACK if error is None else Command.NACK,
            sender=to,
            handover=send.message.handover,
            error=None if error is None else Report(error, "no"),
            **fields,  # type: ignore[arg-type]
        )
        self.tell(Received(to, message, send.request))

    def prepare(self) -> None:
        for each in self.plan.parts:
            self.answer(Command.PREPARE, each.destination, each.number)
            self.answer(Command.PREPARE, each.source, each.number, counts={Counter.FLOWS: 3})

    def turn(self) -> None:
        self.prepare()
        self.tell(TurnAccepted())

    def freeze(self) -> None:
        self.turn()
        self.answer(Command.FREEZE, A)

    def settle(self) -> None:
        self.freeze()
        self.say(B, Command.IMPORTED)
        self.answer(Command.COMMIT, A)
        self.run(self.plan.settings.settling_ms / 1e3)

    def close(self) -> None:
        for each in (A, B):
            self.answer(Command.RELEASE, each)

    @property
    def end(self) -> Finished:
        last = self.actions[-1]
        assert isinstance(last, Finished)
        return last

    def kinds(self) -> list[object]:
        """The order of what was done, without repeats of a kind."""
        kinds: list[object] = []
        for action in self.actions:
            kind: object = None
            if isinstance(action, Send):
                kind = (action.message.command, action.instance)
            elif isinstance(action, Journal):
                kind = action.step
            elif isinstance(action, Turn | TurnBack | Finished):
                kind = type(action)
            if kind is not None and kind not in kinds[-1:]:
                kinds.append(kind)
        return kinds
