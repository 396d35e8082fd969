"""The controller's configuration file: what is wrong is named with its line and its remedy."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from flowferry.controller import config
from flowferry.hsl.config import ConfigError
from flowferry.testbed.certificates import Authority


@pytest.fixture
def good(tmp_path: Path) -> dict[str, Any]:
    key = tmp_path / "key"
    key.write_text("ab" * 32)
    key.chmod(0o600)
    ends = {"upstream": {"dpid": 1, "ports": [1]}, "downstream": {"dpid": 2, "ports": [1]}}
    return {
        "journal": "/var/lib/flowferry/controller.db",
        "keys": [{"id": 1, "file": str(key)}],
        "groups": [
            {
                "name": "nat",
                **ends,
                "instances": [
                    {
                        "name": f"i{k}",
                        "id": k,
                        "upstream_port": 10 + k,
                        "downstream_port": 10 + k,
                        "peer": f"172.31.0.{k}:7001",
                    }
                    for k in (1, 2)
                ],
            }
        ],
    }


def test_a_good_one_is_taken_with_defaults(good: dict[str, Any]) -> None:
    found = config.parse(yaml.safe_dump(good), "c.yaml")
    assert found.settling_ms == 1500
    assert found.rest.listen == "127.0.0.1:6680"
    assert found.groups[0].instances[1].peer == "172.31.0.2:7001"
    jsonschema.validate(good, config.schema())


def change(good: dict[str, Any], path: str, value: Any) -> str:
    at: Any = good
    *steps, last = path.split(".")
    for step in steps:
        at = at[int(step)] if isinstance(at, list) else at.setdefault(step, {})
    if isinstance(at, list):
        at[int(last)] = value
    elif value is KeyError:
        del at[last]
    else:
        at[last] = value
    return yaml.safe_dump(good, sort_keys=False)


NOWHERE = {"cert": "/nowhere/c", "key": "/nowhere/k"}


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("journal", KeyError, "journal: is missing; add it"),
        ("journal", "relative.db", 'journal: "relative.db" is not possible'),
        ("jornal", "x", "jornal: is no field; did you mean 'journal'?"),
        ("settling_ms", 0, "settling_ms: 0 is too small; write 1 or more"),
        ("settling_ms", "1", 'settling_ms: "1" is not possible'),
        ("settling_ms", 1.5, "settling_ms: 1.5 is not possible"),
        ("keys", [], "keys: [] is not possible"),
        ("keys.0.file", "/nowhere", "'/nowhere' cannot be read"),
        ("groups.0.upstream.ports", [], "needs either ports or a group"),
        ("groups.0.upstream", {"dpid": 1, "group": "x"}, "'x' is no other group"),
        ("groups.0.instances.1.id", 1, "1 is i1's already; number all instances apart"),
        ("groups.0.instances.1.name", "i1", "'i1' stands twice"),
        ("groups.0.instances.1.upstream_port", 11, "11 is i1 already"),
        ("groups.0.instances.1.upstream_port", 1, "1 is the outside of nat already"),
        ("groups.0.instances.0.peer", "nowhere", '"nowhere" is not possible'),
        ("rest.listen", "0.0.0.0:6680", "is beyond loopback, and token_file is missing"),
        ("rest.token_file", "/nowhere", "rest.token_file: '/nowhere' cannot be used: it cannot be"),
        ("rest.tls", NOWHERE, "rest.tls.cert: '/nowhere/c' cannot be used: No such file"),
        ("openflow.tls", NOWHERE, "openflow.tls.cert: '/nowhere/c' cannot be used: No such file"),
        ("strategy", "magic", 'strategy: "magic" is not possible'),
    ],
)
def test_what_is_wrong_is_named(good: dict[str, Any], path: str, value: Any, said: str) -> None:
    text = change(good, path, value)
    with pytest.raises(ConfigError) as refused:
        config.parse(text, "c.yaml")
    assert said in str(refused.value)
    assert str(refused.value).startswith("c.yaml:")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("text", ["", "[]", "{", "a: 1\na: 2", "*x", "\x00"])
def test_what_is_no_configuration_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        config.parse(text, "c.yaml")


def test_the_schema_is_json_and_describes_every_field() -> None:
    text = json.dumps(config.schema())
    found = json.loads(text)
    assert found["additionalProperties"] is False
    for name, field in found["properties"].items():
        assert field.get("description") or "$ref" in field, name


def test_beyond_loopback_it_takes_a_token_and_certificates(
    good: dict[str, Any], tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text("open sesame\n")
    token.chmod(0o600)
    own = Authority(tmp_path / "tls").issue("192.0.2.1")
    rest: dict[str, Any] = {"listen": "192.0.2.1:6680", "token_file": str(token)}
    with pytest.raises(ConfigError, match="beyond loopback, and tls is missing"):
        config.parse(change(good, "rest", rest), "c.yaml")
    rest["tls"] = {"cert": own.cert, "key": own.key}
    assert config.parse(change(good, "rest", rest), "c.yaml").rest.token_file == str(token)
    rest["tls"] = {"cert": own.cert, "key": own.cert}
    with pytest.raises(ConfigError, match=r"rest\.tls\.key: .* cannot be used: others may use it"):
        config.parse(change(good, "rest", rest), "c.yaml")


@pytest.mark.parametrize(
    ("mode", "content", "why"),
    [
        (0o640, b"open sesame", r"others may use it \(mode 640\); chmod 600"),
        (0o604, b"open sesame", r"others may use it \(mode 604\); chmod 600"),
        (0o600, b" \n", "it holds no token"),
        (0o600, b"\xff", "it is no text"),
    ],
)
def test_a_token_is_its_owners_alone(
    good: dict[str, Any], tmp_path: Path, mode: int, content: bytes, why: str
) -> None:
    token = tmp_path / "token"
    token.write_bytes(content)
    token.chmod(mode)
    text = change(good, "rest.token_file", str(token))
    with pytest.raises(ConfigError, match=rf"rest\.token_file: '{token}' cannot be used: {why}"):
        config.parse(text, "c.yaml")
