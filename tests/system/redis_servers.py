"""Real Redis servers for tests: one, or a cluster of six, on loopback, gone afterwards."""

import contextlib
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

#: Seconds until a server answers, or a cluster has agreed on its slots.
PATIENCE = 30.0


def wait_until(condition: Callable[[], bool], what: str, seconds: float = PATIENCE) -> None:
    """Look again and again until it is so; fail when it takes too long."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            pytest.fail(f"waited {seconds} s: {what}", pytrace=False)
        time.sleep(0.02)


def free_ports(count: int) -> list[int]:
    """Ports that nobody uses, and whose cluster bus (10,000 above) nobody uses either."""
    found: list[int] = []
    with ExitStack() as stack:
        while len(found) < count:
            one = stack.enter_context(socket.socket())
            one.bind(("127.0.0.1", 0))
            port = one.getsockname()[1]
            bus = stack.enter_context(socket.socket())
            if port + 10000 > 65535:
                continue
            with contextlib.suppress(OSError):
                bus.bind(("127.0.0.1", port + 10000))
                found.append(port)
    return found


class Server:
    """One redis-server, listening on 127.0.0.1 and on a socket in its directory."""

    def __init__(self, directory: Path, port: int, *options: str) -> None:
        """Start it; it answers when this is done."""
        directory.mkdir(parents=True)
        self.port = port
        self.socket = directory / "socket"
        self._argv = ["redis-server", "--port", str(port), "--bind", "127.0.0.1"]
        self._argv += ["--unixsocket", str(self.socket), "--dir", str(directory)]
        self._argv += ["--save", "", "--appendonly", "no", "--loglevel", "warning", *options]
        self._argv += ["--logfile", str(directory / "log"), "--daemonize", "no"]
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        """How a client calls it."""
        return f"redis://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it again."""
        self.process = subprocess.Popen(self._argv)
        wait_until(lambda: self.ask("PING") == "PONG", f"redis-server on port {self.port}")

    def stop(self) -> None:
        """End it."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(timeout=10)
            self.process = None

    def ask(self, *command: str) -> str:
        """What redis-cli says."""
        argv = ["redis-cli", "-h", "127.0.0.1", "-p", str(self.port), *command]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
        return done.stdout.strip()


@contextmanager
def redis_server(directory: Path) -> Iterator[Server]:
    """A Redis for the length of a block."""
    server = Server(directory, free_ports(1)[0])
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def redis_cluster(directory: Path, nodes: int = 6) -> Iterator[list[Server]]:
    """A Redis Cluster for the length of a block: half of the nodes are replicas."""
    with ExitStack() as stack:
        servers = []
        for port in free_ports(nodes):
            options = ("--cluster-enabled", "yes", "--cluster-node-timeout", "5000")
            servers.append(Server(directory / str(port), port, *options))
            stack.callback(servers[-1].stop)
        places = [f"127.0.0.1:{server.port}" for server in servers]
        argv = ["redis-cli", "--cluster", "create", *places, "--cluster-replicas", "1"]
        subprocess.run([*argv, "--cluster-yes"], check=True, capture_output=True, timeout=60)
        wait_until(lambda: all(map(_agrees, servers)), "the cluster has not agreed on its slots")
        yield servers


def _agrees(server: Server) -> bool:
    told = server.ask("CLUSTER", "INFO")
    slots = server.ask("CLUSTER", "SLOTS")
    return "cluster_state:ok" in told and "cluster_known_nodes:6" in told and slots != ""


def cluster_url(servers: list[Server]) -> str:
    """How a client calls it."""
    return "redis+cluster://" + ",".join(f"127.0.0.1:{server.port}" for server in servers[:2])


@pytest.fixture(scope="session")
def one_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A Redis that all tests of the session share; each has a cluster name of its own."""
    with redis_server(tmp_path_factory.mktemp("redis") / "one") as server:
        yield server


@pytest.fixture(scope="session")
def six_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Server]]:
    """A cluster of six that all tests of the session share."""
    with redis_cluster(tmp_path_factory.mktemp("redis-cluster")) as servers:
        yield servers
