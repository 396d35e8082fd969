"""The documents name what exists: pages, links, sections, counters, events, experiments."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from flowferry.bench.catalogue import EXPERIMENTS

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])
SOURCES = ("src/**/*.py", "tests/**/*.py", "crates/**/*.rs", "crates/**/*.[ch]", "docs/**/*.md")


def read(*parts: str) -> str:
    return ROOT.joinpath(*parts).read_text("utf-8")


def citations() -> Iterator[tuple[str, int]]:
    """Every section of docs/design.md that some file cites, with the file's name."""
    for path in (path for glob in SOURCES for path in ROOT.glob(glob)):
        for found in re.finditer(r"design\.md ((?:§\d+(?:, )?)+)", path.read_text("utf-8")):
            for number in re.findall(r"\d+", found[1]):
                yield str(path.relative_to(ROOT)), int(number)


@pytest.mark.parametrize("index", ["docs/README.md", "README.md"])
def test_every_page_is_listed(index: str) -> None:
    text = read(index)
    pages = {path.name for path in DOCS.glob("*.md")} - {"README.md"}
    assert not [name for name in sorted(pages | {"decisions/"}) if f"{name})" not in text]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text("utf-8"))
    local = [link for link in links if "://" not in link]
    assert not [link for link in local if not (page.parent / link).exists()]


def test_cited_sections_exist() -> None:
    sections = {int(number) for number in re.findall(r"(?m)^## (\d+)\.", read("docs/design.md"))}
    cited = list(citations())
    assert cited
    assert not [where for where in cited if where[1] not in sections]


def test_folders_of_tests_that_are_named_exist() -> None:
    named = set(re.findall(r"\btests/[a-z]+/", read("CONTRIBUTING.md")))
    assert "tests/unit/" in named
    assert not [folder for folder in named if not list((ROOT / folder).glob("test_*.py"))]


def test_every_counter_is_described() -> None:
    struct = re.search(
        r"struct ff_counters \{(.*?)\n\};", read("crates/hsl/bpf/shared.h"), re.DOTALL
    )
    assert struct is not None
    counters = re.findall(r"__u64 (\w+);", struct[1])
    assert "captured" in counters
    page = read("docs/hsl.md")
    table = page[page.index("| counter | packets that |") : page.index("### Events")]
    assert not [name for name in counters if f"`{name}`" not in table]


def test_every_event_of_the_agent_is_described() -> None:
    sources = (path.read_text("utf-8") for path in ROOT.glob("crates/hsl/src/agent/*.rs"))
    events = {name for text in sources for name in re.findall(r'"event": "(\w+)"', text)}
    assert "fenced" in events
    page = read("docs/hsl.md")
    part = page[page.index("### Events") : page.index("### The language")]
    assert not [name for name in sorted(events) if f"`{name}`" not in part]


def test_every_experiment_is_described() -> None:
    page = read("docs/benchmarks.md")
    assert not [name for name in EXPERIMENTS if f"**{name}**" not in page]
    assert not [name for name in EXPERIMENTS if f"`flowferry bench {name}`" not in page]


def test_the_fuzz_targets_are_the_ones_that_are_built_run_and_told_of() -> None:
    targets = {path.stem for path in (ROOT / "fuzz/fuzz_targets").glob("*.rs")}
    bullet = re.search(
        r"^- Parsers of outside bytes.*?(?=^\S|\Z)", read("docs/design.md"), re.M | re.S
    )
    assert bullet
    assert set(re.findall(r"`([a-z_]+)`", bullet[0])) == targets
    assert set(re.findall(r'^name = "(\w+)"\npath', read("fuzz/Cargo.toml"), re.M)) == targets
    inputs = [path.read_text() for path in ROOT.glob("crates/*/tests/fuzz_targets.rs")]
    assert set(re.findall(r"fuzz_targets/(\w+)\.rs", "".join(inputs))) == targets
