"""docs/direct.md shows the table as it is.

    FLOWFERRY_REWRITE=1 pytest tests/unit/test_direct_document.py

draws the diagram anew; review the difference.
"""

import os
import re
from pathlib import Path

from flowferry.controller.strategies.direct_table import as_mermaid

PAGE = Path(__file__).parents[2] / "docs" / "direct.md"


def test_the_diagram_is_current() -> None:
    text = PAGE.read_text()
    block = re.compile(r"(<!-- diagram: [^\n]*-->\n)(.*?)(<!-- end -->)", re.DOTALL)
    found = block.search(text)
    assert found is not None
    drawn = f"```mermaid\n{as_mermaid()}```\n"
    if os.environ.get("FLOWFERRY_REWRITE"):
        PAGE.write_text(text[: found.start(2)] + drawn + text[found.end(2) :])
    else:
        assert found[2] == drawn
