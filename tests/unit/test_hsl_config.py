"""The agent's configuration file: what is taken, and what is said about what is not."""

import json
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from flowferry import _native
from flowferry.hsl import Config, Instance, Interfaces, KeyFile, Tls
from flowferry.hsl import config as configuration
from flowferry.hsl.config import ConfigError
from flowferry.testbed.certificates import Authority, Certificate

PLAIN: dict[str, Any] = {
    "instance": {"name": "i1", "id": 1},
    "shim": "kernel",
    "interfaces": {"upstream": "up", "downstream": "down"},
    "pins": "/sys/fs/bpf/i1",
    "socket": "/run/i1.sock",
}
VETH = PLAIN | {
    "shim": "veth",
    "interfaces": PLAIN["interfaces"] | {"inner_upstream": "iup", "inner_downstream": "idown"},
}


def problems(text: str | dict[str, Any]) -> list[str]:
    """What is said about a configuration, each without the file's name."""
    text = text if isinstance(text, str) else yaml.safe_dump(text, sort_keys=False)
    with pytest.raises(ConfigError) as caught:
        configuration.parse(text, "f")
    return [str(problem).removeprefix("f:") for problem in caught.value.problems]


def parse(data: dict[str, Any]) -> Config:
    return configuration.parse(yaml.safe_dump(data), "f")


def test_the_least_that_is_needed() -> None:
    config = parse(PLAIN)
    assert config.instance == Instance("i1", 1)
    assert config.interfaces == Interfaces("up", "down")
    assert (config.shim, config.netns, config.buffer_bytes) == ("kernel", None, 256 << 20)


