"""What a strategy is: a pure state machine that leads one handover, events in and actions out.

It does no I/O and reads no clock. The shell (`flowferry.controller.service`) feeds it events with
the time (seconds of a clock that never steps back), carries out its actions **in their order**, and
calls `handle(Tick(), now)` when `next_due` has come. What the shell owes a strategy:

* A `Journal` is on disk before the next action is carried out.
* `Send` goes through the switch of the side it names, if that is there and in line, or through any
  if it names none; whether it arrives is the strategy's business, which repeats it. An answer that
  quotes the frame (`in_reply_to`) comes back as `Received` with the `request` number of that
  `Send`.
* `Turn` puts the entries for the plan's parts in force and reports `TurnAccepted` when every switch
  has answered its barrier, or `TurnRefused` when one refuses, is gone, or does not answer in time.
  The shell then **takes nothing back by itself**: packets that have already taken the new path are
  at the destination, and only the strategy knows how to bring them home in order.
* `TurnBack` restores the old entries of some parts on all switches that are there (others are
  brought in line when they come back) and reports `TurnedBack`. Both are idempotent.
* Heartbeats are the shell's: an agent that misses too many, or reports another epoch than at the
  handover's start, is told once as `InstanceDead`.
* After `Finished` no event is handed in any more; an agent that still reports about the handover
  is answered by the shell with what `late` says.
* After a restart of the controller the switches are first brought in line with the last `Turn` and
  `TurnBack`s that were carried out; then `restore` is called with the data of the last `Journal`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from flowferry.controller.partition import Part as Part
from flowferry.wire import Message, Peer, Side


class HandoverState(StrEnum):
    """Where a handover is, for its users (docs/design.md §6)."""

    PREPARING = "preparing"
    TURNING = "turning"
    FENCING = "fencing"
    MOVING = "moving"
    DONE = "done"
    ABORTED = "aborted"
    FAILED = "failed"

    @property
    def is_over(self) -> bool:
        """Nothing will happen any more."""
        return self in (HandoverState.DONE, HandoverState.ABORTED, HandoverState.FAILED)


@dataclass(frozen=True, slots=True)
class Settings:
    """Times of a handover, all in milliseconds."""

    #: For one request, or one step that needs no state, until the other way out is taken.
    deadline_ms: int = 2_000
    #: For the state to be exported, carried and imported.
    transfer_ms: int = 30_000
    #: From the turn until a plain marker fences what stayed quiet: far beyond any cache's age.
    settling_ms: int = 1_500
    #: No switch uses an old entry longer than this after its barrier reply; see `stale_ms`.
    cache_ms: int = 500
    #: First pause before a request is repeated; each further one is twice as long ...
    retry_ms: int = 30
    #: ... up to this.
    retry_limit_ms: int = 500

    @property
    def stale_ms(self) -> int:
        """From the turn until nobody reckons with an old entry any more.

        What stays quiet is fenced by the settling time alone. Whoever makes that shorter than
        `cache_ms` says that his switches' caches are shorter-lived: to reckon with older entries
        elsewhere would make nothing safer.
        """
        return min(self.cache_ms, self.settling_ms)


@dataclass(frozen=True, slots=True)
class Plan:
    """What a handover is to do."""

    #: Its number; never used twice (journal). On the wire a part is `number << 8 | part.number`.
    number: int
    #: What moves; empty if the flows are where they should be.
    parts: tuple[Part, ...]
    #: Where each instance's ordered stream listens, by instance id.
    peers: Mapping[int, Peer]
    settings: Settings = field(default_factory=Settings)

    def wire_id(self, part: Part) -> int:
        """Handover id of a part in control frames, and of its holds."""
        return self.number << 8 | part.number


# --- what goes in ---


@dataclass(frozen=True, slots=True)
class Received:
    """A control message of an instance about one of the handover's parts (`message.handover`)."""

    instance: int
    message: Message
    #: `Send.request` of what it answers, if it quotes one that was sent since the shell started.
    request: int | None = None


@dataclass(frozen=True, slots=True)
class TurnAccepted:
    """Every switch concerned has answered its barrier. That is not a fence."""


@dataclass(frozen=True, slots=True)
class TurnRefused:
    """Not every switch has turned; some may have."""

    why: str


