"""Whatever comes in a request: an answer that says what is wrong, and a controller that goes on.

The real application and backend, without sockets; switches and strategies are scripts.
"""

import asyncio
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from controller_stage import Script, World
from hypothesis import given, settings
from hypothesis import strategies as st

from flowferry.controller import strategies
from flowferry.controller.api import create
from flowferry.controller.backend import Controller
from flowferry.controller.strategies.base import Settings

ALLOWED = {200, 201, 202, 400, 404, 405, 409, 422}
WORDS = st.sampled_from(
    ["udp", "tcp6", "ip", "*", "nw_src=10.0.0.1", "nw_src=10.0.0.0/33", "tp_dst=80", "tp_dst=1/0x3",
     "dl_vlan=5", "dl_vlan=0x0/0x1000", "inner_vlan=4", "nw_proto=47", "ipv6_dst=fd00::1/7", "",
     "=", "dl_type=0x800", "tp_src=99999999999999999999", "nw_src=\u0661.1.1.1"]
)  # fmt: skip
MATCHES = st.lists(WORDS, max_size=4).map(",".join) | st.text(max_size=30)
NAMES = st.sampled_from(["i1", "i2", "i3", "11", "02:00:00:00:00:01", "nobody"]) | st.text(
    max_size=9
)
JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)
MOVES = st.fixed_dictionaries(
    {"match": MATCHES, "to": NAMES},
    optional={
        "priority": st.integers(-1, 16_001) | JUNK,
        "strategy": st.sampled_from(["direct", "reroute", "none"]),
        "one_way": st.booleans(),
        "settling_ms": st.integers(0, 600_001),
        "group": st.sampled_from(["nf", "other"]),
    },
)
INSTANCES = st.fixed_dictionaries(
    {
        "name": NAMES,
        "id": st.integers(0, 1 << 33),
        "upstream_port": st.integers(0, 99),
        "downstream_port": st.integers(0, 99),
    },
    optional={
        "peer": st.sampled_from(["[::1]:7", "a:b", "1.2.3.4:0", "1.2.3.4:7001"]),
        "macs": JUNK,
    },
)
PATHS = st.sampled_from(
    [
        "/v1/handovers",
        "/v1/rules",
        "/v1/instances",
        "/v1/handovers/1/abort",
        "/v1/instances/i1/drain",
    ]
)
REQUESTS = st.one_of(
    st.tuples(st.just("POST"), st.just("/v1/handovers"), MOVES),
    st.tuples(st.just("POST"), st.just("/v1/rules"), MOVES),
    st.tuples(st.just("POST"), st.just("/v1/instances"), INSTANCES),
    st.tuples(st.sampled_from(["POST", "DELETE", "PUT"]), PATHS, JUNK | st.binary(max_size=40)),
    st.tuples(st.just("GET"), st.just("/v1/flows/where"), MATCHES),
    st.tuples(st.just("DELETE"), st.sampled_from(["/v1/rules/1", "/v1/instances/i3"]), st.none()),
)


async def call(app: Any, method: str, path: str, content: object) -> tuple[int, Mapping[str, Any]]:
    """Status and JSON of one request."""
    query = b""
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    if method == "GET":
        octets = str(content).encode(errors="surrogatepass")
        query, body = b"flow=" + b"".join(b"%%%02x" % octet for octet in octets), b""
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method,
        "scheme": "http", "path": path, "raw_path": path.encode(), "query_string": query,
        "headers": [(b"content-type", b"application/json")], "root_path": "",
        "server": ("127.0.0.1", 1), "client": ("127.0.0.1", 2),
    }  # fmt: skip
    sent: list[Mapping[str, Any]] = []

    async def receive() -> Mapping[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Mapping[str, Any]) -> None:
        sent.append(message)

    await app(scope, receive, send)
    status = next(one["status"] for one in sent if one["type"] == "http.response.start")
    text = b"".join(one.get("body", b"") for one in sent)
    found: Mapping[str, Any] = json.loads(text)
    return status, found


@dataclass
class Site:
    """One application for all requests; what they leave behind stays."""

    runner: asyncio.Runner
    app: Any


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    Script.made = []
    with pytest.MonkeyPatch.context() as patch, asyncio.Runner() as runner:
        patch.setattr(strategies, "make", lambda name, hook=None: Script())
        service = runner.run(World(Path(":memory:")).up())
        backend = Controller(service, "lab", "direct", Settings())
        yield Site(runner, create(backend, service.metrics, "0"))
        runner.run(service.stop())


@settings(max_examples=300, deadline=None)
@given(request=REQUESTS)
def test_any_request_is_answered_and_says_what_is_wrong(
    site: Site, request: tuple[str, str, object]
) -> None:
    status, found = site.runner.run(call(site.app, *request))
    assert status in ALLOWED, (status, found)
    if status >= 400:
        assert found["detail"], found
        assert "\n" not in found["detail"], found
    status, _ = site.runner.run(call(site.app, "GET", "/v1/status", ""))
    assert status == 200
