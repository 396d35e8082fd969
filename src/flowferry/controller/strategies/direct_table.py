"""The life of one part of a `direct` handover at the controller, as one table.

A *part* has one source and one destination (`partition.Part`); all parts of a handover share one
turn of the switches. In the words of the states:

* **Forward.** The destination is armed (`ARMING`), the source says which flows it has (`LISTING`),
  the part is `READY`. When all are, the switches change (`TURNING`). The source freezes
  (`FREEZING`), drains, gives its state away (`MOVING`); meanwhile each first packet at the
  destination asks for a marker. Once the state is in, the import is journalled and committed, and
  the settling time ends the fence of what has stayed quiet (`SETTLING`). `CLOSING` ends the holds.
* **Called off before the turn** (`CANCELLING`): both agents let go, nothing has changed.
* **Called off after the turn.** The destination promises to import no more (`WITHDRAWING`; if it
  has imported, the way is forward). Then the *forward* fence is finished (`HALTING`): until no
  packet can come by the old path, an old packet at the source could not be told from one that comes
  when the switches have turned back, and packets kept at the destination belong between the two.
  Behind it the destination sends back what it has; the source keeps what arrives (`REGAINING`), the
  switches turn back (`REVERTING`), and the same fence runs with the two exchanged (`RETURNING`,
  `CLEARING`).
* **An agent is gone.** Without its source a part is released as it is (`FORCING`); without its
  destination the flows go back and nothing is waited for (`ALONE`).
* **The controller was gone** (`RESUMING`): ask both agents where they are, and go on.

Rejected: to freeze the source before the destination has promised. The freeze has the state given
away, and it is imported although a switch has refused to turn. Also rejected: to turn from stray to
capture at the source as soon as a handover is called off. A flow whose cache is stale for longer
than that then sends an old packet, one to the destination, and a new one; the source has the first
and the third in one queue. The simulation finds both at once.

The documentation's diagram is drawn from `TRANSITIONS` (docs/direct.md), failpoints are named by
its rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """Where a part is."""

    WAITING = "waiting"
    ARMING = "arming"
    LISTING = "listing"
    READY = "ready"
    TURNING = "turning"
    FREEZING = "freezing"
    MOVING = "moving"
    SETTLING = "settling"
    FORCING = "forcing"
    CLOSING = "closing"
    DONE = "done"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"
    WITHDRAWING = "withdrawing"
    HALTING = "halting"
    REGAINING = "regaining"
    REVERTING = "reverting"
    RETURNING = "returning"
    ALONE = "alone"
    CLEARING = "clearing"
    RETURNED = "returned"
    RESUMING = "resuming"


class Cue(StrEnum):
    """What happens to it."""

    PREPARE = "prepare"
    """The handover begins."""
    ARMED = "armed"
    """The destination keeps what comes."""
    LISTED = "listed"
    """The source has said which flows it has."""
    TURN = "turn"
    """All parts are ready."""
    TURNED = "turned"
    """Every switch has answered its barrier."""
    REFUSED = "refused"
    """Not every switch has turned; some may have."""
    FROZEN = "frozen"
    """The source sends what still comes after its flow."""
    IMPORTED = "imported"
    """The state is at the destination: from here there is no way back."""
    RELEASED = "released"
    """Everything is fenced and let go at the destination, and the source has committed."""
    CLOSED = "closed"
    """Both agents have ended the part."""
    CALL_OFF = "call_off"
    """Somebody asks for it, or something cannot be done."""
    LET_GO = "let_go"
    """Both agents have let go; no switch had turned."""
    FENCED = "fenced"
    """No packet can reach the source by the old path any more, on any side."""
    REGAINED = "regained"
    """The source keeps what arrives."""
    WITHDRAW = "withdraw"
    """A journal says that it was called off after the turn."""
    WITHDRAWN = "withdrawn"
    """The destination will import no more, and give back what it has."""
    TOO_LATE = "too_late"
    """The destination had imported already."""
    REVERT = "revert"
    """The switches have to turn back: a journal says so, or one of them has refused to turn."""
    TURNED_BACK = "turned_back"
    """The old entries are in force."""
    GIVEN_BACK = "given_back"
    """Everything is fenced and let go at the source."""
    CLEARED = "cleared"
    """Both agents have ended the part."""
    RESUME = "resume"
    """A journal says that the switches were turning, or had turned."""
    FOUND = "found"
    """Both agents have said where they are."""
    SOURCE_GONE = "source_gone"
    """The source's agent has lost what it held."""
    DESTINATION_GONE = "destination_gone"
    """The destination's agent has lost what it held."""
    OVERDUE = "overdue"
    """The step's deadline has passed."""


@dataclass(frozen=True, slots=True)
class Transition:
    """One row: what follows when `cue` comes in state `before`."""

    before: State
    cue: Cue
    after: State

    @property
    def name(self) -> str:
        """`state+cue`, as failpoints name it."""
        return f"{self.before}+{self.cue}"


class IllegalMoveError(Exception):
    """A cue that the table does not have in that state; nothing has changed."""


