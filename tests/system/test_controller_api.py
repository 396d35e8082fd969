"""The REST interface over real sockets: what a client is told, and what it is spared."""

import asyncio
import json
import socket
import ssl
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from flowferry import cli
from flowferry.controller import Client, ControllerError
from flowferry.controller.api import Door, Metrics, Refused, create, serve

HANDOVER: dict[str, Any] = {
    "id": 1,
    "state": "turning",
    "strategy": "direct",
    "flows": 3,
    "duration_ms": None,
    "fence_ms": None,
    "transfer_ms": None,
    "captured_packets": 0,
    "captured_bytes_peak": 0,
    "stray_packets": 0,
    "lost_packets": 0,
    "controller_packets": 0,
    "markers": 0,
    "flags": [],
    "parts": [],
    "group": "g",
    "match": "udp",
    "to": "i1",
    "priority": 100,
    "one_way": False,
    "rule": 1,
    "asked": 0.0,
    "error": None,
}


class Backend:
    """A controller with one handover; what it was asked is in `asked`."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.over = asyncio.Event()
        self.loop: asyncio.AbstractEventLoop

    def status(self) -> dict[str, Any]:
        return {"name": "lab", "version": "0"}

    def switches(self) -> list[dict[str, Any]]:
        return [{"dpid": 1, "connected": True, "ready": True}]

    def groups(self) -> list[dict[str, Any]]:
        return []

    def instances(self) -> list[dict[str, Any]]:
        return [{"name": "i1", "id": 1, "group": "g", "state": "active", "alive": True}]

    def rules(self) -> list[dict[str, Any]]:
        return []

    def handovers(self) -> list[dict[str, Any]]:
        return [HANDOVER]

    def handover(self, number: int) -> dict[str, Any]:
        if number == 500:
            raise RuntimeError("secret")
        if number != 1:
            raise LookupError(f"there is no handover {number}; 'flowferry handovers list' has all")
        return {**HANDOVER, "timeline": [{"at_ms": 0.5, "text": "asked"}]}

    async def wait(self, number: int, seconds: float) -> dict[str, Any]:
        try:
            await asyncio.wait_for(self.over.wait(), seconds)
        except TimeoutError:
            return self.handover(number)
        return {**self.handover(number), "state": "done"}

    async def add_instance(self, fields: dict[str, Any]) -> dict[str, Any]:
        self.asked.append(("add", fields))
        return {"name": fields["name"], "id": fields["id"], "group": "g", "state": "active"}

    async def drain(self, name: str) -> list[dict[str, Any]]:
        self.asked.append(("drain", name))
        return [HANDOVER]

    async def remove_instance(self, name: str) -> None:
        raise Refused(f"instance {name} is the target of rule 1; drain it first")

    async def move(self, match: str, to: str, **more: Any) -> dict[str, Any]:
        if match == "bad":
            raise ValueError("'bad' is no match; see --help")
        self.asked.append(("move", match, to, more))
        return HANDOVER

    async def remove_rule(self, number: int) -> dict[str, Any]:
        self.asked.append(("remove_rule", number))
        return HANDOVER

    async def abort(self, number: int) -> dict[str, Any]:
        if number == 2:
            raise Refused("handover 2 is moving: too late to call it off")
        self.asked.append(("abort", number))
        return HANDOVER

    async def flows(self, limit: int) -> dict[str, Any]:
        return {"flows": [{"flow": "udp,x", "instance": "i1"}][:limit], "total": 1}

    async def where(self, flow: str) -> dict[str, Any]:
        return {"flow": flow, "instance": "i1", "rule": 0}

    async def subscribe(self) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        yield "handover", {"id": 1, "state": "turning"}
        yield "switch", {"dpid": 1}
        await self.over.wait()


@contextmanager
def running(door: dict[str, Any] | None = None) -> Iterator[tuple[int, Backend, Metrics]]:
    """A server in a thread with a loop of its own: its port, what is behind it, its figures."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    backend, metrics, there = Backend(), Metrics(), threading.Event()
    failed: list[BaseException] = []

    async def work() -> None:
        ready, backend.loop = asyncio.Event(), asyncio.get_running_loop()
        backend.over = asyncio.Event()
        app = create(backend, metrics, "0")
        at = Door(**{"host": "127.0.0.1", "port": port, **(door or {})})
        task = asyncio.create_task(serve(app, at, ready))
        backend.stop = task.cancel  # type: ignore[attr-defined]
        await asyncio.wait([task, asyncio.create_task(ready.wait())], return_when="FIRST_COMPLETED")
        there.set()
        try:
            await task
        except asyncio.CancelledError:
            pass
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=lambda: asyncio.run(work()))
    thread.start()
    assert there.wait(20)
    try:
        yield port, backend, metrics
    finally:
        backend.loop.call_soon_threadsafe(backend.over.set)
        backend.loop.call_soon_threadsafe(backend.stop)  # type: ignore[attr-defined]
        thread.join(20)
    assert not failed
    assert not thread.is_alive()


