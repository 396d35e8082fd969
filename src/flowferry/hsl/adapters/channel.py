"""The control channel between an agent and its function: JSON lines (docs/hsl.md).

The agent tells the steps of a handover; the function answers `export`, `import` and `flows`. This
file only reads and writes lines; `hooks` holds the socket.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

#: Longest line that is read, bytes: a list of some 100,000 flows.
LONGEST_LINE = 16 << 20

Name = Literal["prepare", "drain", "freeze", "export", "import", "released", "aborted", "flows"]
NAMES: tuple[Name, ...] = get_args(Name)


class ChannelError(Exception):
    """The agent cannot be reached, or said what is not understood; one line with the remedy."""


@dataclass(frozen=True)
class Step:
    """One line of the agent's."""

    event: Name
    #: The handover's number in control frames; 0 for `flows`.
    handover: int = 0
    #: "source" or "destination", where it is told.
    role: str | None = None
    #: The flows concerned, as `flowferry hsl` writes them.
    flows: tuple[str, ...] = ()
    #: `host:port` of the other instance's agent.
    peer: str | None = None
    #: Number of that instance.
    peer_instance: int | None = None
    #: Milliseconds in which an answer must have come.
    deadline_ms: int | None = None
    #: What is asked for, and what the answer has to quote, for `flows`.
    match: str | None = None
    request: int = 0
    why: str | None = None

    @classmethod
    def parse(cls, line: str | bytes) -> "Step":
        """A line of the agent's. Raises `ChannelError` if it is none; unknown fields are skipped.

        >>> Step.parse('{"event": "freeze", "handover": 513}').handover
        513
        """
        try:
            found = json.loads(line)
            if not isinstance(found, dict):
                raise ValueError("no object")
            event = found["event"]
            if event not in NAMES:
                raise ValueError(f"unknown event {event!r}")
            return cls(
                event=event,
                handover=_number(found, "handover"),
                role=_text(found, "role"),
                flows=_texts(found, "flows"),
                peer=_peer(found.get("peer")),
                peer_instance=_number(found.get("peer") or {}, "instance") or None,
                deadline_ms=_number(found, "deadline_ms") or None,
                match=_text(found, "match"),
                request=_number(found, "request"),
                why=_text(found, "why"),
            )
        except (ValueError, KeyError, RecursionError) as error:
            start = line[:80] if isinstance(line, str) else line[:80].decode(errors="replace")
            raise ChannelError(
                f"the agent's line {start!r} is not understood ({error}); "
                "run agent and adapter of the same version"
            ) from None


def hello(name: str, *, lists_flows: bool = False, new_flows: bool = False) -> bytes:
    """The first line of the function's."""
    return _line(hello=name, lists_flows=lists_flows, new_flows=new_flows)


def done(step: Step, *, size: int) -> bytes:
    """`step` is done; `size`: bytes of state."""
    return _line(done=step.event, handover=step.handover, bytes=size)


def failed(step: Step, error: str) -> bytes:
    """`step` is not done; `error`: one line that says why."""
    return _line(failed=step.event, handover=step.handover, error=error)


def listed(step: Step, flows: Sequence[str]) -> bytes:
    """The answer to `flows`."""
    return _line(done="flows", request=step.request, flows=list(flows))


def _line(**fields: Any) -> bytes:
    return json.dumps(fields).encode() + b"\n"


def _number(found: dict[str, Any], name: str) -> int:
    value = found.get(name, 0)
    if value is None:
        return 0
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{name} is no number")
    return value


def _text(found: dict[str, Any], name: str) -> str | None:
    value = found.get(name)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{name} is no text")
    return value


def _texts(found: dict[str, Any], name: str) -> tuple[str, ...]:
    value = found.get(name) or []
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ValueError(f"{name} is no list of texts")
    return tuple(value)


def _peer(value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, dict) or not isinstance(value.get("address"), str):
        raise ValueError("peer has no address")
    return str(value["address"])
