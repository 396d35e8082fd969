"""Each row of the controller's and the agents' tables has a cell in the crash grid, or a reason."""

import json

import pytest

from flowferry import _native
from flowferry.controller.strategies.direct_table import TRANSITIONS
from handover_ends import of_process
from handover_rows import (
    BEYOND_AGENT,
    BEYOND_CONTROLLER,
    CONTROLLER,
    DESTINATION,
    NEVER,
    RARE_AGENT,
    RARE_CONTROLLER,
    ROWS,
    SOURCE,
    beyond,
    in_cells,
)


def test_each_row_of_the_controller_has_its_place() -> None:
    placed = [*in_cells(CONTROLLER), *beyond(BEYOND_CONTROLLER), *RARE_CONTROLLER]
    assert sorted(placed) == sorted(row.name for row in TRANSITIONS)


def test_each_row_of_the_agents_has_its_place() -> None:
    table = {f"{row['from']}+{row['event']}" for row in json.loads(_native.hsl_handover_table())}
    for whose in (SOURCE, DESTINATION):
        cells = in_cells(whose)
        assert set(cells) <= table
        assert len(cells) == len(set(cells))
    elsewhere = [*beyond(BEYOND_AGENT), *NEVER, *RARE_AGENT]
    assert len(elsewhere) == len(set(elsewhere))
    assert set(in_cells(SOURCE, DESTINATION)) | set(elsewhere) == table
    assert not set(in_cells(SOURCE, DESTINATION)) & set(elsewhere)


@pytest.mark.parametrize("victim", ROWS)
def test_each_cell_knows_how_it_must_end(victim: str) -> None:
    for play, rows in ROWS[victim].items():
        for row in rows:
            for how in ("kill", "stop"):
                assert of_process(victim, play, f"{row}:{how}")
