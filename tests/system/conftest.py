"""Fixtures for tests on real namespaces, switches and sockets; and the check that nothing is left.

`testbed`, `netns_chain` and `netns_pair` are factories: call them with the options of `Testbed`,
`Chain` or `Pair`, as often as needed; everything is taken down after the test.
"""

import itertools
import json
import secrets
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from redis_servers import one_redis as one_redis
from redis_servers import six_redis as six_redis

from flowferry.testbed import Chain, Pair, Testbed, TestbedError, preflight
from flowferry.testbed.commands import Commands
from flowferry.testbed.machine import Machine

HERE = Path(__file__).parent


@pytest.hookimpl(tryfirst=True)  # before `-m` chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder is a system test."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.system)


@pytest.fixture(scope="session")
def run_prefix() -> str:
    """What the names of all runs of this session begin with."""
    return f"t{secrets.token_hex(3)}"


@pytest.fixture(scope="session", autouse=True)
def nothing_left(run_prefix: str) -> Iterator[None]:
    """Fail the session if a run of ours, or any device in the root namespace, outlives it."""
    try:
        preflight.require()
    except TestbedError as error:
        pytest.fail(str(error), pytrace=False)
    before = Machine.now()
    yield
    after = Machine.now()
    left = after.beyond(before, run_prefix)
    left |= {k: v for k, v in after.beyond(before).items() if k == "links"}
    if left:
        pytest.fail(f"left behind by this session: {left}", pytrace=False)


@pytest.fixture(scope="session", autouse=True)
def told_to_end(nothing_left: None) -> Iterator[None]:
    """SIGTERM ends the session as Ctrl-C does: what the tests have made is taken down first."""

    def end(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one cannot cut it short
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, end)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope="session")
def run_name(run_prefix: str) -> Callable[[], str]:
    """A source of run names that nobody else uses and the leak check knows."""
    numbers = itertools.count(1)
    return lambda: f"{run_prefix}-{next(numbers)}"


@pytest.fixture
def testbed(run_name: Callable[[], str]) -> Iterator[Callable[..., Testbed]]:
    """Build testbeds: `tb = testbed(instances=2, function="bridge")`."""
    with ExitStack() as stack:

        def build(**options: Any) -> Testbed:
            name = options.pop("name", None) or run_name()
            return stack.enter_context(Testbed(name, **options))

        yield build


@pytest.fixture(scope="session")
def throughput() -> Callable[[Commands, str], float]:
    """Measure bit/s of one TCP connection from h1 to an address at h2: `throughput(bed, ip)`."""

    def measure(bed: Commands, address: str) -> float:
        argv = ["iperf3", "-s", "-1", "--forceflush"]
        with bed.popen("h2", argv, stdout=subprocess.PIPE) as server:
            assert server.stdout is not None
            while b"listening" not in server.stdout.readline():
                assert server.poll() is None
            text = bed.run("h1", ["iperf3", "-c", address, "-t", "1", "--json"]).stdout
        return float(json.loads(text)["end"]["sum_received"]["bits_per_second"])

    return measure


@pytest.fixture
def netns_pair(run_name: Callable[[], str]) -> Iterator[Callable[..., Pair]]:
    """Build h1 — h2: `pair = netns_pair(offloads=False)`."""
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(Pair(name=run_name(), **options))


@pytest.fixture
def netns_chain(run_name: Callable[[], str]) -> Iterator[Callable[..., Chain]]:
    """Build h1 — nf — h2 without switches: `chain = netns_chain(function="bridge")`."""
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(Chain(name=run_name(), **options))
