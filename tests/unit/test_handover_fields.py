"""What a handover's JSON has is what its model and its page say."""

import re
from pathlib import Path

from flowferry.controller.api import models
from flowferry.controller.handover import Handover
from flowferry.controller.model import Model
from flowferry.controller.partition import Part
from flowferry.controller.strategies.base import Settings
from flowferry.wire import Match, Side

DOCUMENT = Path(__file__).parents[2] / "docs/controller.md"
PART = Part(1, Match(), (), 1, 2, (Side.UPSTREAM,), 100)


def handover() -> Handover:
    """One with a part and a line in its timeline."""
    made = Handover(1, "nf", "udp", "i2", "direct", False, Settings(), 0.0, parts=(PART,))
    made.note("asked")
    return made


def test_the_model_has_every_field() -> None:
    shown = handover().as_json(Model())
    read = models.Handover.model_validate(shown)
    assert not read.model_extra
    assert not read.parts[0].model_extra
    assert not read.timeline[0].model_extra
    assert set(models.Handover.model_fields) == set(shown)
    assert read.model_dump() == shown


def test_the_page_has_every_field() -> None:
    section = DOCUMENT.read_text("utf-8").split("\n## A handover\n")[1].split("\n## ")[0]
    firsts = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    assert set(re.findall(r"`(\w+)`", "".join(firsts))) == set(handover().as_json(Model()))
