"""docs/controller.md says what the schema says. With FLOWFERRY_REWRITE=1 it is written anew."""

import os
import re
from pathlib import Path
from typing import Any

from schema_table import values

from flowferry.cli.instances import add
from flowferry.controller import config
from flowferry.controller.api import Metrics

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
        about = field.get("description", "")
        found.append(f"| `{prefix}{name}` | {shown} | {values(field)} | {about} |")
        if inner is not None:
            part = definitions[inner.rpartition("/")[2]]
            found += rows(part, definitions, f"{prefix}{name}{many}.")
    return found


def test_every_number_has_limits() -> None:
    parts = [config.schema(), *config.schema()["$defs"].values()]
    numbers = [
        (name, field)
        for part in parts
        for name, field in part["properties"].items()
        if field.get("type") == "integer"
    ]
    assert numbers
    assert not [name for name, field in numbers if not values(field)]


def test_every_field_is_described() -> None:
    schema = config.schema()
    table = ["| field | default | values | meaning |", "|---|---|---|---|"]
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


def test_every_metric_is_named_with_its_labels() -> None:
    text = PAGE.read_text("utf-8")
    (table,) = re.findall(r"\| metric \|.*?\n\n", text, re.DOTALL)
    named = {
        (name, tuple(re.findall(r"`(\w+)`", labels)))
        for name, labels in re.findall(r"(?m)^\| `(flowferry_\w+)` \|([^|]*)\|", table)
    }
    there = set()
    for collector in (one for one in vars(Metrics()).values() if hasattr(one, "describe")):
        (family,) = collector.describe()
        total = "_total" if family.type == "counter" else ""
        there.add((family.name + total, tuple(collector._labelnames)))
    assert named == there


def test_every_option_of_a_new_instance_is_named() -> None:
    (row,) = (
        line for line in PAGE.read_text("utf-8").splitlines() if "`instances add NAME`" in line
    )
    options = {name for each in add.params for name in each.opts if name.startswith("--")}
    of_all = {"--controller", "--name", "--token-file", "--ca", "--json"}
    assert set(re.findall(r"--[a-z-]+", row)) == options - of_all
