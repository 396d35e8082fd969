"""The agent's configuration file: YAML in, a checked `Config` out, or every problem with its line.

The schema (`config.schema.json`, printed by `flowferry hsl schema`) is what is published; rules
that span several fields, and the key files, are checked here, since a schema cannot name the
remedy. Problems are put in our own words: a validator speaks of the schema, a person's question is
about the file.
"""

import difflib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from flowferry.hsl import certificates
from flowferry.hsl.agent import Config, Instance, Interfaces, KeyFile, Tls

#: The shortest secret that signs control frames (docs/wire.md).
SHORTEST_SECRET = 32
SCHEMA_HINT = "'flowferry hsl schema' prints all fields"


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a configuration file."""

    #: File, and line if known: what editors jump to.
    where: str
    #: The field, dotted ("interfaces.upstream"); empty for the file as a whole.
    field: str
    #: What is wrong with which value.
    what: str
    #: What to write instead.
    remedy: str

    def __str__(self) -> str:
        """One line."""
        field = f"{self.field}: " if self.field else ""
        return f"{self.where}: {field}{self.what}; {self.remedy}"


class ConfigError(Exception):
    """A configuration that cannot be used; its text is one line about the first problem."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        """`problems`: all of them, at least one."""
        more = f" (and {len(problems) - 1} more; --check lists them)" if len(problems) > 1 else ""
        super().__init__(f"{problems[0]}{more}")
        self.problems = tuple(problems)


@cache
def schema() -> dict[str, Any]:
    """The published JSON schema (draft 2020-12)."""
    text = resources.files("flowferry.hsl").joinpath("config.schema.json").read_text("utf-8")
    loaded = json.loads(text)
    assert isinstance(loaded, dict)
    return loaded


def load(path: Path | str) -> Config:
    """Read and check a configuration file. Raises `ConfigError`."""
    try:
        text = Path(path).read_text("utf-8")
    except OSError as error:
        remedy = "give the path of a configuration file"
        raise ConfigError(
            [Problem(str(path), "", f"cannot be read ({error.strerror})", remedy)]
        ) from None
    except UnicodeDecodeError:
        raise ConfigError(
            [Problem(str(path), "", "is no text", "write it as YAML in UTF-8")]
        ) from None
    return parse(text, str(path))


def parse(text: str, name: str) -> Config:
    """Check the text of a configuration; `name` stands for the file. Raises `ConfigError`."""
    document = Document(text, name)
    problems = document.duplicates or list(_by_schema(document)) or list(_by_rules(document))
    if problems:
        raise ConfigError(problems)
    fields = dict(document.data)
    tls = fields.pop("tls", None)
    return Config(
        instance=Instance(**fields.pop("instance")),
        interfaces=Interfaces(**fields.pop("interfaces")),
        keys=[KeyFile(**key) for key in fields.pop("keys", [])],
        tls=None if tls is None else Tls(**tls),
        **fields,
    )


class Document:
    """A YAML text: its plain data, and the line that each field stands on."""

    def __init__(self, text: str, name: str) -> None:
        """Raises `ConfigError` if it is no YAML; `name` stands for the file."""
        self.name = name
        try:
            self._root = yaml.compose(text, Loader=yaml.SafeLoader)
            self.data: Any = yaml.safe_load(text)
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            where = name if mark is None else f"{name}:{mark.line + 1}"
            what = getattr(error, "problem", None) or "is no YAML"
            raise ConfigError(
                [Problem(where, "", f"not understood: {what}", "write it as YAML (or JSON)")]
            ) from None
        self._visited: set[int] = set()  # an anchor may stand inside itself
        self.duplicates = list(self._find_duplicates(self._root))

    def where(self, path: Sequence[str | int]) -> str:
        """File and line of a field; of the nearest one around it if it is missing."""
        node, line = self._root, 1
        for step in path:
            if isinstance(node, yaml.MappingNode):
                found = [pair for pair in node.value if pair[0].value == step]
                if not found:
                    break
                line, node = found[-1][0].start_mark.line + 1, found[-1][1]
            elif isinstance(node, yaml.SequenceNode) and isinstance(step, int):
                node = node.value[step]
                line = node.start_mark.line + 1
            else:
                break
        return f"{self.name}:{line}"

    def _find_duplicates(self, node: yaml.Node | None) -> Iterator[Problem]:
        # YAML would silently take the last one.
        if id(node) in self._visited:
            return
        self._visited.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            for item in node.value:
                yield from self._find_duplicates(item)
        if not isinstance(node, yaml.MappingNode):
            return
        seen: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if key.value in seen:
                what = f"stands twice, first in line {seen[key.value]}"
                yield Problem(f"{self.name}:{line}", key.value, what, "remove one of them")
            seen[key.value] = line
            yield from self._find_duplicates(value)


#: To JSON schema 1.0 is an integer; to the agent it is not.
_STRICT: Any = jsonschema.validators.extend(  # type: ignore[no-untyped-call]
    jsonschema.Draft202012Validator,
    type_checker=jsonschema.Draft202012Validator.TYPE_CHECKER.redefine(
        "integer", lambda _, value: isinstance(value, int) and not isinstance(value, bool)
    ),
)


def _by_schema(document: Document) -> Iterator[Problem]:
    validator = _STRICT(schema())
    errors = sorted(validator.iter_errors(document.data), key=lambda e: list(map(str, e.path)))
    for error in errors:
        path: list[str | int] = list(error.absolute_path)
        known: list[str] = list(error.schema.get("properties", ()))
        if error.validator == "additionalProperties":
            for name in sorted(set(error.instance) - set(known), key=str):
                yield _unknown(document, [*path, str(name)], known)
        elif error.validator == "required":
            missing = error.message.split("'")[1]  # nothing else tells which one it is
            about = error.schema["properties"][missing].get("description", "")
            field = dotted([*path, missing])
            yield Problem(document.where(path), field, "is missing", f"add it: {about}")
        else:
            yield _bad_value(document, path, error)


def _unknown(document: Document, path: Sequence[Any], known: list[str]) -> Problem:
    near = difflib.get_close_matches(str(path[-1]), known, n=1)
    remedy = f"did you mean {near[0]!r}?" if near else f"remove it; {SCHEMA_HINT}"
    return Problem(document.where(path), dotted(path), "is no field", remedy)


def _bad_value(
    document: Document, path: Sequence[Any], error: jsonschema.ValidationError
) -> Problem:
    value = _shown(error.instance)
    if not path:
        what = "is empty" if error.instance is None else f"is {value}"
        return Problem(document.where(path), "", what, f"write a mapping of fields; {SCHEMA_HINT}")
    rule: Any = error.validator
    limit: Any = error.validator_value
    if rule == "enum":
        what, remedy = f"{value} is not possible", f"write one of: {', '.join(limit)}"
    elif rule in ("minimum", "maximum"):
        small = rule == "minimum"
        what = f"{value} is too {'small' if small else 'large'}"
        remedy = f"write {limit:,} or {'more' if small else 'less'}".replace(",", "_")
    elif rule == "maxLength":
        what, remedy = f"{value} is too long", f"use at most {limit} bytes"
    elif rule in ("type", "anyOf") and not isinstance(error.instance, str):
        kinds = [limit] if isinstance(limit, str) else [k for k in limit if k != "null"]
        kind = "string" if rule == "anyOf" else str(kinds[0])
        quoted = "; put it in quotes" if kind == "string" and path else ""
        what = f"{value} is no {_NOUN[kind]}"
        remedy = f"wanted: {_about(path)}{quoted}"
    else:
        what, remedy = f"{value} is not possible", f"wanted: {_about(path)}"
    return Problem(document.where(path), dotted(path), what, remedy)


def _shown(value: object) -> str:
    try:
        text = json.dumps(value, default=str)
    except ValueError:  # it contains itself
        return "this"
    return text if len(text) <= 80 else f"{text[:77]}..."


_NOUN = {
    "string": "text",
    "integer": "whole number",
    "boolean": "true or false",
    "object": "mapping",
    "array": "list",
}


def _about(path: Sequence[Any]) -> str:
    """The schema's description of a field."""
    node = schema()
    for step in path:
        node = node["items"] if isinstance(step, int) else node["properties"][step]
    return str(node["description"])


