"""The controller's configuration file: YAML in, a checked `Config` or every problem out.

`flowferry controller schema` prints the JSON schema (draft 2020-12), which is drawn from the
classes here. Rules that span several fields are checked behind it.
"""

import difflib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from flowferry.hsl import Tls as AgentTls
from flowferry.hsl import certificates
from flowferry.hsl.config import ConfigError, Document, Problem, dotted, key_file_problem

SCHEMA_HINT = "'flowferry controller schema' prints all fields"
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,31}$")]
Address = Annotated[str, Field(pattern=r"^(\[[0-9A-Fa-f:]+\]|[^\s:\[\]]+):[0-9]{1,5}$")]
AbsolutePath = Annotated[str, Field(pattern=r"^/", max_length=4096)]
OpenFlowPort = Annotated[int, Field(ge=1, le=0xFFFFFF00)]


class _Part(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True
    )


class Tls(_Part):
    """Certificates, as PEM files."""

    cert: AbsolutePath
    """the controller's certificate chain"""
    key: AbsolutePath
    """its private key"""
    ca: AbsolutePath | None = None
    """who signs the other end's certificates; with it, the other end must have one"""


class OpenFlow(_Part):
    """Where switches connect to."""

    listen: Address = "127.0.0.1:6653"
    """address and port, HOST:PORT"""
    netns: Annotated[str, Field(pattern=r"^[^/\s]{1,255}$")] | None = None
    """network namespace to listen in, as `ip netns` names it"""
    tls: Tls | None = None
    """with it, switches must speak TLS"""
    first_table: Annotated[int, Field(ge=1, le=200)] = 10
    """the first of two tables for each group; the controller touches no other but table 0"""
    echo_ms: Annotated[int, Field(ge=100, le=600_000)] = 5000
    """milliseconds between two questions whether a switch is still there"""


class Rest(_Part):
    """Where people and programs ask."""

    listen: Address | None = "127.0.0.1:6680"
    """address and port, HOST:PORT; beyond loopback it needs token_file and tls"""
    token_file: AbsolutePath | None = None
    """a file of mode 600 with the token that every request must bear (Authorization: Bearer …)"""
    tls: Tls | None = None
    """with it, HTTPS"""


class Key(_Part):
    """A key of the deployment; the first one signs."""

    id: Annotated[int, Field(ge=1, le=0xFFFF)]
    """its number in control frames"""
    file: AbsolutePath
    """a file of mode 600 with the secret, 32 bytes or more in hexadecimal digits"""


class Attachment(_Part):
    """One end of a group."""

    dpid: Annotated[int, Field(ge=1, le=0xFFFFFFFFFFFFFFFF)]
    """the switch's datapath id"""
    ports: list[OpenFlowPort] = []
    """its ports towards hosts"""
    group: Name | None = None
    """or the group that follows there, in a chain"""


class Instance(_Part):
    """One running copy of the function."""

    name: Name
    """its name"""
    id: Annotated[int, Field(ge=1, le=0xFFFFFFFF)]
    """its number in control frames, unique in the deployment"""
    upstream_port: OpenFlowPort
    """its port on the upstream switch"""
    downstream_port: OpenFlowPort
    """its port on the downstream switch"""
    peer: Address | None = None
    """where its support layer takes strays (`strays_listen`); without it, it is in no move"""
    macs: list[Annotated[str, Field(pattern=r"^([0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}$")]] = []
    """MAC addresses by which it may be named"""


class Group(_Part):
    """Interchangeable instances between the same two switches."""

    name: Name
    """its name"""
    upstream: Attachment
    """the end that faces clients"""
    downstream: Attachment
    """the end that faces servers"""
    instances: list[Instance] = []
    """the first one serves what no rule claims"""


