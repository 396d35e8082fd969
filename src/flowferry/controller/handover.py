"""A handover as it was asked for and what has become of it; as JSON for people and the journal."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from flowferry.controller.change import Change
from flowferry.controller.match import parse, text
from flowferry.controller.model import Model
from flowferry.controller.partition import Part
from flowferry.controller.strategies.base import HandoverState, Report, Settings
from flowferry.wire import Match, Side

#: Lines of a timeline.
MOST_NOTES = 2000


@dataclass
class Handover:
    """One handover. Changes of rules are undone by `undo`, which fits `done` at any time."""

    number: int
    group: str
    match: str
    #: Name of the instance; `None` for the removal of a rule.
    to: str | None
    strategy: str
    one_way: bool
    settings: Settings
    #: Unix time, seconds.
    asked: float
    #: The same of when it began, having waited for others; `None` until then.
    began: float | None = None
    #: What was asked for, once it is planned.
    change: Change | None = None
    #: What of it is in force, and the way back from there; `None` before the turn.
    done: Change | None = None
    undo: Change | None = None
    #: Numbers of parts that have been turned back.
    back: set[int] = field(default_factory=set)
    priority: int | None = None
    rule: int | None = None
    parts: tuple[Part, ...] = ()
    state: HandoverState = HandoverState.PREPARING
    report: Report = field(default_factory=Report)
    error: str | None = None
    timeline: list[tuple[float, str]] = field(default_factory=list)
    #: Of the strategy: its last step, and what it needs to go on from there.
    step: str | None = None
    data: dict[str, Any] = field(default_factory=dict)
    #: Whatever belongs to one of these is this handover's business; not journalled.
    concerns: list[Match] = field(default_factory=list)
    #: By instance: packets that its agent held when it ended or failed open, as it, or the next
    #: one, has counted them. The report may have some of them.
    lost_unsaid: dict[int, int] = field(default_factory=dict)
    #: Data packets that had come to the controller when it began.
    packets_before: int = 0

    def note(self, line: str) -> None:
        """A line for the timeline, now."""
        if len(self.timeline) < MOST_NOTES:
            self.timeline.append((round((time.time() - self.asked) * 1e3, 3), line))

    def begin(self) -> None:
        """It waits for nobody any more."""
        self.began = time.time()

    @property
    def age_ms(self) -> float:
        """Since it began, or was asked for; by the system's clock, across restarts."""
        began = self.asked if self.began is None else self.began
        return max(0.0, round((time.time() - began) * 1e3, 3))

    @property
    def lost_packets(self) -> int:
        """By the agents' account, with what died with one of them."""
        said = self.report.lost_of
        unsaid = (max(0, held - said.get(one, 0)) for one, held in self.lost_unsaid.items())
        return self.report.lost_packets + sum(unsaid)

    def whereabouts(self, part: Part) -> int | None:
        """The instance that the rules send a part's flows to; `None`: they were never touched."""
        if self.done is None:
            return None
        return part.source if part.number in self.back else part.destination

    @property
    def is_over(self) -> bool:
        """Nothing will happen any more."""
        return self.state.is_over

    def as_json(self, model: Model, *, timeline: bool = True) -> dict[str, Any]:
        """What users get (docs/controller.md)."""
        report = self.report
        shown = {
            "id": self.number,
            "state": str(self.state),
            "strategy": self.strategy,
            "group": self.group,
            "match": self.match,
            "to": self.to,
            "priority": self.priority,
            "one_way": self.one_way,
            "rule": self.rule,
            "asked": self.asked,
            **{
                name: getattr(report, name)
                for name in (
                    "flows", "duration_ms", "fence_ms", "transfer_ms", "captured_packets",
                    "captured_bytes_peak", "stray_packets", "controller_packets", "markers",
                )
            },
            "lost_packets": self.lost_packets,
            "flags": list(report.flags),
            "error": self.error or report.error,
            "parts": [self._part(part, model) for part in self.parts],
        }  # fmt: skip
        if timeline:
            shown["timeline"] = [{"at_ms": at, "text": line} for at, line in self.timeline]
        return shown

    def _part(self, part: Part, model: Model) -> dict[str, Any]:
        return {
            "number": part.number,
            "match": text(part.match),
            "excepts": [text(each) for each in part.excepts],
            "source": name_of(model, part.source),
            "destination": name_of(model, part.destination),
            "sides": [side.name.lower() for side in part.sides],
            "priority": part.priority,
            "state": self.report.parts.get(part.number),
        }

    def as_record(self) -> dict[str, Any]:
        """For the journal."""
        return {
            **{name: getattr(self, name) for name in _PLAIN},
            "settings": asdict(self.settings),
            "report": {
                **asdict(self.report),
                **{name: list(getattr(self.report, name).items()) for name in _NUMBERED},
            },
            "began": self.began,
            "lost_unsaid": list(self.lost_unsaid.items()),
            "back": sorted(self.back),
            "parts": [_write_part(part) for part in self.parts],
            **{
                name: None if (change := getattr(self, name)) is None else change.as_json()
                for name in _CHANGES
            },
        }

    @classmethod
    def from_record(cls, data: Mapping[str, Any]) -> Handover:
        """The inverse of `as_record`."""
        report = dict(data["report"])
        known = {each.name for each in fields(Report)}
        report = {name: value for name, value in report.items() if name in known}
        report |= {name: dict(map(tuple, report.get(name, ()))) for name in _NUMBERED}
        report |= {name: tuple(report.get(name, ())) for name in ("flags", "gone")}
        plain = {name: data[name] for name in _PLAIN}
        return cls(
            **{
                **plain,
                "state": HandoverState(data["state"]),
                "timeline": [(at, line) for at, line in data["timeline"]],
                "settings": Settings(**data["settings"]),
                "report": Report(**report),
                "began": data.get("began"),
                "lost_unsaid": dict(map(tuple, data.get("lost_unsaid", ()))),
                "back": set(data["back"]),
                "parts": tuple(_read_part(part) for part in data["parts"]),
                **{
                    name: None if data[name] is None else Change.from_json(data[name])
                    for name in _CHANGES
                },
            }
        )


_CHANGES = ("change", "done", "undo")
#: Mappings by number, which JSON has none of.
_NUMBERED = ("parts", "lost_of")
_PLAIN = (
    "number", "group", "match", "to", "strategy", "one_way", "asked", "priority", "rule", "state",
    "error", "timeline", "step", "data", "packets_before",
)  # fmt: skip


def name_of(model: Model, number: int) -> str:
    """An instance's name, or its number if it is gone."""
    instance = model.instances.get(number)
    return str(number) if instance is None else instance.name


def _write_part(part: Part) -> dict[str, Any]:
    return {
        **asdict(part),
        "match": text(part.match),
        "excepts": [text(each) for each in part.excepts],
        "sides": [int(side) for side in part.sides],
    }


def _read_part(data: Mapping[str, Any]) -> Part:
    return Part(
        **{
            **data,
            "match": parse(data["match"]),
            "excepts": tuple(parse(each) for each in data["excepts"]),
            "sides": tuple(Side(side) for side in data["sides"]),
        }
    )
