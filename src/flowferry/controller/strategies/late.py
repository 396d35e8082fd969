"""What an agent is told that still reports about a part of a handover which is over.

Its last word may have been lost, or it was taken for dead and is not. By then the flows are where
they are, and that alone decides:

* Nothing had turned, or the flows are there and it never began to hold them: it lets go, in order.
* At the end where the flows are, it waits for nothing any more and lets go.
* At the other end, what it holds belongs between packets that have gone on already, and its copy of
  the state is out of date: it throws both away and counts the packets. To let them out would put
  them behind younger ones, at a function that their flow has left.

Agents that hear nothing of a part for three settling times say where they are (a `status` with a
`step`), so that no hold is forgotten because one frame was lost.

Pure. `at` is the instance where the part's flows are, `None` if nothing had turned.
"""

from __future__ import annotations

from flowferry.wire import Command, Counter, Flags, Message, Reason, Report

#: Steps (docs/hsl.md) in which an agent is at its end by itself, or repeats a report.
_ENDING = frozenset(
    {"none", "over", "closing", "withdrawing", "discarding", "releasing", "released"}
)
#: Steps in which it has nothing that could be released.
_BEGINNING = frozenset({"preparing", "prepared", "arming"})


def answer(sender: int, heard: Message, at: int | None) -> Message | None:
    """The answer to what an instance says about a part that is over; `None`: nothing."""
    match heard.command:
        case Command.RELEASED | Command.ABORTED:
            return Message(command=Command.RELEASE, handover=heard.handover)
        case Command.IMPORTED if sender == at:
            return Message(command=Command.COMMIT, handover=heard.handover)
        case Command.STATUS if heard.step is None or heard.step in _ENDING:
            return None
        case Command.STATUS if sender == at and heard.step in _BEGINNING:
            return last_word(sender, heard.handover, None)
        case Command.IMPORTED | Command.SEEN | Command.ABORT | Command.STATUS:
            return last_word(sender, heard.handover, at)
        case _:
            return None


def last_word(to: int, handover: int, at: int | None) -> Message:
    """What ends a part (`handover` on the wire) at an instance, whatever it has of it."""
    if to == at:
        flags = Flags.UNFENCED | Flags.STATE_LOST
        return Message(command=Command.RELEASE, to=to, handover=handover, flags=flags)
    flags, why = Flags.NONE, "its flows are where they were"
    if at is not None:
        flags, why = Flags.TURNED | Flags.STATE_LOST, "its flows are at the other end"
    error = Report(Reason.REQUESTED, f"the handover is over, and {why}")
    return Message(command=Command.ABORT, to=to, handover=handover, flags=flags, error=error)


def thrown_away(sender: int, heard: Message, at: int | None) -> int:
    """Packets that the sender says it has thrown away since the part was over.

    An answer says what the part had come to before; a heartbeat has told of that.
    """
    elsewhere = at is not None and sender != at
    of_itself = heard.command is Command.ABORTED and heard.in_reply_to is None
    if heard.counts is None or not (elsewhere and of_itself):
        return 0
    return heard.counts.get(Counter.LOST_PACKETS, 0)