class Config(_Part):
    """What `flowferry controller run --config FILE` reads, as YAML or JSON."""

    name: Name = "flowferry"
    """of this deployment, in logs and answers"""
    openflow: OpenFlow = OpenFlow()
    """where switches connect to"""
    rest: Rest = Rest()
    """where people and programs ask"""
    journal: AbsolutePath
    """the SQLite file that a restart goes on from; it is made if missing"""
    keys: Annotated[list[Key], Field(min_length=1)]
    """keys of control frames, the deployment's own; the first one signs"""
    groups: list[Group] = []
    """groups known from the start; instances may be added later"""
    strategy: Literal["direct", "reroute"] = "direct"
    """how handovers are done unless a request says otherwise"""
    settling_ms: Annotated[int, Field(ge=1, le=600_000)] = 1500
    """milliseconds after the turn until no cache of a switch can still be old"""
    deadline_ms: Annotated[int, Field(ge=10, le=600_000)] = 2000
    """milliseconds that an agent or a switch has for one step"""
    state_deadline_ms: Annotated[int, Field(ge=10, le=3_600_000)] = 60_000
    """milliseconds that a function has to export or import its state"""
    heartbeat_ms: Annotated[int, Field(ge=10, le=60_000)] = 200
    """milliseconds between two questions to an agent that takes part in a handover"""
    dead_after: Annotated[int, Field(ge=2, le=1000)] = 5
    """questions without an answer after which an agent counts as dead"""
    failpoint: str | None = None
    """for tests: TRANSITION:kill or TRANSITION:stop, with @N for the Nth time"""


