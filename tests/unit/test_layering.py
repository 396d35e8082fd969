"""The rules of layering (docs/design.md §3), read off the sources.

A protocol core gets time, randomness and input as arguments; a binding only converts; the command
line and the benches use what any user could. Each rule is a row of the table; beside it stands a
line that breaks it, so that a pattern that has stopped to bite fails here too.
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Rule:
    """No file that matches one of `where` has a line that matches `never`."""

    what: str
    where: tuple[str, ...]
    never: str
    broken_by: str


CORES = (
    "crates/wire/src/**/*.rs",
    "crates/hsl/src/endpoint/**/*.rs",
    "crates/estate/src/reduce/**/*.rs",
    "crates/estate/src/protocol/**/*.rs",
    "crates/hsl/src/handover/**/*.rs",
    "crates/hsl/src/model/**/*.rs",
)
#: Pure Python: what goes in and comes out are values.
PYTHON_CORES = (
    "src/flowferry/controller/strategies/**/*.py",
    "src/flowferry/controller/model.py",
    "src/flowferry/controller/match.py",
    "src/flowferry/controller/partition.py",
    "src/flowferry/controller/change.py",
    "src/flowferry/controller/remainder.py",
    "src/flowferry/controller/naming.py",
    "src/flowferry/controller/losses.py",
    "src/flowferry/controller/openflow/codec.py",
    "src/flowferry/controller/openflow/oxm.py",
    "src/flowferry/controller/openflow/tables.py",
)
#: Modules of the standard library by which a core would touch the world.
WORLD = frozenset(
    {"asyncio", "datetime", "multiprocessing", "os", "pathlib", "random", "secrets", "select"}
    | {"signal", "socket", "sqlite3", "ssl", "subprocess", "sys", "tempfile", "threading", "time"}
)
BINDINGS = ("crates/python/src/**/*.rs",)

RULES = [
    Rule(
        "a core opens no socket",
        CORES,
        r"\b(Tcp|Udp|Unix)(Stream|Listener|Socket|Datagram)\b|\b(tokio|mio|socket2|async_std)\b",
        "use std::net::UdpSocket;",
    ),
    Rule("a core touches no file", CORES, r"\bstd::(fs|io|os)\b|\bFile::", "use std::fs::File;"),
    Rule(
        "a core reads no clock",
        CORES,
        r"\b(Instant|SystemTime|UNIX_EPOCH|chrono)\b|clock_gettime",
        "let now = Instant::now();",
    ),
    Rule("a core draws no lots", CORES, r"\b(rand|getrandom|fastrand)\b", "rand::random()"),
    Rule(
        "a core makes no system call",
        CORES,
        r"\b(libc|nix|rustix|aya)\b|\bunsafe\b",
        "libc::getpid()",
    ),
    Rule(
        "a core knows no process, thread or environment",
        CORES,
        r"\bstd::(env|process|thread)\b|\bthread::spawn\b",
        'std::env::var("HOME")',
    ),
    Rule("a core does not print", CORES, r"\be?print(ln)?!|\bdbg!", 'println!("x")'),
    Rule(
        "a binding opens no socket and no file",
        BINDINGS,
        r"\b(Tcp|Udp|Unix)(Stream|Listener|Socket|Datagram)\b|\bstd::fs\b|\bFile::",
        'std::fs::read("x")',
    ),
    Rule("a binding is safe code", BINDINGS, r"\bunsafe\b|\blibc::", "unsafe { f() }"),
]
#: A binding converts. What needs more room than this is logic, and belongs in the crate it binds.
BINDING_FILE_LINES, BINDING_FUNCTION_LINES = 400, 80

FRONTS = ("src/flowferry/cli/**/*.py", "src/flowferry/bench/**/*.py")


def files(*globs: str) -> list[Path]:
    found = sorted(path for glob in globs for path in ROOT.glob(glob))
    assert found, f"nothing matches {globs}; has a folder moved?"
    return found


def code(text: str) -> Iterator[tuple[int, str]]:
    """The numbered lines of a Rust file, without comments and without its unit tests."""
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip() == "#[cfg(test)]":
            return
        yield number, re.sub(r"//.*", "", line)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.what)
def test_rust(rule: Rule) -> None:
    pattern = re.compile(rule.never)
    assert pattern.search(rule.broken_by), "the pattern does not find what it is for"
    broken = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in files(*rule.where)
        for number, line in code(path.read_text())
        if pattern.search(line)
    ]
    assert not broken, f"{rule.what}:\n" + "\n".join(broken)


def test_bindings_are_small() -> None:
    long = []
    for path in files(*BINDINGS):
        lines = path.read_text().splitlines()
        if len(lines) > BINDING_FILE_LINES:
            long.append(f"{path.relative_to(ROOT)}: {len(lines)} lines")
        began, indent = 0, ""
        for number, line in enumerate(lines, start=1):
            if not began and re.match(r"\s*(pub(\(\w+\))? )?fn ", line):
                began, indent = number, line[: len(line) - len(line.lstrip())]
            # rustfmt closes a function at the indent it began with.
            elif began and line == indent + "}":
                if number - began >= BINDING_FUNCTION_LINES:
                    long.append(f"{path.relative_to(ROOT)}:{began}: {number - began} lines")
                began = 0
    assert not long, f"logic belongs in the crate that is bound: {long}"


def private_imports(source: str) -> list[str]:
    """What a Python file imports from flowferry that is not for everybody."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("flowferry"):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if alias.name.startswith("flowferry")]
        else:
            continue
        found += [name for name in names if any(part[0] == "_" for part in name.split("."))]
    return found


def worldly_imports(source: str) -> set[str]:
    """What a Python file imports that has to do with the world."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            found.add((node.module or "").split(".")[0])
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
    return found & WORLD


def test_a_python_core_does_no_io_and_reads_no_clock() -> None:
    assert worldly_imports("import os.path\nfrom time import monotonic") == {"os", "time"}
    broken = {
        str(path.relative_to(ROOT)): worldly
        for path in files(*PYTHON_CORES)
        if (worldly := worldly_imports(path.read_text()))
    }
    assert not broken


@pytest.mark.parametrize(
    "line",
    [
        "import flowferry._native",
        "from flowferry import _native",
        "from flowferry._native import Control",
        "from flowferry.probe import _read",
    ],
)
def test_a_private_import_is_found(line: str) -> None:
    assert private_imports(line)


def test_command_line_and_benches_use_public_modules_only() -> None:
    broken = {
        str(path.relative_to(ROOT)): private
        for path in files(*FRONTS)
        if (private := private_imports(path.read_text()))
    }
    assert not broken