def _rows() -> tuple[Transition, ...]:
    s, c = State, Cue
    table: dict[State, dict[Cue, State]] = {
        s.WAITING: {
            c.PREPARE: s.ARMING,
            c.CALL_OFF: s.CANCELLING,
            c.RESUME: s.RESUMING,
            c.WITHDRAW: s.WITHDRAWING,
            c.FENCED: s.REGAINING,
            c.REVERT: s.REVERTING,
        },
        s.ARMING: {c.ARMED: s.LISTING},
        s.LISTING: {c.LISTED: s.READY},
        s.READY: {c.TURN: s.TURNING},
        s.TURNING: {c.TURNED: s.FREEZING, c.REFUSED: s.WITHDRAWING},
        s.FREEZING: {c.FROZEN: s.MOVING, c.IMPORTED: s.SETTLING, c.DESTINATION_GONE: s.REGAINING},
        s.MOVING: {c.IMPORTED: s.SETTLING, c.DESTINATION_GONE: s.REGAINING},
        s.SETTLING: {
            c.RELEASED: s.CLOSING,
            c.OVERDUE: s.FORCING,
            c.SOURCE_GONE: s.FORCING,
            c.DESTINATION_GONE: s.CLOSING,
        },
        s.FORCING: {
            c.RELEASED: s.CLOSING,
            c.DESTINATION_GONE: s.CLOSING,
            c.OVERDUE: s.CLOSING,
            c.REVERT: s.REVERTING,
        },
        s.CLOSING: {c.CLOSED: s.DONE, c.OVERDUE: s.DONE},
        s.CANCELLING: {c.LET_GO: s.CANCELLED, c.OVERDUE: s.CANCELLED},
        s.WITHDRAWING: {
            c.WITHDRAWN: s.HALTING,
            c.TOO_LATE: s.SETTLING,
            c.IMPORTED: s.SETTLING,
            c.SOURCE_GONE: s.FORCING,
            c.DESTINATION_GONE: s.REGAINING,
            c.OVERDUE: s.REGAINING,
        },
        s.HALTING: {
            c.FENCED: s.REGAINING,
            c.OVERDUE: s.REGAINING,
            c.DESTINATION_GONE: s.REGAINING,
            c.SOURCE_GONE: s.FORCING,
        },
        s.REGAINING: {
            c.REGAINED: s.REVERTING,
            c.SOURCE_GONE: s.FORCING,
            c.OVERDUE: s.FORCING,
        },
        s.REVERTING: {c.TURNED_BACK: s.RETURNING},
        s.RETURNING: {
            c.GIVEN_BACK: s.CLEARING,
            c.SOURCE_GONE: s.CLEARING,
            c.DESTINATION_GONE: s.ALONE,
            c.OVERDUE: s.ALONE,
        },
        s.ALONE: {
            c.GIVEN_BACK: s.CLEARING,
            c.SOURCE_GONE: s.CLEARING,
            c.OVERDUE: s.CLEARING,
        },
        s.CLEARING: {c.CLEARED: s.RETURNED, c.OVERDUE: s.RETURNED},
        s.RESUMING: {
            c.FOUND: s.TURNING,
            c.DESTINATION_GONE: s.REGAINING,
        },
        s.DONE: {},
        s.CANCELLED: {},
        s.RETURNED: {},
    }
    for before in (s.ARMING, s.LISTING, s.READY):
        for cue in (c.CALL_OFF, c.SOURCE_GONE, c.DESTINATION_GONE):
            table[before][cue] = s.CANCELLING
        if before is not s.READY:
            table[before][c.OVERDUE] = s.CANCELLING
    for before in (s.FREEZING, s.MOVING):
        table[before][c.CALL_OFF] = s.WITHDRAWING
        table[before][c.OVERDUE] = s.WITHDRAWING
        table[before][c.SOURCE_GONE] = s.FORCING
    return tuple(
        Transition(before, cue, after)
        for before, cues in table.items()
        for cue, after in cues.items()
    )


TRANSITIONS = _rows()
"""Everything that may happen. What is not here is refused and changes nothing."""
FINAL = frozenset({State.DONE, State.CANCELLED, State.RETURNED})
BEFORE_TURN = frozenset({State.WAITING, State.ARMING, State.LISTING, State.READY})
FORWARD = frozenset({State.FREEZING, State.MOVING, State.SETTLING, State.HALTING})
"""The destination's SEEN is answered with a marker to the source."""
BACKWARD = frozenset({State.REVERTING, State.RETURNING, State.ALONE, State.CLEARING})
"""The source takes its flows back."""

_BY_MOVE = {(row.before, row.cue): row for row in TRANSITIONS}


def transition(before: State, cue: Cue) -> Transition | None:
    """The row for `cue` in `before`, if that may happen."""
    return _BY_MOVE.get((before, cue))


def as_mermaid() -> str:
    """The table as a Mermaid state diagram; cues that lead the same way share an arrow."""
    arrows: dict[tuple[State, State], list[Cue]] = {}
    for row in TRANSITIONS:
        arrows.setdefault((row.before, row.after), []).append(row.cue)
    lines = ["stateDiagram-v2", f"    [*] --> {State.WAITING}"]
    lines += [f"    {a} --> {b}: {', '.join(cues)}" for (a, b), cues in arrows.items()]
    lines += [f"    {state} --> [*]" for state in State if state in FINAL]
    return "\n".join(lines) + "\n"
