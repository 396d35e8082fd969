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
from pathlib import Path

import pytest

from flowferry.testbed import Pair

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
)
#: 25 datagrams of each of two flows.
SEND = """
import socket, sys
for port in (5001, 5002):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
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

    def run(self, *argv: str) -> str:
        return run(*argv, environment={"LD_LIBRARY_PATH": str(self.prefix / "lib")})


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


@pytest.mark.parametrize("backend", ["local", "p2p"])
def test_every_function_does_what_the_header_says(installed: Installed, backend: str) -> None:
    program = installed.build(SOURCES / "contract.c")
    assert installed.run(str(program), backend) == "contract holds\n"


def test_threads_share_an_estate(installed: Installed) -> None:
    assert installed.run(str(installed.build(SOURCES / "threads.c"))) == "threads agree\n"


def test_two_members_see_each_other(installed: Installed) -> None:
    program = installed.build(SOURCES / "members.c")
    assert installed.run(str(program), f"127.0.0.1:{free_port()}") == "members agree\n"


def test_the_header_is_for_cpp_too(installed: Installed) -> None:
    assert installed.run(str(installed.build(SOURCES / "header.cpp"))) == "C++ agrees\n"


def test_valgrind_finds_nothing(installed: Installed) -> None:
    program = installed.build(SOURCES / "contract.c")
    assert installed.run(*VALGRIND, str(program)) == "contract holds\n"
    program = installed.build(SOURCES / "members.c")
    assert installed.run(*VALGRIND, str(program), f"127.0.0.1:{free_port()}") == "members agree\n"


def test_the_sanitisers_find_nothing(installed: Installed) -> None:
    program = installed.build(SOURCES / "contract.c", "-fsanitize=address,undefined")
    assert installed.run(str(program)) == "contract holds\n"


@pytest.mark.parametrize("name", ["local", "global"])
def test_the_measuring_programs_compile(installed: Installed, name: str) -> None:
    installed.build(ROOT / f"crates/estate/bench/{name}.c", "-std=gnu11", "-O2")


def test_the_example_counts_for_all_instances(
    installed: Installed, netns_pair: Callable[..., Pair]
) -> None:
    """Two instances see the same 50 packets; together they count 100."""
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

        def report() -> dict[str, int]:
            instances[0].send_signal(signal.SIGUSR1)
            assert instances[0].stdout is not None
            answer: dict[str, int] = json.loads(instances[0].stdout.readline())
            return answer

        wait_for(lambda: report()["answered"] == 2)
        pair.run("h1", [sys.executable, "-c", SEND, pair.hosts["h2"].ip4])
        wait_for(lambda: report()["udp_packets"] == 100)
        assert report()["missing"] == 0
        for instance in instances:
            instance.terminate()
            assert instance.wait(timeout=30) == 0