def dotted(path: Sequence[Any]) -> str:
    """A field's name as people write it: `keys[0].file`."""
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return text.lstrip(".")


def _by_rules(document: Document) -> Iterator[Problem]:
    """What the schema cannot say with a remedy."""
    data = document.data
    interfaces = data["interfaces"]
    for name in ("inner_upstream", "inner_downstream"):
        path = ["interfaces", name]
        given = interfaces.get(name) is not None
        if data["shim"] == "veth" and not given:
            what, remedy = "is missing", f"the veth shim needs it: {_about(path)}"
            yield Problem(document.where(["interfaces"]), dotted(path), what, remedy)
        elif data["shim"] == "kernel" and given:
            what = f"{interfaces[name]!r} has no place with the kernel shim"
            yield Problem(
                document.where(path), dotted(path), what, "remove it, or write 'shim: veth'"
            )
    yield from _interfaces_differ(document, interfaces)
    if data.get("strays_listen") is not None:
        path = ["strays_listen"]
        value = data["strays_listen"]
        if not data.get("keys"):
            what = f"{value!r} needs keys: packets are taken only from agents that have one"
            yield Problem(document.where(path), path[0], what, "add 'keys', or remove it")
        if not 1 <= int(value.rpartition(":")[2]) <= 65535:
            what = f"{value!r} has no possible port"
            yield Problem(document.where(path), path[0], what, "use a port from 1 to 65535")
    yield from _sockets(document, data)
    yield from _keys(document, data.get("keys", []))
    if data.get("tls") is not None:
        yield from _tls(document, data)


