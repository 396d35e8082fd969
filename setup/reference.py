"""Writes the reference of `flowferry.estate` from its docstrings.

.venv/bin/python setup/reference.py > docs/estate-reference.md
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "flowferry"

#: What stands where: the module, and the names in it.
PARTS: list[tuple[str, str, tuple[str, ...]]] = [
    ("Opening", "estate/__init__.py", ("open", "aopen")),
    ("An instance's estate: local operations", "_native.pyi", ("EstateCore",)),
    ("An instance's estate: the others", "estate/estate.py", ("Estate", "Tls")),
    ("One item", "_native.pyi", ("EstateItem",)),
    ("The items of a flow", "estate/flow.py", ("scope", "FlowState")),
    (
        "What global reads find",
        "estate/view.py",
        ("View", "Live", "Cached", "Snapshot", "Event", "GlobalRead"),
    ),
    ("An item that was read", "_native.pyi", ("EstateFound",)),
    ("Reducers", "estate/reducers.py", ("reducer",)),
    ("Codecs", "estate/codec.py", ("Codec", "JSON", "PICKLE")),
    ("Changes", "estate/watch.py", ("Watch",)),
    ("For asyncio", "estate/aio.py", ("AsyncEstate",)),
    ("Items for asyncio", "estate/aio_items.py", ("AsyncItem", "AsyncFlowState")),
    ("A door for the command line", "estate/door.py", ("serve", "Client")),
    ("Errors", "estate/errors.py", ("*",)),
]
#: Native classes under the names that programs see.
PUBLIC = {
    "EstateCore": "Estate",
    "EstateItem": "ItemHandle",
    "EstateFound": "Item",
    "_EstateCodec": "Codec",
}
#: Of the native half, what only `flowferry.estate` calls.
INNER = {"global_value", "global_view", "take_from", "watch_for", "hook_global_reads"}

Documented = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def markdown() -> str:
    """The page."""
    lines = [
        "# Reference of flowferry.estate",
        "",
        "Made from the docstrings by `.venv/bin/python setup/reference.py`; do not edit it. "
        "[estate.md](estate.md) explains.",
    ]
    for title, file, names in PARTS:
        lines += ["", f"## {title}"]
        tree = ast.parse((SOURCE / file).read_text("utf-8"))
        for node, text in documented(tree.body):
            name = named(node)
            if name in names or (names == ("*",) and not name.startswith("_")):
                lines += entry(node, text, "")
    text = re.sub(r"\n{3,}", "\n\n", "\n".join(lines)) + "\n"
    return re.sub("|".join(sorted(PUBLIC, reverse=True)), lambda found: PUBLIC[found[0]], text)


def documented(body: list[ast.stmt]) -> Iterator[tuple[ast.stmt, str]]:
    """Statements with their docstrings; an attribute's stands behind it."""
    for node, after in zip(body, [*body[1:], None], strict=True):
        if isinstance(node, Documented):
            if not any("overload" in ast.unparse(each) for each in node.decorator_list):
                yield node, ast.get_docstring(node) or ""
        elif isinstance(node, ast.AnnAssign) or (
            isinstance(node, ast.Assign)
            and isinstance(after, ast.Expr)
            and isinstance(after.value, ast.Constant)
        ):
            value = after.value if isinstance(after, ast.Expr) else None
            text = value.value if isinstance(value, ast.Constant) else ""
            yield node, text if isinstance(text, str) else ""


def named(node: ast.stmt) -> str:
    """What a statement defines."""
    if isinstance(node, Documented):
        return node.name
    if isinstance(node, ast.AnnAssign):
        return ast.unparse(node.target)
    assert isinstance(node, ast.Assign)
    return ast.unparse(node.targets[0])


def entry(node: ast.stmt, text: str, owner: str) -> Iterator[str]:
    """The lines about one thing."""
    if named(node) != "EstateCore":
        yield from ("", f"{'####' if owner else '###'} {heading(node, owner)}", "")
        yield from body(text)
    if isinstance(node, ast.ClassDef):
        for inner, said in documented(node.body):
            if said and not named(inner).startswith("_") and named(inner) not in INNER:
                yield from entry(inner, said, PUBLIC.get(node.name, node.name))


def heading(node: ast.stmt, owner: str) -> str:
    """The signature, or the attribute and its type."""
    name = PUBLIC.get(named(node), named(node))
    full = f"{owner}.{name}" if owner else name
    if isinstance(node, ast.ClassDef):
        bases = [ast.unparse(base) for base in node.bases]
        shown = [
            PUBLIC.get(base, base) for base in bases if not base.startswith(("Generic", "Pro"))
        ]
        return f"`{full}`" + (f" ({', '.join(shown)})" if shown and shown != [full] else "")
    if isinstance(node, ast.AnnAssign):
        return f"`{full}: {ast.unparse(node.annotation)}`"
    if isinstance(node, ast.Assign):
        return f"`{full}`"
    assert isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    returns = "" if node.returns is None else f" -> {ast.unparse(node.returns)}"
    if any(ast.unparse(each) == "property" for each in node.decorator_list):
        return f"`{full}:{returns.removeprefix(' ->')}`"
    arguments = ast.unparse(node.args).removeprefix("self, ").removeprefix("self")
    arguments = re.sub(r"='([^']*)'", r'="\1"', arguments).replace("'", "")
    returns = returns.replace("'", "")
    keyword = "await " if isinstance(node, ast.AsyncFunctionDef) else ""
    return f"`{keyword}{full}({arguments}){returns}`"


def body(text: str) -> Iterator[str]:
    """A docstring as Markdown: its sections become lists, its examples code."""
    fenced = section = False
    for line in text.splitlines():
        example = line.startswith((">>>", "...")) or (fenced and line.strip() and not section)
        if example and not fenced:
            yield from ("", "```")
        if fenced and not example:
            yield "```"
        fenced = bool(example)
        if example:
            yield line
        elif line in ("Args:", "Returns:", "Raises:"):
            section = True
            yield from ("", f"*{line.removesuffix(':')}*", "")
        elif section and line.startswith("    ") and not line.startswith("     "):
            name, colon, rest = line.strip().partition(": ")
            yield f"- `{name}`: {rest}" if colon and " " not in name else f"- {line.strip()}"
        elif section and line.startswith("     "):
            yield f"  {line.strip()}"
        else:
            section = section and bool(line)
            yield line
    if fenced:
        yield "```"


if __name__ == "__main__":
    print(markdown(), end="")
