"""What a table of settings says of a field of a JSON schema."""

from typing import Any


def values(field: dict[str, Any]) -> str:
    """What numbers it may be, or each of them in a list; which words, if they are few."""
    parts = [field, field.get("items", {}), *field.get("anyOf", [])]
    low = next((part["minimum"] for part in parts if "minimum" in part), None)
    high = next((part["maximum"] for part in parts if "maximum" in part), None)
    words = next((part["enum"] for part in parts if "enum" in part), ())
    if low is None or high is None:
        return ", ".join(f"`{word}`" for word in words)
    return f"{low} to {high if high < 1 << 16 or high % 1000 == 0 else hex(high)}"