def _sockets(document: Document, data: dict[str, Any]) -> Iterator[Problem]:
    for name in ("socket", "function_socket"):
        path = data.get(name)
        if path is not None and len(path.encode()) > 107:
            what = f"{path!r} is too long"
            yield Problem(document.where([name]), name, what, "use at most 107 bytes")
    if data.get("function_socket") == data["socket"]:
        what = f"{data['socket']!r} takes commands already"
        where = document.where(["function_socket"])
        yield Problem(where, "function_socket", what, "name another path")


def _interfaces_differ(document: Document, interfaces: dict[str, str | None]) -> Iterator[Problem]:
    seen: dict[str, str] = {}
    for name, value in interfaces.items():
        if value is not None and value in seen:
            path = ["interfaces", name]
            what = f"{value!r} is {seen[value]} already"
            yield Problem(document.where(path), dotted(path), what, "name another interface")
        elif value is not None:
            seen[value] = name


def _keys(document: Document, keys: Sequence[dict[str, Any]]) -> Iterator[Problem]:
    seen: set[int] = set()
    for at, key in enumerate(keys):
        path: list[str | int] = ["keys", at, "id"]
        if key["id"] in seen:
            what = f"{key['id']} stands for another key already"
            yield Problem(document.where(path), dotted(path), what, "number the keys apart")
        seen.add(key["id"])
        path = ["keys", at, "file"]
        problem = key_file_problem(Path(key["file"]))
        if problem is not None:
            remedy = (
                f"write a secret of {SHORTEST_SECRET} bytes or more there, as hexadecimal digits"
            )
            what = f"{key['file']!r} {problem}"
            yield Problem(document.where(path), dotted(path), what, remedy)


def _tls(document: Document, data: dict[str, Any]) -> Iterator[Problem]:
    if not data.get("keys"):
        what = "needs keys: streams are for those only that have one"
        yield Problem(document.where(["tls"]), "tls", what, "add 'keys', or remove it")
    files, number = data["tls"], data["instance"]["id"]
    found = certificates.problem(Tls(**files), number)
    if found is not None:
        field, why = found
        path = ["tls", field]
        what = f"{files[field]!r} cannot be used: {why}"
        yield Problem(document.where(path), dotted(path), what, f"wanted: {_about(path)}")


def key_file_problem(path: Path) -> str | None:
    """What is wrong with a key file. The secret itself never gets into a message."""
    if (shared := certificates.sharing(path)) is not None:
        return shared
    try:
        digits = path.read_text("ascii").strip()
        secret = bytes.fromhex(digits)
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    except ValueError:
        return "holds something else than hexadecimal digits"
    if len(digits) != 2 * len(secret):
        return "holds spaces between its digits"
    if len(secret) < SHORTEST_SECRET:
        return f"holds only {len(secret)} bytes"
    return None