@pytest.fixture
def server() -> Iterator[tuple[Client, Backend, Metrics]]:
    with running() as (port, backend, metrics):
        yield Client(f"http://127.0.0.1:{port}"), backend, metrics


def test_each_call_gets_through(server: tuple[Client, Backend, Metrics]) -> None:
    client, backend, _ = server
    assert client.status()["name"] == "lab"
    assert client.switches()[0]["ready"] is True
    assert client.instances()[0]["alive"] is True
    assert (client.groups(), client.rules()) == ([], [])
    assert client.handovers() == [HANDOVER]
    assert client.handover(1)["timeline"][0]["text"] == "asked"
    assert client.flows()["total"] == 1
    assert client.where("udp,nw_src=10.0.0.1 & more/%")["flow"] == "udp,nw_src=10.0.0.1 & more/%"
    assert client.move("udp", "i2", priority=7, one_way=True)["state"] == "turning"
    assert client.add_rule("*", "i2")["id"] == 1
    client.remove_rule(4)
    client.abort(1)
    client.drain_instance("i1")
    client.add_instance(name="i3", id=3, upstream_port=13, downstream_port=13)
    told = {"priority": 7, "strategy": None, "one_way": True, "settling_ms": None, "group": None}
    assert backend.asked[0] == ("move", "udp", "i2", told)
    assert [what for what, *_ in backend.asked[2:]] == ["remove_rule", "abort", "drain", "add"]


def test_waiting_ends_with_the_handover_or_with_the_time(
    server: tuple[Client, Backend, Metrics],
) -> None:
    client, backend, _ = server
    with pytest.raises(ControllerError, match=r"handover 1 is still turning after 0\.05 s"):
        client.wait(1, 0.05)
    backend.loop.call_soon_threadsafe(backend.over.set)
    assert client.wait(1, 20)["state"] == "done"


def test_errors_are_problem_documents_with_a_remedy(
    server: tuple[Client, Backend, Metrics],
) -> None:
    client, _, _ = server
    for call, said in (
        (lambda: client.handover(9), "there is no handover 9; 'flowferry handovers list' has all"),
        (lambda: client.move("bad", "i1"), "'bad' is no match; see --help"),
        (lambda: client.remove_instance("i1"), "drain it first"),
        (lambda: client.abort(2), "handover 2 is moving: too late to call it off"),
        (lambda: client.move("udp", "i1", priority=99_999), "body.priority: "),
        (lambda: client.add_instance(name="../x", id=1), "body.name: "),
        (lambda: client._call("GET", "/nothing"), "/v1/nothing is nothing here"),
        (lambda: client._call("DELETE", "/status"), "DELETE is not possible on /v1/status"),
        (lambda: client.handover(500), r"the controller failed \(RuntimeError\)"),
    ):
        with pytest.raises(ControllerError, match=said) as refused:
            call()
        assert "\n" not in str(refused.value)
        assert "secret" not in str(refused.value)
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(f"{client.url}/v1/handovers/9")
    assert error.value.headers["content-type"] == "application/problem+json"
    assert json.loads(error.value.read())["status"] == error.value.code == 404
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(f"{client.url}/v1/handovers/2/abort", data=b"{}")
    assert error.value.headers["content-type"] == "application/problem+json"
    assert json.loads(error.value.read())["status"] == error.value.code == 409


