"""The pages about the state store say what the code says."""

import re
import runpy
from pathlib import Path

import pytest
from click import Group

from flowferry import estate
from flowferry.cli.state import state
from flowferry.estate import errors, reducers

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/estate.md").read_text("utf-8")


def test_the_reference_is_what_the_docstrings_give() -> None:
    made = runpy.run_path(str(ROOT / "setup/reference.py"))["markdown"]()
    there = (ROOT / "docs/estate-reference.md").read_text("utf-8")
    assert there == made, "run .venv/bin/python setup/reference.py > docs/estate-reference.md"


def test_the_reference_has_all_that_is_public() -> None:
    lines = (ROOT / "docs/estate-reference.md").read_text("utf-8").splitlines()
    headings = "\n".join(line for line in lines if line.startswith("#"))
    types = {"AnyFlow", "Consistency"}
    public = set(estate.__all__) - types
    assert not [name for name in sorted(public) if not re.search(rf"\b{name}\b", headings)]


@pytest.mark.parametrize(("language", "head"), [("python", '"""\n\n'), ("c", "*/\n\n")])
def test_the_tutorial_is_the_program(language: str, head: str) -> None:
    found = re.search(rf"<!-- program: (\S+) -->\n```{language}\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None
    file, code = found.groups()
    assert (ROOT / file).read_text("utf-8").split(head, 1)[1] == code
    if language == "python":
        assert len([line for line in code.splitlines() if line.strip()]) <= 20


@pytest.mark.parametrize("name", sorted(reducers.NATIVE))
def test_every_reducer_is_described(name: str) -> None:
    table = PAGE[PAGE.index("| reducer | gives |") : PAGE.index("These run at the instances")]
    assert f"`{name}`" in table


def test_every_command_is_shown() -> None:
    assert isinstance(state, Group)
    part = PAGE[PAGE.index("## The command line") : PAGE.index("## C\n")]
    assert not [name for name in state.commands if not re.search(rf"\b{name}\b", part)]


def test_every_error_is_one_of_ours() -> None:
    for name in errors.__all__:
        assert issubclass(getattr(errors, name), estate.EstateError)
        assert getattr(estate, name) is getattr(errors, name)
