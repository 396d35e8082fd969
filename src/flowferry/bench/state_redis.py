"""A Redis, or a Redis Cluster of six, for the length of a measurement, and estates on it."""

import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from flowferry import estate
from flowferry.estate import Estate
from flowferry.testbed import TestbedError

#: Seconds until a server answers, or a cluster has agreed on its slots.
PATIENCE = 30.0
QUIET = ["--save", "", "--appendonly", "no", "--loglevel", "warning", "--daemonize", "no"]


def _port() -> int:
    while True:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port: int = free.getsockname()[1]
            if port < 55_000:
                return port


def _ask(port: int, *words: str) -> str:
    argv = ["redis-cli", "-p", str(port), *words]
    return subprocess.run(argv, capture_output=True, text=True, check=False).stdout


@contextmanager
def _server(directory: Path, *options: str) -> Iterator[tuple[int, Path]]:
    if shutil.which("redis-server") is None:
        raise TestbedError("redis-server is not installed", "run 'make setup'")
    port = _port()
    place = directory / f"{port}.sock"
    argv = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", str(directory)]
    argv += ["--unixsocket", str(place), "--logfile", str(directory / f"{port}.log")]
    process = subprocess.Popen([*argv, *QUIET, *options])
    try:
        _until(lambda: "PONG" in _ask(port, "PING"), "redis-server does not answer")
        yield port, place
    finally:
        process.kill()
        process.wait()


def _until(condition, what: str) -> None:  # type: ignore[no-untyped-def]
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            raise TestbedError(what, "try it by hand")
        time.sleep(0.02)


@contextmanager
def redis_url(kind: str) -> Iterator[str]:
    """A server that runs during the block: `redis+unix`, `redis` or `redis+cluster`."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        if kind != "redis+cluster":
            port, place = stack.enter_context(_server(directory))
            yield f"redis+unix://{place}" if kind == "redis+unix" else f"redis://127.0.0.1:{port}"
            return
        ports = []
        for number in range(6):
            node = f"nodes-{number}.conf"
            options = ("--cluster-enabled", "yes", "--cluster-config-file", node)
            ports.append(stack.enter_context(_server(directory, *options))[0])
        places = [f"127.0.0.1:{port}" for port in ports]
        argv = ["redis-cli", "--cluster", "create", *places, "--cluster-replicas", "1"]
        subprocess.run([*argv, "--cluster-yes"], check=True, capture_output=True)
        ready = "cluster_state:ok"
        _until(
            lambda: all(ready in _ask(port, "CLUSTER", "INFO") for port in ports),
            "the Redis Cluster does not agree on its slots",
        )
        yield "redis+cluster://" + ",".join(places[:2])


@contextmanager
def estates(url: str, count: int) -> Iterator[list[Estate]]:
    """Members that keep their items there."""
    cluster = f"bench-{secrets.token_hex(4)}"
    with ExitStack() as stack:
        yield [
            stack.enter_context(
                estate.open(
                    cluster=cluster,
                    node=f"m{number:02}",
                    backend=url,
                    timeout=60.0,
                    failure_after=10.0,
                )
            )
            for number in range(count)
        ]