def test_events_come_as_they_happen(server: tuple[Client, Backend, Metrics]) -> None:
    client, _, _ = server
    events = client.events()
    assert next(events) == {"event": "handover", "id": 1, "state": "turning"}
    assert next(events) == {"event": "switch", "dpid": 1}


def test_it_describes_itself(server: tuple[Client, Backend, Metrics]) -> None:
    client, _, metrics = server
    with urllib.request.urlopen(f"{client.url}/v1/openapi.json") as answer:
        found = json.load(answer)
    assert found["openapi"].startswith("3.")
    paths = found["paths"]
    assert "post" in paths["/v1/handovers"]
    for path in ("/v1/handovers", "/v1/handovers/{number}/abort"):
        problem = paths[path]["post"]["responses"]["409"]["content"]
        assert "application/problem+json" in problem
    metrics.ended({**HANDOVER, "state": "done", "duration_ms": 2.0, "fence_ms": 1.0})
    with urllib.request.urlopen(f"{client.url}/metrics") as answer:
        text = answer.read().decode()
    assert 'flowferry_handovers_total{state="done",strategy="direct"} 1.0' in text
    assert "flowferry_handover_seconds_sum 0.002" in text


def test_long_bodies_are_refused_before_they_are_read(
    server: tuple[Client, Backend, Metrics],
) -> None:
    client, backend, _ = server
    request = urllib.request.Request(f"{client.url}/v1/handovers", data=b"x" * (65 << 10))
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request)
    assert refused.value.code == 413
    assert not backend.asked


def test_a_token_is_wanted_where_there_is_one() -> None:
    with running({"token": "open sesame"}) as (port, _, _):
        url = f"http://127.0.0.1:{port}"
        assert Client(url, "open sesame").status()["name"] == "lab"
        for token in (None, "", "open sesam", "open sesame!"):
            with pytest.raises(ControllerError, match="a token is needed"):
                Client(url, token).status()
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(f"{url}/metrics")


def test_tls_is_spoken_and_checked(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path)
    with running({"cert": str(cert), "key": str(key)}) as (port, _, _):
        url = f"https://127.0.0.1:{port}"
        assert Client(url, ca=str(cert)).status()["name"] == "lab"
        with pytest.raises(ControllerError, match=f"no controller answers on {url}"):
            Client(url).status()
        ask = ["rules", "list", "--controller", url]
        told = CliRunner().invoke(cli.main, [*ask, "--ca", str(cert)])
        assert (told.exit_code, told.stdout) == (0, "no rules\n")
        for more, said in (
            ([], f"Error: no controller answers on {url}"),
            (["--ca", str(key)], f"Error: {key} holds no certificates"),
            (["--ca", str(tmp_path / "none")], f"Error: {tmp_path / 'none'} holds no certificates"),
        ):
            told = CliRunner().invoke(cli.main, [*ask, *more])
            assert told.exit_code == 1
            assert told.stderr.startswith(said)
            assert told.stderr.count("\n") == 1


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that signs itself."""
    cert, key = folder / "cert.pem", folder / "key.pem"
    words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    words += ["-nodes", "-days", "2", "-subj", "/CN=controller", "-keyout", str(key)]
    words += ["-out", str(cert), "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(words, check=True, capture_output=True)
    ssl.create_default_context(cafile=str(cert))
    return cert, key


def test_nobody_there_is_said_in_one_line() -> None:
    with pytest.raises(ControllerError, match=r"no controller answers on http://127\.0\.0\.1:1 "):
        Client("http://127.0.0.1:1").status()
    with pytest.raises(ControllerError, match="'ftp://x' is no URL"):
        Client("ftp://x")


OK = b"HTTP/1.1 200 OK\r\n"
BROKEN_OFF = OK + b"Content-Length: 99\r\n\r\n{"


@pytest.mark.parametrize("answer", [b"", b"garbage\r\n\r\n", OK + b"\r\n[]", BROKEN_OFF])
def test_another_servers_answer_is_an_error(answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def once() -> None:
            end, _ = listener.accept()
            with end:
                end.recv(1000)
                end.sendall(answer)

        thread = threading.Thread(target=once)
        thread.start()
        with pytest.raises(ControllerError):
            Client(f"http://127.0.0.1:{listener.getsockname()[1]}").status()
        thread.join(10)
