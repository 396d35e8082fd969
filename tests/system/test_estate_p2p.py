"""What instances do among themselves only: joint writes, read hooks, members that fail."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest
from estate_members import stop
from redis_servers import free_ports, wait_until

from flowferry import estate
from flowferry.estate import Estate, GlobalRead, Snapshot

MEMBER = """
import sys
from flowferry import estate
cluster, node, listen, peer = sys.argv[1:]
with estate.open(cluster=cluster, node=node, listen=listen, peers=[peer]) as es:
    es.add("k", 1)
    print("ready", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def opened() -> Iterator[Callable[..., list[Estate]]]:
    """Open instances n0, n1, … that see each other."""
    with ExitStack() as stack:

        def build(count: int, **options: Any) -> list[Estate]:
            places = [f"127.0.0.1:{port}" for port in free_ports(count)]
            names = [f"n{number}" for number in range(count)]
            cluster = f"c{places[0].rpartition(':')[2]}"
            found = [
                stack.enter_context(
                    estate.open(cluster=cluster, node=name, listen=place, peers=places, **options)
                )
                for name, place in zip(names, places, strict=True)
            ]
            wait_until(lambda: all(es.members() == names for es in found), "not all are members")
            return found

        yield build


@pytest.fixture
def process() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """A member that is a process of its own."""
    with ExitStack() as stack:

        def start(es: Estate, node: str, peer: str) -> subprocess.Popen[str]:
            listen = f"127.0.0.1:{free_ports(1)[0]}"
            argv = [sys.executable, "-c", MEMBER, es.cluster, node, listen, peer]
            one = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            assert one.stdin is not None
            assert one.stdout is not None
            stack.callback(one.wait, timeout=30)
            stack.callback(one.kill)
            stack.callback(one.stdout.close)
            stack.callback(one.stdin.close)
            assert one.stdout.readline() == "ready\n"
            wait_until(lambda: node in es.members(), f"{node} is no member")
            return one

        yield start


def test_transfers_leave_the_sum_of_every_snapshot(opened: Any) -> None:
    one, other, asker = opened(3)
    one.set("balance", 500)
    other.set("balance", 500)

    def transfer(es: Estate, to: str, amount: int) -> None:
        for number in range(1, 301):
            es.joint(number, [to], add={"balance": amount}, timeout=5)

    def snapshot() -> Any:
        return asker.get_global("balance", "sum", consistency=Snapshot(), timeout=5)

    with ThreadPoolExecutor(2) as pool:
        moving = [pool.submit(transfer, one, "n1", -1), pool.submit(transfer, other, "n0", 1)]
        sums = [snapshot()]
        lows = [500]
        while not all(each.done() for each in moving):
            sums.append(snapshot())
            lows.append(one.get("balance"))
        for each in moving:
            each.result()
    assert set(sums) == {1000}
    assert len(set(lows)) > 3, "nothing was transferred while snapshots were taken"
    assert (one.get("balance"), other.get("balance")) == (200, 800)


def test_a_joint_write_that_nobody_joins_is_not_made(opened: Any) -> None:
    one, other = opened(2)
    with pytest.raises(estate.NotJoined):
        one.joint(1, ["n1"], set={"a": 1}, add={"b": 2}, timeout=0.2)
    assert one.keys() == []
    assert other.keys() == []


def test_an_instance_is_told_that_its_state_was_read(opened: Any) -> None:
    one, other = opened(2)
    reads: list[GlobalRead] = []
    one.on_global_read(reads.append)
    one.set("k", 1)
    other.get_global("k*", "sum", pattern="glob")
    wait_until(lambda: GlobalRead("n1", "k*") in reads, "the hook is not called")
    one.get_global("k", "sum")
    assert [read.by for read in reads] == ["n1"]


def test_a_killed_member_is_named_and_soon_not_expected(opened: Any, process: Any) -> None:
    (one,) = opened(1, failure_after=1.0)
    place = f"127.0.0.1:{one.cluster.removeprefix('c')}"
    member = process(one, "other", place)
    one.add("k", 10)
    assert one.get_global("k", "sum") == 11
    stop(member)
    started = time.monotonic()
    with pytest.raises(estate.IncompleteError, match="other") as caught:
        one.get_global("k", "sum", timeout=0.3)
    assert caught.value.view.missing == ("other",)
    assert caught.value.view.answered == ("n0",)
    assert (caught.value.view.value, caught.value.view.complete) == (10, False)
    took = time.monotonic() - started
    print(f"a read with a time-out of 0.3 s and a member stopped: {took:.3f} s")
    assert took < 10, "a dead peer costs far more than the time-out"
    assert one.get_global("k", "sum", timeout=0.3, require=1) == 10
    view = one.view_global("k", lambda items: len(items), timeout=0.3)
    assert (view.value, view.missing) == (1, ("other",))
    wait_until(lambda: one.members() == ["n0"], "a member that is stopped stays a member")
    member.send_signal(signal.SIGCONT)
    wait_until(lambda: one.members() == ["n0", "other"], "a member that goes on does not return")
    wait_until(lambda: one.get_global("k", "sum", require=1) == 11, "its items do not return")
    started = time.monotonic()
    member.kill()
    wait_until(lambda: one.members() == ["n0"], "a killed member stays a member")
    print(f"a killed member is no member after {time.monotonic() - started:.3f} s")
    assert one.get_global("k", "sum") == 10
    again = process(one, "other", place)
    assert one.get_global("k", "sum") == 11
    assert again.poll() is None


def test_reads_go_on_when_a_thread_forks(opened: Any) -> None:
    one, other = opened(2)
    one.set("k", 1)
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    assert other.get_global("k", "sum") == 1
    assert one.get_global("k", "sum") == 1


@pytest.mark.soak
def test_a_million_keys_at_two_instances(opened: Any) -> None:
    nodes = opened(2)
    for number in range(1_000_000):
        nodes[number % 2].set(f"k/{number}", number)
    for asker in nodes:
        assert asker.get_global("k/*", "sum", pattern="glob", timeout=10) == 499_999_500_000
        assert asker.get_global("k/*", "count", pattern="glob", timeout=10) == 1_000_000
        assert asker.get_global(r"k/\d*7", "max", pattern="regex", timeout=10) == 999_997