@dataclass(frozen=True, slots=True)
class TurnedBack:
    """The old entries are in force again on all switches that are there."""

    #: Part numbers, as in the `TurnBack`.
    parts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class SwitchGone:
    """The connection to a switch is lost; it forwards on with the entries it has."""

    dpid: int
    #: The instances' sides which are at that switch.
    sides: tuple[Side, ...]


@dataclass(frozen=True, slots=True)
class SwitchInLine:
    """A switch has come, and been brought in line; it may have changed entries just now."""

    dpid: int
    #: The instances' sides which are at that switch.
    sides: tuple[Side, ...]


@dataclass(frozen=True, slots=True)
class InstanceDead:
    """An agent is gone, or was away so long that its programs failed open (a new epoch)."""

    instance: int
    why: str


@dataclass(frozen=True, slots=True)
class AbortRequested:
    """Someone wants the handover called off; `Decided` follows."""

    why: str


@dataclass(frozen=True, slots=True)
class Tick:
    """The time in `next_due` has come."""


Event = (
    Received
    | TurnAccepted
    | TurnRefused
    | TurnedBack
    | SwitchGone
    | SwitchInLine
    | InstanceDead
    | AbortRequested
    | Tick
)


# --- what comes out ---


@dataclass(frozen=True, slots=True)
class Send:
    """Send a control message by a packet-out to the instance's port on a side."""

    instance: int
    #: The side is part of the meaning (a marker), or `None`: any way will do.
    side: Side | None
    message: Message
    #: Number of the request, to recognise its answer; a repeated request keeps its number.
    request: int


@dataclass(frozen=True, slots=True)
class Turn:
    """Put the new entries in force on every switch concerned."""


@dataclass(frozen=True, slots=True)
class TurnBack:
    """Restore the old entries for these parts."""

    #: Part numbers.
    parts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Journal:
    """Write down that a step is taken, before the actions that follow."""

    #: A word for people and failpoints.
    step: str
    #: What `restore` needs; JSON.
    data: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Note:
    """A line for the handover's timeline."""

    text: str


@dataclass(frozen=True, slots=True)
class Finished:
    """The handover is over."""

    state: HandoverState
    #: One line with what happened and what to do, unless all is well.
    error: str | None
    #: Numbers of the parts whose flows are at their destination now.
    moved: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Decided:
    """What has become of an `AbortRequested`; without this, how the handover ends decides."""

    #: Flows go back, or have never moved; otherwise it was too late.
    called_off: bool


Action = Send | Turn | TurnBack | Journal | Note | Decided | Finished


@dataclass(frozen=True, slots=True)
class Report:
    """A handover's figures (docs/design.md §6); `None` where they are not known yet."""

    flows: int = 0
    #: From the beginning to the end; `None` until then.
    duration_ms: float | None = None
    #: The longest marker round, from a first packet at the destination until it is fenced.
    fence_ms: float | None = None
    #: From the freeze until the state was in, of the part that took longest.
    transfer_ms: float | None = None
    captured_packets: int = 0
    captured_bytes_peak: int = 0
    stray_packets: int = 0
    lost_packets: int = 0
    #: The same by instance, as far as the instances have said.
    lost_of: Mapping[int, int] = field(default_factory=dict)
    #: Data packets at the controller.
    controller_packets: int = 0
    #: Markers sent, by the controller and by instances.
    markers: int = 0
    #: `state_lost`, `unfenced`, `drain_unproven`: what the agents could not promise.
    flags: tuple[str, ...] = ()
    #: Instances that were taken for dead.
    gone: tuple[int, ...] = ()
    error: str | None = None
    #: State of each part, by its number.
    parts: Mapping[int, str] = field(default_factory=dict)


class Strategy(Protocol):
    """How a handover is done. One instance leads one handover."""

    name: str

    def start(self, plan: Plan, now: float) -> list[Action]:
        """Begin."""

    def restore(self, plan: Plan, data: Mapping[str, Any], now: float) -> list[Action]:
        """Instead of `start`, with what the last `Journal` held: go on, or roll back."""

    def handle(self, event: Event, now: float) -> list[Action]:
        """Something happened. What does not fit the state changes nothing."""

    @property
    def next_due(self) -> float | None:
        """When `Tick` is wanted at the latest."""

    @property
    def state(self) -> HandoverState:
        """Where the handover is."""

    def report(self, now: float) -> Report:
        """Its figures so far."""
