"""The return of state: a flow that began during the move, served at its destination, is called off.

The destination's function gives its state back (`giving`), the source's takes it in (`taking`):
steps within rows of the agents' table, so that an agent dies or stops at them by hand.
"""

from typing import Literal

from handover_cell import OVER, Cell, Play
from new_flow import NewFlow

from handover_missing import THERE, unexplained
from handover_rows import DESTINATION, SOURCE

Moment = Literal["giving", "taking"]
#: The function that is asked for something then, and for what.
ASKED: dict[Moment, tuple[str, str]] = {
    "giving": (DESTINATION, "export"),
    "taking": (SOURCE, "import"),
}
#: Packets before it is called off, and after.
PACKETS = 20


class Return:
    """A play in which the victim is hit at a moment of the return."""

    def __init__(self, moment: Moment) -> None:
        self._moment: Moment = moment
        self.flow: NewFlow

    @property
    def play(self) -> Play:
        """With functions that say when they go on."""
        holds = {SOURCE: ("export",)}
        name, step = ASKED[self._moment]
        holds[name] = (*holds.get(name, ()), step)
        return Play(self._act, holds, new_flows=True)

    def _act(self, cell: Cell) -> None:
        cell.move()
        cell.functions[SOURCE].await_event("export")
        assert cell.reaches("moving")
        self.flow.send(PACKETS)
        self.flow.receive(PACKETS)
        cell.call_off()
        name, step = ASKED[self._moment]
        cell.functions[name].await_event(step)
        self.flow.send(PACKETS)
        cell.hit()
        cell.reaches(*OVER, whatever=True)

    def judge(self, cell: Cell) -> None:
        """Of the flow, too, nothing came twice or late, and what is lost has been counted."""
        self.flow.receive_all()
        got = self.flow.got
        assert got == sorted(set(got)), got
        missing = {**cell.missing, THERE: cell.missing[THERE] + self.flow.sent - len(got)}
        found = missing, cell.counted, cell.dropped
        assert unexplained(missing, cell.dropped) <= cell.counted, found