def test_everything(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("5a" * 32 + "\n")
    key.chmod(0o600)
    config = parse(
        VETH
        | {
            "netns": "lab-i1",
            "buffer_bytes": 1 << 20,
            "table_size": 1024,
            "heartbeat_timeout_ms": 500,
            "settle_us": 0,
            "keys": [{"id": 7, "file": str(key)}],
            "strays_listen": "[fd00::1]:7100",
            "failpoint": "held+frame:stop@3",
            "trust_markers": True,
            "stall_ms": 20,
        }
    )
    assert config.interfaces == Interfaces("up", "down", "iup", "idown")
    assert config.keys == [KeyFile(7, str(key))]
    assert config.failpoint == "held+frame:stop@3"


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(configuration.schema())


def test_schema_and_type_have_the_same_fields_and_defaults() -> None:
    properties = configuration.schema()["properties"]
    for kind, schema in (
        (Config, configuration.schema()),
        (Instance, properties["instance"]),
        (Interfaces, properties["interfaces"]),
        (KeyFile, properties["keys"]["items"]),
        (Tls, properties["tls"]),
    ):
        declared = {field.name: field for field in fields(kind)}
        assert set(declared) == set(schema["properties"])
        needed = {
            name
            for name, field in declared.items()
            if field.default is MISSING and field.default_factory is MISSING
        }
        assert needed == set(schema["required"])
        for name in set(declared) - needed:
            field = declared[name]
            assert callable(field.default_factory) or field.default is not MISSING
            default = field.default_factory() if callable(field.default_factory) else field.default
            assert schema["properties"][name]["default"] == default, name


def test_the_agent_takes_every_field_of_the_schema() -> None:
    # It gets as far as the namespace, which does not exist; an unknown field would end it before.
    config = Config(
        Instance("i1", 1),
        "veth",
        Interfaces("up", "down", "iup", "idown"),
        "/sys/fs/bpf/none",
        "/run/none.sock",
        netns="no-such-namespace",
        keys=[KeyFile(1, "/nowhere")],
        strays_listen="127.0.0.1:1",
        tls=Tls("/nowhere", "/nowhere", "/nowhere"),
        failpoint="held+frame:kill",
    )
    with pytest.raises(RuntimeError, match="no-such-namespace"):
        _native.hsl_run(config.to_json())
    with pytest.raises(ValueError, match="unknown field"):
        _native.hsl_run(json.dumps(json.loads(config.to_json()) | {"colour": 1}))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (
            PLAIN | {"buffer_byts": 1},
            "10: buffer_byts: is no field; did you mean 'buffer_bytes'?",
        ),
        (PLAIN | {"colour": 1}, "is no field; remove it; 'flowferry hsl schema' prints"),
        (PLAIN | {"shim": "dpdk"}, '4: shim: "dpdk" is not possible; write one of: kernel, veth'),
        (PLAIN | {"buffer_bytes": 3}, "buffer_bytes: 3 is too small; write 262_144 or more"),
        (PLAIN | {"settle_us": 1.0}, "settle_us: 1.0 is no whole number; wanted: how long"),
        (PLAIN | {"netns": False}, "false is no text; wanted: network namespace"),
        (PLAIN | {"pins": "bpf"}, '"bpf" is not possible; wanted: absolute path'),
        (PLAIN | {"socket": "/" + "x" * 107}, "is too long; use at most 107 bytes"),
        (PLAIN | {"socket": "/" + "ö" * 60}, "is too long; use at most 107 bytes"),
        (PLAIN | {"strays_listen": "host"}, "wanted: address and port"),
        (PLAIN | {"strays_listen": "host:1"}, "needs keys"),
        (PLAIN | {"keys": 4}, "4 is no list"),
        (PLAIN | {"keys": [{"id": 1, "file": "/nowhere"}]}, "keys[0].file: '/nowhere' cannot be"),
        (PLAIN | {"instance": {"name": "i1"}}, "1: instance.id: is missing; add it: its number"),
        (PLAIN | {"instance": {"name": "i1", "id": 0}}, "instance.id: 0 is too small"),
        (PLAIN | {"instance": "i1"}, 'instance: "i1" is not possible'),
        (PLAIN | {"shim": "veth"}, "interfaces.inner_upstream: is missing; the veth shim needs it"),
        (VETH | {"shim": "kernel"}, "has no place with the kernel shim; remove it"),
        (
            PLAIN | {"interfaces": {"upstream": "up", "downstream": "up"}},
            "interfaces.downstream: 'up' is upstream already; name another interface",
        ),
        (
            PLAIN | {"interfaces": {"upstream": "up", "downstream": "x" * 16}},
            "is not possible; wanted: name of the interface that faces the egress switch",
        ),
    ],
)
def test_each_problem_is_named_with_its_remedy(data: dict[str, Any], said: str) -> None:
    assert any(said in problem for problem in problems(data)), problems(data)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "1: is empty; write a mapping of fields"),
        ("- 1", "1: is [1]; write a mapping of fields"),
        ("a: [1", "1: not understood: "),
        ("a: &a [*a]", "1: a: is no field"),
        ("shim: kernel\nshim: veth", "2: shim: stands twice, first in line 1; remove one of them"),
        ("instance: {name: a, name: b}", "1: name: stands twice"),
        ("true: 1", "1: True: is no field"),
    ],
)
def test_a_file_that_is_no_configuration(text: str, said: str) -> None:
    assert said in problems(text)[0]


def test_all_problems_are_listed_and_the_first_is_the_message() -> None:
    with pytest.raises(ConfigError) as caught:
        parse(PLAIN | {"shim": "dpdk", "colour": 1, "stall_ms": -1})
    assert len(caught.value.problems) == 3
    assert str(caught.value).endswith("(and 2 more; --check lists them)")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("5a" * 31, "holds only 31 bytes"),
        ("xyz", "holds something else than hexadecimal digits"),
        ("5a 5a" * 32, "holds spaces between its digits"),
    ],
)
def test_a_key_file_is_looked_into_but_not_shown(tmp_path: Path, content: str, said: str) -> None:
    key = tmp_path / "key"
    key.write_text(content)
    key.chmod(0o600)
    (found,) = problems(PLAIN | {"keys": [{"id": 1, "file": str(key)}]})
    assert said in found
    assert content not in found


