"""What can go wrong. Each message says what happened, to what, and what to do."""

from typing import Any

from flowferry.estate.view import View

__all__ = [
    "BackendFailed",
    "Closed",
    "CounterOverflow",
    "EstateError",
    "Forked",
    "Frozen",
    "IncompleteError",
    "KeyInvalid",
    "MemberFailed",
    "MemoryFull",
    "MoveAborted",
    "MoveUndecided",
    "NameTaken",
    "NoMember",
    "NoReducer",
    "NotJoined",
    "OptionInvalid",
    "PatternInvalid",
    "ScanStopped",
    "TypeConflict",
    "Unsupported",
    "ValueTooBig",
]


class EstateError(Exception):
    """Something about the state store. Every other error is one of these."""


class ItemError(EstateError):
    """An operation on one item failed."""

    def __init__(self, message: str, *, key: str, node: str = "") -> None:
        """Keep which item it was."""
        super().__init__(message)
        self.key = key
        """The key of the item."""
        self.node = node
        """The node that holds it; empty if it is this one, or none."""


class TypeConflict(ItemError, TypeError):
    """A value is of another type than the operation, or the reducer, needs."""


class ValueTooBig(ItemError, ValueError):
    """A value is longer than the backend keeps."""


class CounterOverflow(ItemError, OverflowError):
    """A counter would leave the range of 64 bits with sign; it is as it was."""


class MemoryFull(ItemError):
    """The memory limit is reached, and no item with a time to live is left to evict."""


class Frozen(ItemError):
    """The item is on its way to another instance: it can be read, not written."""


class KeyInvalid(EstateError, ValueError):
    """A key is empty, or longer than 1,024 bytes of UTF-8."""


class PatternInvalid(EstateError, ValueError):
    """A glob or a regular expression cannot be compiled."""


class OptionInvalid(EstateError, ValueError):
    """An estate cannot be opened like this."""


class NoReducer(EstateError, ValueError):
    """There is no reducer of this name."""


class IncompleteError(EstateError, TimeoutError):
    """Fewer members have answered in time than the read requires."""

    def __init__(self, message: str, *, view: tuple[Any, ...] | View[Any]) -> None:
        """Keep what the others have said."""
        super().__init__(message)
        self.view: View[Any] = view if isinstance(view, View) else View(*view)
        """What those say who have answered, and who is missing."""


class Closed(EstateError):
    """The estate was closed."""


class Forked(EstateError):
    """The estate was opened by a parent of this process; open one in the child."""


class NameTaken(EstateError):
    """Another live member of the cluster has this name."""


class NoMember(EstateError, LookupError):
    """There is no member of this name."""


class MoveAborted(EstateError):
    """A move has not taken place: its items are where they were."""


class MoveUndecided(EstateError):
    """The source of a move was cut off when it was to decide it.

    Its items can be written nowhere until the source can be reached, or is restarted under its
    name. The same call with the same id says what has become of it.
    """


class NotJoined(EstateError):
    """A joint write has not taken place, at no member."""


class ScanStopped(EstateError, TimeoutError):
    """Looking through all keys took longer than the time-out."""


class MemberFailed(EstateError):
    """A member has refused to answer; the message says why."""


class BackendFailed(EstateError, ConnectionError):
    """A server cannot be reached, or did not do what it was asked."""


class Unsupported(EstateError, NotImplementedError):
    """This backend cannot do this; the message says what to use instead."""