def schema() -> dict[str, Any]:
    """The published JSON schema (draft 2020-12)."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:flowferry:schema:controller-config:1",
        **Config.model_json_schema(),
    }


def load(path: Path | str) -> Config:
    """Read and check a configuration file. Raises `ConfigError`."""
    try:
        text = Path(path).read_text("utf-8")
    except OSError as error:
        remedy = "give the path of a configuration file"
        what = f"cannot be read ({error.strerror})"
        raise ConfigError([Problem(str(path), "", what, remedy)]) from None
    except UnicodeDecodeError:
        remedy = "write it as YAML in UTF-8"
        raise ConfigError([Problem(str(path), "", "is no text", remedy)]) from None
    return parse(text, str(path))


def parse(text: str, name: str) -> Config:
    """Check the text of a configuration; `name` stands for the file. Raises `ConfigError`."""
    document = Document(text, name)
    if document.duplicates:
        raise ConfigError(document.duplicates)
    if not isinstance(document.data, dict):
        what = "is empty" if document.data is None else "is no mapping"
        remedy = f"write a mapping of fields; {SCHEMA_HINT}"
        raise ConfigError([Problem(document.where([]), "", what, remedy)])
    try:
        config = Config.model_validate(document.data)
    except ValidationError as error:
        raise ConfigError([_problem(document, each) for each in error.errors()]) from None
    problems = list(_by_rules(document, config))
    if problems:
        raise ConfigError(problems)
    return config


def _problem(document: Document, error: Any) -> Problem:
    path = [step for step in error["loc"] if not isinstance(step, str) or step in _FIELDS]
    kind, context = error["type"], error.get("ctx", {})
    value = json.dumps(error["input"], default=str)
    value = value if len(value) <= 80 else f"{value[:77]}..."
    if kind == "missing":
        what, remedy = "is missing", f"add it; {SCHEMA_HINT}"
    elif kind == "extra_forbidden":
        path = list(error["loc"])
        near = difflib.get_close_matches(str(path[-1]), sorted(_FIELDS), n=1)
        what = "is no field"
        remedy = f"did you mean {near[0]!r}?" if near else f"remove it; {SCHEMA_HINT}"
    elif kind in ("greater_than_equal", "less_than_equal"):
        low = kind == "greater_than_equal"
        limit = context["ge" if low else "le"]
        what = f"{value} is too {'small' if low else 'large'}"
        remedy = f"write {limit} or {'more' if low else 'less'}"
    else:
        what, remedy = f"{value} is not possible", f"{error['msg']}; {SCHEMA_HINT}"
    return Problem(document.where(path), dotted(path), what, remedy)


_FIELDS = {
    name
    for part in (Config, OpenFlow, Rest, Tls, Key, Group, Attachment, Instance)
    for name in part.model_fields
}


def _by_rules(document: Document, config: Config) -> Iterator[Problem]:
    """What a schema cannot say with a remedy."""

    def problem(path: list[str | int], what: str, remedy: str) -> Problem:
        return Problem(document.where(path), dotted(path), what, remedy)

    seen: set[int] = set()
    for at, key in enumerate(config.keys):
        if key.id in seen:
            yield problem(["keys", at, "id"], f"{key.id} stands twice", "number the keys apart")
        seen.add(key.id)
        wrong = key_file_problem(Path(key.file))
        if wrong is not None:
            remedy = "write a secret of 32 bytes or more there, as hexadecimal digits"
            yield problem(["keys", at, "file"], f"{key.file!r} {wrong}", remedy)
    names = [group.name for group in config.groups]
    ids: dict[int, str] = {}
    ports: dict[tuple[int, int], str] = {}
    for at, group in enumerate(config.groups):
        here: list[str | int] = ["groups", at]
        if group.name in names[:at]:
            yield problem([*here, "name"], f"{group.name!r} stands twice", "name groups apart")
        for side in ("upstream", "downstream"):
            end: Attachment = getattr(group, side)
            if bool(end.ports) == (end.group is not None):
                what = "needs either ports or a group"
                yield problem([*here, side], what, "write ports towards hosts, or the next group")
            if end.group is not None and (end.group not in names or end.group == group.name):
                what = f"{end.group!r} is no other group"
                yield problem([*here, side, "group"], what, f"name one of: {', '.join(names)}")
            for number in end.ports:
                ports.setdefault((end.dpid, number), f"the outside of {group.name}")
        local: set[str] = set()
        for which, one in enumerate(group.instances):
            path = [*here, "instances", which]
            if one.name in local:
                yield problem([*path, "name"], f"{one.name!r} stands twice", "name them apart")
            local.add(one.name)
            if one.id in ids:
                what = f"{one.id} is {ids[one.id]}'s already"
                yield problem([*path, "id"], what, "number all instances apart")
            ids[one.id] = one.name
            for side in ("upstream", "downstream"):
                end = getattr(group, side)
                place = (end.dpid, getattr(one, f"{side}_port"))
                if place in ports:
                    what = f"{place[1]} is {ports[place]} already"
                    yield problem([*path, f"{side}_port"], what, "give another port")
                ports[place] = one.name
    yield from _tls(config, problem)
    yield from _rest(config.rest, problem)


def _tls(config: Config, problem: Any) -> Iterator[Problem]:
    for part, tls in (("openflow", config.openflow.tls), ("rest", config.rest.tls)):
        if tls is None:
            continue
        files = AgentTls(tls.cert, tls.key, tls.ca or tls.cert)  # without, nobody is to be believed
        found = certificates.problem(files)
        if found is not None:
            field, why = found
            field = field if getattr(tls, field) else "cert"
            what = f"{getattr(files, field)!r} cannot be used: {why}"
            yield problem([part, "tls", field], what, "give PEM files that fit, readable here")


def _rest(rest: Rest, problem: Any) -> Iterator[Problem]:
    if rest.token_file is not None:
        wrong = _token_file_problem(Path(rest.token_file))
        if wrong is not None:
            what = f"{rest.token_file!r} cannot be used: {wrong}"
            remedy = "it is to hold the token, for its owner alone"
            yield problem(["rest", "token_file"], what, remedy)
    if rest.listen is None:
        return
    host = rest.listen.rpartition(":")[0].strip("[]")
    local = host in ("localhost", "::1") or host.startswith("127.")
    for name in ("token_file", "tls"):
        if not local and getattr(rest, name) is None:
            what = f"{rest.listen!r} is beyond loopback, and {name} is missing"
            yield problem(["rest", "listen"], what, f"add rest.{name}, or listen on 127.0.0.1")


def _token_file_problem(path: Path) -> str | None:
    """What is wrong with it. An empty token would let in whoever shows an empty one."""
    try:
        token = path.read_text("utf-8").strip()
    except OSError as error:
        return f"it cannot be read ({error.strerror})"
    except UnicodeDecodeError:
        return "it is no text"
    return certificates.sharing(path) or (None if token else "it holds no token")