def test_a_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("5a" * 32)
    key.chmod(0o644)
    (found,) = problems(PLAIN | {"keys": [{"id": 1, "file": str(key)}]})
    assert "others may use it (mode 644); chmod 600" in found


def test_keys_are_numbered_apart(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("5a" * 32)
    key.chmod(0o600)
    (found,) = problems(PLAIN | {"keys": [{"id": 1, "file": str(key)}] * 2})
    assert "keys[1].id: 1 stands for another key already" in found


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot be read .*; give the path"):
        configuration.load(tmp_path / "none")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="is no text; write it as YAML"):
        configuration.load(tmp_path / "binary")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


@given(
    st.dictionaries(
        st.sampled_from([*configuration.schema()["properties"], "x"]), VALUES, max_size=12
    )
)
def test_anything_is_either_taken_or_explained(data: dict[str, Any]) -> None:
    said: tuple[configuration.Problem, ...] = ()
    try:
        parse(PLAIN | data)
    except ConfigError as error:
        said = error.problems
    assert all(problem.what and problem.remedy for problem in said)


@given(st.text(max_size=60))
def test_any_text_is_either_taken_or_explained(text: str) -> None:
    with pytest.raises(ConfigError):
        configuration.parse(text, "f")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


def with_tls(tmp_path: Path, own: Certificate, **other: str) -> dict[str, Any]:
    """A configuration of instance 1 with TLS."""
    key = tmp_path / "key"
    key.write_text("5a" * 32 + "\n")
    key.chmod(0o600)
    return PLAIN | {"keys": [{"id": 1, "file": str(key)}], "tls": vars(own) | other}


def test_certificates_that_others_would_believe_are_taken(
    tmp_path: Path, authority: Authority
) -> None:
    own = authority.issue("instance-1")
    assert parse(with_tls(tmp_path, own)).tls == Tls(own.cert, own.key, own.ca)


def test_every_certificate_that_others_would_refuse_is_told_with_its_field(
    tmp_path: Path, authority: Authority
) -> None:
    own = authority.issue("instance-1")
    other = authority.issue("instance-2")
    old = authority.issue("instance-1", file="old", days=-1)
    stranger = Authority(tmp_path / "theirs")
    shared = tmp_path / "shared.key"
    shared.write_text(Path(own.key).read_text())
    shared.chmod(0o644)
    no_key = tmp_path / "no.key"
    no_key.write_text(Path(own.cert).read_text())
    no_key.chmod(0o600)
    for data, field, said in (
        (with_tls(tmp_path, old), "cert", "it has expired; renew it"),
        (with_tls(tmp_path, other), "cert", "it does not stand for instance-1"),
        (with_tls(tmp_path, own, ca=stranger.ca), "cert", f"no authority in {stranger.ca}"),
        (with_tls(tmp_path, own, key=other.key), "key", f"it is not the key of {own.cert}"),
        (with_tls(tmp_path, own, key=str(shared)), "key", "others may use it (mode 644"),
        (with_tls(tmp_path, own, key=str(no_key)), "key", "there is no private key in it"),
        (with_tls(tmp_path, own, cert=own.key), "cert", "there is no certificate in it"),
        (with_tls(tmp_path, own, cert="/nowhere/c"), "cert", "No such file"),
        (with_tls(tmp_path, own, ca="/nowhere/c"), "ca", "No such file"),
    ):
        (problem,) = problems(data)
        assert f"tls.{field}: '{data['tls'][field]}' cannot be used: " in problem
        assert said in problem


def test_tls_is_whole_and_needs_keys(tmp_path: Path, authority: Authority) -> None:
    data = with_tls(tmp_path, authority.issue("instance-1"))
    (problem,) = problems({k: v for k, v in data.items() if k != "keys"})
    assert "tls: needs keys" in problem
    del data["tls"]["ca"]
    (problem,) = problems(data)
    assert "tls.ca: is missing" in problem
