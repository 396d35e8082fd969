"""How a handover must end in which something fails: docs/design.md §7, as a table of its cells.

What counts is how far it was at the row where the fault struck. In the words of the table:

    before       no switch has turned
    on its way   the switches have turned, and the state is not in at the destination
    in           the state is in
    called off   on its way back, after the turn
    over         everything has been let go where it belongs; the rest is leave-taking
"""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

from handover_rows import CONTROLLER, DESTINATION, SOURCE


@dataclass(frozen=True)
class End:
    """What a handover may come to."""

    #: `done`, `aborted` (the flows are where they were) or `failed` (something is not kept).
    state: str
    #: Flags that it must have, and those that it may have besides.
    must: Set[str] = frozenset()
    may: Set[str] = frozenset()

    def fits(self, ended: Mapping[str, Any], *, proven: bool = True) -> bool:
        """Whether this is how it has ended: an error says why, unless all went well.

        proven   False where the shim cannot prove that a function is drained, and may say so
        """
        flags, error = set(ended["flags"]), ended["error"]
        if not proven:
            flags.discard("drain_unproven")
        if ended["state"] != self.state or not self.must <= flags <= self.must | self.may:
            return False
        return error is None or bool(ended["flags"]) if self.state == "done" else error is not None


UNFENCED = frozenset({"unfenced"})
#: As if nothing had been.
DONE = End("done")
#: Forward; what could not be fenced was fenced by time.
FORWARD = End("done", may=UNFENCED)
#: Nothing was touched.
NOTHING = End("aborted")
#: Back at the source.
BACK = End("aborted", may=UNFENCED)
#: At the destination, without the state, and loudly so.
STATELESS = End("failed", must=UNFENCED | {"state_lost"})
#: Back at the source or left at the destination, without state that was on its way back.
RETURN_LOST = End("failed", must={"state_lost"}, may=UNFENCED)
#: At the destination with the state; what its agent held is lost.
HELD_LOST = End("failed", may=UNFENCED)

#: By who dies or is stopped, and at which of his rows: what §7 says, and the ends that fit.
PROCESSES: dict[str, dict[tuple[str, ...], tuple[End, ...]]] = {
    # "on restart it resumes or rolls back from its journal; the HSLs finish by settling time"
    CONTROLLER: {
        # before: its journal has no turn
        ("waiting+prepare", "arming+armed", "listing+listed", "ready+turn"): (NOTHING,),
        ("arming+call_off", "cancelling+let_go"): (NOTHING,),
        # on its way, in, over: its journal has a turn and no way back
        ("turning+turned", "freezing+frozen", "moving+imported", "settling+released",
         "closing+closed"): (FORWARD,),
        # nobody wrote down yet that it was called off
        ("moving+call_off",): (FORWARD,),
        # called off; away for too long, it finds that "the HSLs finish by settling time otherwise"
        ("withdrawing+withdrawn", "halting+fenced", "regaining+regained"): (BACK, STATELESS),
        ("reverting+turned_back", "returning+given_back", "clearing+cleared"): (BACK,),
        # "switch refuses an entry: rolled back, aborted"
        ("turning+refused",): (BACK,),
    },
    SOURCE: {
        # before
        ("preparing+ready",): (NOTHING,),
        # on its way: "its flows are released without state, `state_lost` said loudly"
        ("prepared+freeze", "draining+drained", "exporting+exported"): (STATELESS,),
        # in, over
        ("exported+commit", "committed+release", "closing+ended"): (FORWARD,),
        # called off, before the source may take the flows back: the same as on its way
        ("exporting+handback",): (STATELESS,),
        # called off; the two agents' word and the controller's cross here
        ("regaining+returned",): (BACK, STATELESS),
        ("resuming+fenced", "releasing+ended", "released+release"): (BACK,),
        # "switch refuses an entry: rolled back, aborted"
        ("exported+handback",): (BACK,),
    },
    DESTINATION: {
        # before: "destination does not answer PREPARE: aborted, nothing changed"
        ("arming+ready",): (NOTHING,),
        # on its way: "entries back to the source; what only it held is counted as lost"
        ("armed+stateend", "importing+statein"): (BACK,),
        # in: "fast path continues (fail open); its captured packets are counted lost"
        ("imported+commit", "imported+fenced"): (HELD_LOST,),
        # everything is out of its hands, which the controller may not have heard
        ("releasing+ended",): (HELD_LOST, FORWARD),
        ("released+release",): (FORWARD,),
        # called off; `closing+ended` is taken there only
        ("armed+handback", "returning+release", "closing+ended"): (BACK,),
    },
}  # fmt: skip

#: A controller that only stood still goes on as if nothing had been. What it has not turned yet it
#: may call off, since its agents may have given up meanwhile; what it was about to call off, they
#: may have finished.
STOPPED: dict[str, tuple[End, ...]] = {
    "forward": (FORWARD,), "called_off": (BACK,), "not_taken": (NOTHING,), "refused": (BACK,),
}  # fmt: skip
TO_BE_CALLED_OFF, LATE = "moving+call_off", (FORWARD,)
BEFORE_THE_TURN = ("waiting+prepare", "arming+armed", "listing+listed", "ready+turn")


def of_process(victim: str, play: str, failpoint: str) -> Sequence[End]:
    """How a cell may end in which a process is killed or stopped at a row."""
    row, _, how = failpoint.rpartition(":")
    if victim == CONTROLLER and how == "stop":
        before, late = row in BEFORE_THE_TURN, row == TO_BE_CALLED_OFF
        return STOPPED[play] + (NOTHING,) * before + LATE * late
    (ends,) = (ends for rows, ends in PROCESSES[victim].items() if row in rows)
    return ends


#: Called off, and the state of a new flow is on its way back, given or taken: by who dies or stops.
RETURNS: dict[str, dict[str, tuple[End, ...]]] = {
    "giving": {
        # all other state is with the dead
        SOURCE: (STATELESS,),
        # "what only it held is counted as lost", and what it has served dies with it
        DESTINATION: (BACK,),
    },
    "taking": {
        # nobody knows whether its function has the state that came back
        SOURCE: (RETURN_LOST,),
        # everything is out of its hands
        DESTINATION: (BACK,),
    },
}

#: By what is away, lost or forged for a while: before the turn, after it, and called off.
TROUBLES: dict[str, dict[str, tuple[End, ...]]] = {
    # "goes away before it has turned: aborted"; "after the turn: forward, reported unfenced"
    "kill": {"before": (NOTHING, BACK), "forward": (FORWARD,), "called_off": (BACK,)},
    # it may answer in time, or not
    "stop": {"before": (NOTHING, BACK, FORWARD), "forward": (FORWARD,), "called_off": (BACK,)},
    # "state transfer fails or times out: rolled back to the source, in order"
    "network": {
        "before": (NOTHING, BACK, FORWARD),
        "forward": (FORWARD, BACK),
        "called_off": (BACK,),
    },
    # "retried; ignored; ignored; rejected and counted"
    "frames": {"before": (DONE,), "forward": (DONE,), "called_off": (BACK,)},
}


def of_trouble(fault: str, play: str, row: str) -> Sequence[End]:
    """How a cell may end in which something else fails while the controller is at a row."""
    thing, _, what = fault.partition("-")
    ends = TROUBLES[what if what in TROUBLES else thing]
    if play in ("not_taken", "refused"):
        return STOPPED[play]
    if play == "called_off":
        return ends["called_off"] + LATE * (row == TO_BE_CALLED_OFF)
    return ends["before" if row in BEFORE_THE_TURN else "forward"]
