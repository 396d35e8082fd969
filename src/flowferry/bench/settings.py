"""How long an experiment measures, and what of it."""

import re
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Settings:
    """`passes` over all arms of a case, `seconds` for each measurement; which cases."""

    passes: int
    seconds: float
    #: Only cases in whose name this regular expression is found; ends are ^ and $.
    only: str = ""

    @classmethod
    def full(cls, only: str = "") -> "Settings":
        """Enough to tell 3 % apart on a machine that others use, too."""
        return cls(passes=20, seconds=1.0, only=only)

    @classmethod
    def quick(cls, only: str = "") -> "Settings":
        """A look: does it run, is it far off."""
        return cls(passes=5, seconds=0.5, only=only)

    def wants(self, case: str) -> bool:
        """Whether a case is to be run."""
        return re.search(self.only, case) is not None

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {"passes": self.passes, "seconds": self.seconds, "only": self.only}
