"""docs/controller.md says what the schema says. With FLOWFERRY_REWRITE=1 it is written anew."""

import os
from pathlib import Path
from typing import Any

from flowferry.controller import config

PAGE = Path(__file__).parents[2] / "docs" / "controller.md"
BEGIN = (
    "<!-- configuration: generated from the schema, see tests/unit/test_controller_document.py -->"
)
END = "<!-- end -->"


def rows(node: dict[str, Any], definitions: dict[str, Any], prefix: str) -> list[str]:
    """A row for each field, those of its parts behind it."""
    found = []
    for name, field in node["properties"].items():
        parts = [field, field.get("items", {}), *field.get("anyOf", [])]
        inner = next((part["$ref"] for part in parts if "$ref" in part), None)
        many = "[]" if field.get("type") == "array" else ""
        default = field.get("default")
        needed = name in node.get("required", [])
        shown = "needed" if needed else "none" if default in (None, [], {}) else f"{default}"
        if isinstance(default, dict):
            shown = "as below"
        found.append(f"| `{prefix}{name}` | {shown} | {field.get('description', '')} |")
        if inner is not None:
            part = definitions[inner.rpartition("/")[2]]
            found += rows(part, definitions, f"{prefix}{name}{many}.")
    return found


def test_every_field_is_described() -> None:
    schema = config.schema()
    table = ["| field | default | meaning |", "|---|---|---|"]
    table += rows(schema, schema["$defs"], "")
    wanted = "\n\n".join([BEGIN, "\n".join(table), END])
    text = PAGE.read_text("utf-8")
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    assert tail, f"{PAGE} has no marks"
    new = head + wanted + tail
    if os.environ.get("FLOWFERRY_REWRITE"):
        PAGE.write_text(new, "utf-8")
    assert text == new, (
        "run FLOWFERRY_REWRITE=1 pytest tests/unit/test_controller_document.py, and look"
    )
