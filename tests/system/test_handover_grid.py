"""The crash grid: everything fails at every row of the tables.

Each cell is a handover under traffic, both ways. At one row the controller, the source's agent or
the destination's is killed or stopped for longer than its heartbeat; or, at the controller's rows,
a switch is killed or stopped, the management network is cut, control frames are lost, doubled, late
or forged (`handover_faults`). Agents also die or stop within a row, while the state of a new flow
goes back (`handover_return`). Whatever it was, the handover ends as docs/design.md §7 says
(`handover_ends`), no packet is reordered or doubled, what is lost has been counted, by the agents
and by the handover, and the next moves go well. `handover_rows` says which rows.
"""

import itertools
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from handover_cell import PLAYS, SETTLING_MS, Cell
from handover_faults import FAULTS
from handover_return import ASKED, Moment, Return
from hsl_pcap import until
from new_flow import NewFlow

from flowferry.testbed import Testbed
from handover_ends import BACK, RETURNS, STATELESS, End, of_process, of_trouble
from handover_rows import CONTROLLER, DESTINATION, ROWS, SOURCE
from soak import AWAY_REPEATS

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


#: Those with the veth shim, and a function with packet sockets, that are in `make test`.
FAST_VETH = {(SOURCE, "exported+commit", "kill"), (DESTINATION, "armed+stateend", "kill")}


def grid() -> list[Any]:
    """Which shim there is concerns the agents' rows alone; a bridge has the kernel's."""
    found = []
    for victim, plays in ROWS.items():
        functions = ("bridge",) if victim == CONTROLLER else ("bridge", "forwarder")
        for play, rows in plays.items():
            for row, how, function in itertools.product(rows, ("kill", "stop"), functions):
                fast = (victim, row, how) in (FAST if function == "bridge" else FAST_VETH)
                marks = () if fast else (pytest.mark.soak,)
                name = f"{victim}-{play}-{row}-{how}"
                name += "" if function == "bridge" else "-veth"
                found.append(
                    pytest.param(victim, play, f"{row}:{how}", function, marks=marks, id=name)
                )
    return found


#: The same of faults that befall no process of ours.
FAST_FAULTS = {
    ("ingress-kill", "turning+turned"),
    ("egress-kill", "listing+listed"),
    ("network-cut", "freezing+frozen"),
    ("frames-lost", "turning+turned"),
    ("frames-forged", "moving+imported"),
}


def faults() -> list[Any]:
    found = []
    for fault in FAULTS:
        for play, rows in ROWS[CONTROLLER].items():
            for row in rows:
                marks = () if (fault, row) in FAST_FAULTS else (pytest.mark.soak,)
                found.append(
                    pytest.param(fault, play, row, marks=marks, id=f"{fault}-{play}-{row}")
                )
    return found


#: The same of the return of state.
FAST_RETURNS = {("giving", DESTINATION, "kill"), ("taking", SOURCE, "kill")}


def check(cell: Cell, ends: Sequence[End], *, exact: bool | None) -> None:
    """It ended as it must, everybody is at peace, losses are known, and moves go well again."""
    cell.finish()
    cell.over()
    ended = cell.client.handover(1)
    proven = cell.bed.options.function == "bridge"
    assert any(end.fits(ended, proven=proven) for end in ends), str(ended)
    until(cell.idle, "the agents to let go", seconds=20)
    lost_before = cell.lost()
    # Agents that have failed say with a heartbeat what that cost.
    with suppress(AssertionError):
        until(lambda: cell.told() == lost_before, "the losses to be told of")
    assert cell.told() == lost_before, str(cell.client.handover(1))
    for to in (SOURCE, DESTINATION, SOURCE):
        later = cell.client.move("udp", to, wait=True)
        assert (later["state"], later["error"]) == ("done", None), str(later)
        assert later["lost_packets"] == 0, later
    cell.more(cell.rate // 3)
    assert cell.lost() == lost_before, "a later move has lost something"
    cell.counted = lost_before
    cell.exact = exact


def judge(cell: Cell) -> None:
    """After the traffic has ended: order, and packets that are missing, both ways."""
    back = cell.echo.sent["replies"]
    assert back is not None
    for account in (cell.echo.there, back):
        assert (account["reordered"], account["duplicated"], account["unclassified"]) == (0, 0, 0)
    if cell.exact is None:
        return
    if cell.exact:
        assert cell.counted == 0
    # A dead agent may not have heard that its last strays were taken: more is said to be lost
    # than was, never less.
    assert cell.unexplained <= cell.counted, (cell.missing, cell.counted, cell.dropped)


@pytest.mark.parametrize(("victim", "play", "failpoint", "function"), grid())
def test_cell(
    testbed: Callable[..., Testbed], victim: str, play: str, failpoint: str, function: str
) -> None:
    ports = "afxdp-nonpmd" if function == "bridge" else "system"
    bed = testbed(instances=2, function=function, steering=True, ports=ports)
    with Cell(bed, victim, failpoint, PLAYS[play]) as cell:
        cell.act()
        cell.strike()
        check(cell, of_process(victim, play, failpoint), exact=victim == CONTROLLER)
    judge(cell)


@pytest.mark.parametrize(("fault", "play", "row"), faults())
def test_fault(
    testbed: Callable[..., Testbed], tmp_path: Path, fault: str, play: str, row: str
) -> None:
    what = FAULTS[fault](tmp_path)
    bed = testbed(instances=2, steering=True, **what.options)
    with Cell(bed, CONTROLLER, f"{row}:stop", PLAYS[play], what) as cell:
        cell.act()
        cell.befall()
        check(cell, of_trouble(fault, play, row), exact=None)
    judge(cell)
    what.judge(cell)


def returns() -> list[Any]:
    found = []
    for moment, (victim, how) in itertools.product(
        ASKED, itertools.product((SOURCE, DESTINATION), ("kill", "stop"))
    ):
        marks = () if (moment, victim, how) in FAST_RETURNS else (pytest.mark.soak,)
        name = f"{moment}-{victim}-{how}"
        found.append(pytest.param(moment, victim, how, marks=marks, id=name))
    return found


@pytest.mark.parametrize(("moment", "victim", "how"), returns())
def test_return(testbed: Callable[..., Testbed], moment: Moment, victim: str, how: str) -> None:
    bed = testbed(instances=2, steering=True, ports="afxdp-nonpmd")
    back = Return(moment)
    with ExitStack() as stack:
        back.flow = NewFlow(bed, stack)
        with Cell(bed, victim, f":{how}", back.play) as cell:
            cell.act()
            cell.strike()
            check(cell, RETURNS[moment][victim], exact=False)
        judge(cell)
        back.judge(cell)


@pytest.mark.soak
@pytest.mark.parametrize("_time", range(AWAY_REPEATS))
def test_a_controller_that_is_away_for_long(testbed: Callable[..., Testbed], _time: int) -> None:
    """It dies while a handover is called off whose state never comes; agents end that alone."""
    bed = testbed(instances=2, steering=True, ports="afxdp-nonpmd")
    row, play = "halting+fenced:kill", PLAYS["called_off"]
    with Cell(bed, CONTROLLER, row, play, settling_ms=SETTLING_MS) as cell:
        cell.act()
        cell.strike(away_ms=8 * SETTLING_MS)
        check(cell, (BACK, STATELESS), exact=True)
    judge(cell)
