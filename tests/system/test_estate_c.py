"""The C API as its users get it: installed, found by pkg-config, compiled strictly, run.

The programs are in `crates/estate/tests/c`; each says in one line what it found. Memory is watched
by valgrind and by the address and undefined-behaviour sanitisers.
"""

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from redis_servers import Server, cluster_url

from flowferry.estate import scope
from flowferry.testbed import Pair
from flowferry.wire import Flow

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "crates/estate/tests/c"
STRICT = ("-Wall", "-Wextra", "-Werror", "-Wpedantic", "-g")
VALGRIND = (
    "valgrind",
    "-q",
    "--leak-check=full",
    "--show-leak-kinds=definite",
    "--errors-for-leak-kinds=definite",
    "--error-exitcode=9",
    # One thread runs at a time; unless told so, the one that did may go on for seconds.
    "--fair-sched=yes",
)
#: Of each of these to the same at the other end, 25 datagrams.
PORTS = (5001, 5002)
SEND = f"""
import socket, sys
for port in {PORTS}:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
        out.bind(("", port))
        for number in range(25):
            out.sendto(b"x" * number, (sys.argv[1], port))
"""


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait for a condition, half a minute at most."""
    until = time.monotonic() + 30.0
    while not condition():
        assert time.monotonic() < until, "the condition did not come true"
        time.sleep(0.05)


def run(*argv: str, environment: dict[str, str] | None = None, timeout: float = 120.0) -> str:
    done = subprocess.run(
        argv,
        capture_output=True,
        text=True,
        timeout=timeout,
        env=os.environ | (environment or {}),
    )
    assert done.returncode == 0, f"{shlex.join(argv)}:\n{done.stdout}{done.stderr}"
    return done.stdout


@dataclass(frozen=True)
class Installed:
    """libestate, installed under a prefix of its own."""

    prefix: Path
    flags: tuple[str, ...]

    def build(self, source: Path, *options: str) -> Path:
        """Compile one program strictly: C99 with gcc, C++11 with g++."""
        program = self.prefix / f"{source.stem}{len(options)}"
        cpp = source.suffix == ".cpp"
        compiler = ("g++", "-std=c++11") if cpp else ("gcc", "-std=c99", "-D_GNU_SOURCE")
        run(*compiler, *STRICT, *options, str(source), *self.flags, "-lpthread", "-o", str(program))
        return program

    def run(self, *argv: str, timeout: float = 120.0) -> str:
        where = {"LD_LIBRARY_PATH": str(self.prefix / "lib")}
        return run(*argv, environment=where, timeout=timeout)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """The debug build: valgrind then names lines, and the other tests have built most of it."""
    prefix = tmp_path_factory.mktemp("estate-c")
    run("make", "-C", str(ROOT), "install-c", f"PREFIX={prefix}", "PROFILE=dev", timeout=600.0)
    environment = {"PKG_CONFIG_PATH": str(prefix / "lib/pkgconfig")}
    flags = run("pkg-config", "--cflags", "--libs", "estate", environment=environment).split()
    return Installed(prefix, tuple(flags))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def url(backend: str, request: pytest.FixtureRequest) -> str:
    """How the library calls a backend; the servers are those that all tests share."""
    if backend == "redis":
        one: Server = request.getfixturevalue("one_redis")
        return one.url
    if backend == "redis+cluster":
        return cluster_url(request.getfixturevalue("six_redis"))
    return backend


def members_of(backend: str) -> list[str]:
    """The arguments of `members.c`."""
    return [backend] if backend != "p2p" else [backend, f"127.0.0.1:{free_port()}"]


@pytest.mark.parametrize("backend", ["local", "p2p", "redis", "redis+cluster"])
def test_every_function_does_what_the_header_says(
    installed: Installed, backend: str, request: pytest.FixtureRequest
) -> None:
    program = installed.build(SOURCES / "contract.c")
    assert installed.run(str(program), url(backend, request)) == "contract holds\n"


def test_threads_share_an_estate(installed: Installed) -> None:
    assert installed.run(str(installed.build(SOURCES / "threads.c"))) == "threads agree\n"


@pytest.mark.parametrize("backend", ["p2p", "redis", "redis+cluster"])
def test_two_members_see_each_other(
    installed: Installed, backend: str, request: pytest.FixtureRequest
) -> None:
    program = installed.build(SOURCES / "members.c")
    arguments = members_of(url(backend, request))
    assert installed.run(str(program), *arguments) == "members agree\n"


def test_the_header_is_for_cpp_too(installed: Installed) -> None:
    assert installed.run(str(installed.build(SOURCES / "header.cpp"))) == "C++ agrees\n"


@pytest.mark.timeout(600)
def test_valgrind_finds_nothing(installed: Installed) -> None:
    program = installed.build(SOURCES / "contract.c")
    assert installed.run(*VALGRIND, str(program), timeout=280) == "contract holds\n"
    program = installed.build(SOURCES / "members.c")
    words = [*VALGRIND, str(program), *members_of("p2p")]
    assert installed.run(*words, timeout=280) == "members agree\n"


@pytest.mark.parametrize(
    ("name", "arguments", "says"),
    [
        ("contract", ["local"], "contract holds\n"),
        ("threads", [], "threads agree\n"),
        ("members", members_of("p2p"), "members agree\n"),
    ],
)
def test_the_sanitisers_find_nothing(
    installed: Installed, name: str, arguments: list[str], says: str
) -> None:
    program = installed.build(SOURCES / f"{name}.c", "-fsanitize=address,undefined")
    assert installed.run(str(program), *arguments) == says


@pytest.mark.parametrize("name", ["local", "global"])
def test_the_measuring_programs_compile(installed: Installed, name: str) -> None:
    installed.build(ROOT / f"crates/estate/bench/{name}.c", "-std=gnu11", "-O2")


def test_the_tutorials_counter_is_one_of_those_in_python(installed: Installed) -> None:
    in_c = str(installed.build(ROOT / "examples/c/packet_counter.c"))
    in_python = str(ROOT / "examples/python/packet_counter.py")
    seed = f"127.0.0.1:{free_port()}"
    library = {"LD_LIBRARY_PATH": str(installed.prefix / "lib")}
    ports = []
    with ExitStack() as stack:
        for argv in (
            [sys.executable, in_python, "nf1", seed],
            [in_c, "nf2", f"127.0.0.1:{free_port()}", seed],
        ):
            counter = subprocess.Popen(
                argv, stdout=subprocess.PIPE, text=True, env=os.environ | library
            )
            stack.enter_context(counter)
            stack.callback(counter.kill)
            assert counter.stdout is not None
            ports.append(int(counter.stdout.readline()))
        sender = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        sender.settimeout(10)
        for number, port in enumerate(ports, 1):
            sender.sendto(b"total?", ("127.0.0.1", port))
            assert int(sender.recv(100)) == number
    again = subprocess.run(
        [in_c, "", "nowhere"], capture_output=True, text=True, env=os.environ | library, timeout=60
    )
    assert again.returncode == 1
    assert again.stderr.count("\n") == 1, again.stderr


def test_the_example_counts_for_all_instances(
    installed: Installed, netns_pair: Callable[..., Pair]
) -> None:
    """Two instances see the same 25 packets of each flow; together they count 50 of each."""
    program = str(installed.build(ROOT / "examples/c/flow_counter.c", "-O2"))
    pair = netns_pair(static_neighbours=True)
    device = pair.hosts["h2"].dev
    library = {"LD_LIBRARY_PATH": str(installed.prefix / "lib")}
    seed = "127.0.0.1:7600"
    with ExitStack() as stack:
        instances = []
        for name, listen, peers in (("nf1", seed, ""), ("nf2", "127.0.0.1:0", seed)):
            argv = [program, device, "counters", name, listen, peers]
            instance = pair.popen(
                "h2",
                argv,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=os.environ | library,
            )
            stack.enter_context(instance)
            stack.callback(instance.kill)
            assert instance.stderr is not None
            assert instance.stderr.readline() == f"counting on {device}\n"
            instances.append(instance)

        def report() -> dict[str, Any]:
            instances[0].send_signal(signal.SIGUSR1)
            assert instances[0].stdout is not None
            answer: dict[str, Any] = json.loads(instances[0].stdout.readline())
            return answer

        wait_for(lambda: report()["answered"] == 2)
        near, far = (ip_address(pair.hosts[role].ip4) for role in ("h1", "h2"))
        pair.run("h1", [sys.executable, "-c", SEND, str(far)])

        ours = {scope(Flow(17, (near, port), (far, port))): 50 for port in PORTS}
        wait_for(lambda: ours.items() <= report()["flows"].items())
        told = report()
        assert told["missing"] == 0
        assert told["packets"] == sum(told["flows"].values())
        for instance in instances:
            instance.terminate()
            assert instance.wait(timeout=30) == 0
