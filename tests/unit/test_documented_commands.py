"""Command lines in the documents are such that `flowferry` has these commands and options."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from flowferry.cli import main

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def lines(page: Path) -> Iterator[str]:
    """Each line of a code block that calls `flowferry`, without what is optional or a remark."""
    for block in re.findall(r"(?ms)^```\w*\n(.*?)^```", page.read_text("utf-8")):
        for line in block.replace("\\\n", " ").splitlines():
            if line.startswith("flowferry ") and " · " not in line:
                yield re.sub(r"[][|]", " ", line.split(" #")[0]).rstrip("& ")


def wrong(line: str) -> str | None:
    """What no command of that name takes."""
    command: click.Command = main
    words = shlex.split(line)[1:]
    while isinstance(command, click.Group) and words:
        inner = command.get_command(click.Context(command), words[0])
        if inner is None:
            break
        command, words = inner, words[1:]
    if isinstance(command, click.Group):
        stands_for_one = words and re.fullmatch("[A-Z]+|…", words[0])
        return None if stands_for_one else f"{words[:1]} is no command"
    known = {name for each in command.params for name in (*each.opts, *each.secondary_opts)}
    options = [word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)]
    missing = [option for option in options if option not in known]
    return f"no option {missing}" if missing else None


@pytest.mark.parametrize("page", [page for page in PAGES if [*lines(page)]], ids=lambda p: p.name)
def test_commands_and_options_exist(page: Path) -> None:
    assert not [(line, found) for line in lines(page) if (found := wrong(line))]


@pytest.mark.parametrize(
    "line",
    ["flowferry hsl --config i1.yaml", "flowferry mvoe --wait", "flowferry move --now --to i2"],
)
def test_what_does_not_exist_is_found(line: str) -> None:
    assert wrong(line)
