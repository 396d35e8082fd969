"""docs/hsl.md says what the code says: its generated parts are current, and nothing is left out.

    FLOWFERRY_REWRITE=1 pytest tests/unit/test_hsl_document.py

writes the generated parts anew; review the difference.
"""

import os
import re
from pathlib import Path
from typing import Any

import pytest
from schema_table import values

from flowferry.cli.hsl import hsl
from flowferry.hsl import config, endpoint

PAGE = Path(__file__).parents[2] / "docs" / "hsl.md"


def configuration() -> str:
    """The table of fields."""
    rows = ["| field | default | values | meaning |", "|---|---|---|---|"]

    def add(properties: dict[str, Any], prefix: str, needed: list[str]) -> None:
        for name, field in properties.items():
            default = "needed" if name in needed else _default(field["default"])
            if "properties" not in field or "default" in field:
                rows.append(
                    f"| `{prefix}{name}` | {default} | {values(field)} | {field['description']} |"
                )
            if "properties" in field:
                add(field["properties"], f"{prefix}{name}.", field["required"])
            if "items" in field:
                inner = field["items"]
                add(inner["properties"], f"{prefix}{name}[].", inner["required"])

    whole = config.schema()
    add(whole["properties"], "", whole["required"])
    return "\n".join(rows)


def _default(value: object) -> str:
    if value is None or value == []:
        return "none"
    return str(value).lower()


def transitions() -> str:
    """The table of transitions."""
    return _rows(endpoint.transitions())


def handovers() -> str:
    """The steps of a part of a handover, but for those that an epoch ends."""
    return _rows([row for row in endpoint.handover_transitions() if row.event != "lost"])


def _rows(table: list[endpoint.Transition]) -> str:
    rows = ["| state | event | duty | next state |", "|---|---|---|---|"]
    for row in table:
        duty = "" if row.duty == "none" else row.duty.replace("_", " ")
        rows.append(f"| {row.from_} | {row.event} | {duty} | {row.to} |")
    return "\n".join(rows)


@pytest.mark.parametrize("part", [configuration, transitions, handovers])
def test_a_generated_part_is_current(part: Any) -> None:
    text = PAGE.read_text()
    block = re.compile(rf"(<!-- {part.__name__}: [^\n]*-->\n)(.*?)(<!-- end -->)", re.DOTALL)
    found = block.search(text)
    assert found is not None
    wanted = f"\n{part()}\n\n"
    if os.environ.get("FLOWFERRY_REWRITE"):
        PAGE.write_text(text[: found.start(2)] + wanted + text[found.end(2) :])
    else:
        assert found[2] == wanted


def test_every_command_is_described() -> None:
    text = PAGE.read_text()
    table = text[text.index("## Commands") : text.index("### A hold")]
    missing = [name for name in hsl.commands if f"`{name}" not in table]
    assert not missing
