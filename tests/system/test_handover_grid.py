"""The crash grid: everybody dies, and stops and resumes, at every row of the tables.

Each cell is a handover under traffic, both ways, in which the controller, the source's agent or the
destination's is killed or stopped for longer than its heartbeat at one row. Whatever it was, the
handover ends, no packet is reordered or doubled, what is lost has been counted, and the next moves
go well. Rows come from the tables: a new one has to find its place here.
"""

import json
from collections.abc import Callable
from typing import Any

import pytest
from handover_cell import CONTROLLER, DESTINATION, PLAYS, SOURCE, Cell
from hsl_pcap import until

from flowferry import _native
from flowferry.controller.strategies.direct_table import TRANSITIONS
from flowferry.testbed import Testbed

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
#: In `make test`; the others are for the soak.
FAST = {
    (CONTROLLER, "turning+turned", "kill"),
    (CONTROLLER, "moving+imported", "kill"),
    (CONTROLLER, "settling+released", "stop"),
    (SOURCE, "exporting+exported", "kill"),
    (SOURCE, "exported+commit", "stop"),
    (DESTINATION, "importing+statein", "kill"),
    (DESTINATION, "armed+stateend", "stop"),
}


def grid() -> list[Any]:
    found = []
    for victim, plays in ROWS.items():
        for play, rows in plays.items():
            for row in rows:
                for how in ("kill", "stop"):
                    fast = (victim, row, how) in FAST
                    marks = () if fast else (pytest.mark.soak,)
                    name = f"{victim}-{play}-{row}-{how}"
                    found.append(pytest.param(victim, play, f"{row}:{how}", marks=marks, id=name))
    return found


def check(cell: Cell, *, exact: bool) -> None:
    """Everybody is at peace, moves go well again, and what was lost is known to the packet."""
    cell.let_functions_go()
    cell.over()
    until(cell.idle, "the agents to let go", seconds=20)
    lost_before = cell.lost()
    for to in (SOURCE, DESTINATION, SOURCE):
        later = cell.client.move("udp", to, wait=True)
        assert (later["state"], later["error"]) == ("done", None), later
        assert later["lost_packets"] == 0, later
    cell.more(300)
    assert cell.lost() == lost_before, "a later move has lost something"
    cell.counted = lost_before
    cell.exact = exact


def judge(cell: Cell) -> None:
    """After the traffic has ended."""
    back = cell.echo.sent["replies"]
    assert back is not None
    for account in (cell.echo.there, back):
        assert (account["reordered"], account["duplicated"], account["unclassified"]) == (0, 0, 0)
    # Of a packet lost on its way there no reply comes back either.
    lost = back["lost"]
    if cell.exact:
        assert (lost, cell.counted) == (0, 0)
    else:
        # A dead agent may not have heard that its last strays were taken: more is said to be lost
        # than was, never less.
        assert lost <= cell.counted


@pytest.mark.parametrize(("victim", "play", "failpoint"), grid())
def test_cell(testbed: Callable[..., Testbed], victim: str, play: str, failpoint: str) -> None:
    bed = testbed(instances=2, steering=True, ports="afxdp-nonpmd")
    with Cell(bed, victim, failpoint, PLAYS[play]) as cell:
        cell.act()
        cell.strike()
        check(cell, exact=victim == CONTROLLER)
    judge(cell)


def test_the_grid_names_rows_that_there_are() -> None:
    """Rows that need a race or a second fault are the simulation's (tests/simulation)."""
    rows = {
        CONTROLLER: {row.name for row in TRANSITIONS},
        SOURCE: {f"{r['from']}+{r['event']}" for r in json.loads(_native.hsl_handover_table())},
    }
    rows[DESTINATION] = rows[SOURCE]
    for victim, plays in ROWS.items():
        known = [row for taken in plays.values() for row in taken]
        assert set(known) <= rows[victim], "a row of the grid is none of the table's"
        assert len(known) == len(set(known))
