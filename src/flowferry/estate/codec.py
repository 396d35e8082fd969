"""Codecs for Python objects that are no bytes, str, int or float.

They are always given explicitly: what lies in the store is what a C function, or another language,
will read there.
"""

import json
import pickle
from typing import Any, Protocol

__all__ = ["JSON", "PICKLE", "Codec"]


class Codec(Protocol):
    """Turns objects into values and back."""

    def encode(self, value: Any, /) -> bytes | str | int | float:
        """The value that is kept."""

    def decode(self, value: Any, /) -> Any:
        """The object that was encoded."""


class _Json:
    """Objects as compact JSON text, keys sorted."""

    def encode(self, value: Any, /) -> str:
        return json.dumps(value, separators=(",", ":"), sort_keys=True)

    def decode(self, value: str | bytes, /) -> Any:
        return json.loads(value)


class _Pickle:
    """Objects as pickles."""

    def encode(self, value: Any, /) -> bytes:
        return pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)

    def decode(self, value: bytes, /) -> Any:
        return pickle.loads(value)


JSON: Codec = _Json()
"""Objects as compact JSON text, readable in any language."""

PICKLE: Codec = _Pickle()
"""Any Python object. Decoding runs what the pickle says: only where every member is trusted."""
