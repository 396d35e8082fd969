"""Each row of the controller's and the agents' tables has a cell in the crash grid, or a reason."""

import json

from flowferry import _native
from flowferry.controller.strategies.direct_table import TRANSITIONS
from handover_rows import (
    BEYOND_AGENT,
    BEYOND_CONTROLLER,
    CONTROLLER,
    DESTINATION,
    NEVER,
    SOURCE,
    UNSEEN_AGENT,
    UNSEEN_CONTROLLER,
    beyond,
    in_cells,
)


def test_each_row_of_the_controller_has_its_place() -> None:
    placed = [*in_cells(CONTROLLER), *beyond(BEYOND_CONTROLLER), *UNSEEN_CONTROLLER]
    assert sorted(placed) == sorted(row.name for row in TRANSITIONS)


def test_each_row_of_the_agents_has_its_place() -> None:
    table = {f"{row['from']}+{row['event']}" for row in json.loads(_native.hsl_handover_table())}
    for whose in (SOURCE, DESTINATION):
        cells = in_cells(whose)
        assert set(cells) <= table
        assert len(cells) == len(set(cells))
    elsewhere = [*beyond(BEYOND_AGENT), *NEVER, *UNSEEN_AGENT]
    assert len(elsewhere) == len(set(elsewhere))
    assert set(in_cells(SOURCE, DESTINATION)) | set(elsewhere) == table
    assert not set(in_cells(SOURCE, DESTINATION)) & set(elsewhere)
