"""Which rows of the tables the crash grid has cells for, and why none can be had for the others.

`tests/system/test_handover_grid.py` plays the cells; `tests/unit/test_handover_rows.py` sees to it
that each row of either table is here; `tests/simulation` has to take those that are in no cell.
"""

CONTROLLER, SOURCE, DESTINATION = "controller", "i1", "i2"

#: Play and rows that it takes, by who takes them.
ROWS: dict[str, dict[str, tuple[str, ...]]] = {
    CONTROLLER: {
        "forward": (
            "waiting+prepare", "arming+armed", "listing+listed", "ready+turn", "turning+turned",
            "freezing+frozen", "moving+imported", "settling+released", "closing+closed",
        ),
        "called_off": (
            "moving+call_off", "withdrawing+withdrawn", "halting+fenced", "regaining+regained",
            "reverting+turned_back", "returning+given_back", "clearing+cleared",
        ),
        "not_taken": ("arming+call_off", "cancelling+let_go"),
        "refused": ("turning+refused",),
    },
    SOURCE: {
        "forward": (
            "preparing+ready", "prepared+freeze", "draining+drained", "exporting+exported",
            "exported+commit", "committed+release", "closing+ended",
        ),
        "called_off": (
            "exporting+handback", "regaining+returned", "resuming+fenced", "releasing+ended",
            "released+release",
        ),
        "refused": ("exported+handback",),
    },
    DESTINATION: {
        "forward": (
            "arming+ready", "armed+stateend", "importing+statein", "imported+commit",
            "imported+fenced", "releasing+ended", "released+release",
        ),
        "called_off": ("armed+handback", "returning+release", "closing+ended"),
    },
}  # fmt: skip

#: Rows of the controller's table that are in no cell, by the reason.
BEYOND_CONTROLLER: dict[str, tuple[str, ...]] = {
    "a restarted controller takes it, and has no failpoint in its second life": (
        "waiting+call_off", "waiting+resume", "waiting+withdraw", "waiting+revert",
        "resuming+found", "resuming+destination_gone",
    ),
    "an agent has to die first: the grid's cells of agents take it, without a second fault": (
        "arming+source_gone", "arming+destination_gone", "listing+source_gone",
        "listing+destination_gone", "ready+source_gone", "ready+destination_gone",
        "freezing+source_gone", "freezing+destination_gone", "moving+source_gone",
        "moving+destination_gone", "settling+source_gone", "settling+destination_gone",
        "withdrawing+source_gone", "withdrawing+destination_gone", "halting+source_gone",
        "halting+destination_gone", "regaining+source_gone", "returning+source_gone",
        "returning+destination_gone", "forcing+released", "forcing+destination_gone",
        "forcing+revert", "alone+given_back",
    ),
    "a step has to take longer than its deadline, while heartbeats are answered": (
        "arming+overdue", "listing+overdue", "freezing+overdue", "moving+overdue",
        "settling+overdue", "forcing+overdue", "closing+overdue", "cancelling+overdue",
        "withdrawing+overdue", "halting+overdue", "regaining+overdue", "returning+overdue",
        "alone+overdue", "clearing+overdue",
    ),
    "two messages have to cross, within less than a millisecond": (
        "listing+call_off", "ready+call_off", "freezing+call_off", "freezing+imported",
        "withdrawing+too_late", "withdrawing+imported",
    ),
}  # fmt: skip

#: The same of the agents' table, whichever end it is.
BEYOND_AGENT: dict[str, tuple[str, ...]] = {
    "a command has to be repeated: cells of lost and doubled frames take it": (
        "draining+freeze", "exporting+freeze", "exported+freeze", "committed+commit",
        "closing+release", "regaining+handback", "resuming+handback",
        "returning+handback", "withdrawing+abort", "releasing+commit",
        "released+commit",
    ),
    "it is called off before the turn, which `not_taken` does before anything is prepared": (
        "preparing+fail", "preparing+abort", "prepared+abort", "arming+fail", "arming+abort",
        "arming+ended", "armed+abort", "withdrawing+ended",
    ),
    "called off within a millisecond of the turn, the freeze or the import": (
        "prepared+handback", "importing+handback",
    ),
    "the other end is gone, or the controller: the grid's cells of those take it": (
        "armed+statein", "exporting+release", "exported+release",
    ),
    "the hold has to end under it: a table is full, the buffer is half full, or by hand": (
        "draining+ended", "exporting+ended", "exported+ended", "committed+ended",
        "regaining+ended", "resuming+ended", "armed+ended", "importing+ended", "imported+ended",
        "returning+ended",
    ),
    "it was taken for dead and is not, and its flows went on at the other end": (
        "armed+discard", "importing+discard", "imported+discard", "regaining+discard",
        "resuming+discard", "discarding+discard", "discarding+release",
    ),
    "a new epoch: cells in which this agent stops take it": (
        "preparing+lost", "prepared+lost", "released+lost",
    ),
}  # fmt: skip

#: In a new epoch the hold ends before it is told, so that the part is past these. They are there
#: since a new epoch has to end whatever there is (crates/hsl/tests/handover_table.rs).
NEVER = (
    "draining+lost", "exporting+lost", "exported+lost", "committed+lost", "closing+lost",
    "regaining+lost", "resuming+lost", "arming+lost", "armed+lost", "importing+lost",
    "imported+lost", "returning+lost", "withdrawing+lost", "releasing+lost",
    "discarding+lost",
)  # fmt: skip

#: Rows that no cell takes, and of tens of thousands of seeds none or one, but unit tests
#: (test_direct*.py, test_hsl_steps.py, crates/hsl/tests/handover): three faults at once, a drain
#: that is slower than the fence behind it, a hold that is ended by hand while it throws away.
RARE_CONTROLLER = ("waiting+fenced", "alone+source_gone")
RARE_AGENT = (
    "draining+handback", "draining+release", "resuming+returned", "discarding+ended",
)  # fmt: skip


def in_cells(*whose: str) -> list[str]:
    """The rows that these have cells for."""
    return [row for one in whose for rows in ROWS[one].values() for row in rows]


def beyond(reasons: dict[str, tuple[str, ...]]) -> list[str]:
    """The rows that have none."""
    return [row for rows in reasons.values() for row in rows]
