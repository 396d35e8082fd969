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
from flowferry.estate import Cached, Estate, GlobalRead, Snapshot

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


def test_one_address_may_stand_alone() -> None:
    place = f"127.0.0.1:{free_ports(1)[0]}"
    with (
        estate.open(cluster="alone", node="n0", listen=place) as one,
        estate.open(cluster="alone", node="n1", peers=place) as other,
    ):
        both = ["n0", "n1"]
        wait_until(lambda: one.members() == both == other.members(), "not both are members")


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
    assert {read.by for read in reads} == {"n1"}  # once more for a question that was repeated


def test_a_snapshot_is_told_too_and_a_replica_once(opened: Any) -> None:
    one, other = opened(2)
    reads: list[GlobalRead] = []
    one.on_global_read(reads.append)
    one.set("k", 1)
    other.get_global("k", "sum", consistency=Snapshot(), timeout=5)
    wait_until(lambda: GlobalRead("n1", "k") in reads, "the hook is not called for a snapshot")
    # A replica is read where it is kept: the owner hears of it when it is to be kept fresh.
    for _ in range(100):
        other.get_global("c*", "sum", pattern="glob", consistency=Cached(5.0), timeout=5)
    wait_until(lambda: GlobalRead("n1", "c*") in reads, "the hook is not called for a replica")
    other.get_global("l", "sum", timeout=5)
    wait_until(lambda: GlobalRead("n1", "l") in reads, "the hook is not called for a live read")
    assert [read.pattern for read in reads].count("c*") == 1


def test_a_killed_member_is_named_and_soon_not_expected(opened: Any, process: Any) -> None:
    (one,) = opened(1, failure_after=3.0)
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


def test_a_move_is_given_up_while_its_source_says_nothing(opened: Any, process: Any) -> None:
    (one,) = opened(1, failure_after=60.0)
    member = process(one, "other", f"127.0.0.1:{one.cluster.removeprefix('c')}")
    stop(member)
    with ThreadPoolExecutor(1) as pool:
        taking = pool.submit(one.take, None, "other", 7, keys=["k"])
        wait_until(lambda: one.abort_take(7), "there is nothing to give up")
        with pytest.raises(estate.MoveAborted, match="aborted by its caller"):
            taking.result(timeout=30)
    assert one.abort_take(7) is False
    member.send_signal(signal.SIGCONT)

    def moves() -> bool:
        # The member may think for a moment that it was this one that had stopped.
        try:
            return bool(one.take(source="other", move_id=7, keys=["k"]) == 1)
        except (estate.NoMember, estate.MoveAborted):
            return False

    wait_until(moves, "it is not moved when it is tried again")
    assert one.get("k") == 1
    assert one.abort_take(7) is False


def test_local_operations_go_on_while_a_member_says_nothing(opened: Any, process: Any) -> None:
    (one,) = opened(1, failure_after=60.0)
    member = process(one, "other", f"127.0.0.1:{one.cluster.removeprefix('c')}")
    one.add("k", 10)
    counter, rounds = one.item("counter"), 20_000
    stop(member)
    with ThreadPoolExecutor(2) as pool:
        reading = pool.submit(one.get_global, "k", "sum", timeout=10.0)
        taking = pool.submit(one.take, ["f"], "other", 1)
        for number in range(rounds):
            one.set(f"own/{number % 100}", number)
            one.add("k")
            counter.add(1)
        assert len(one.keys("own/*")) == 100
        assert one.delete("own/1") is True
        # All that while both have waited for the member, which has not said a word.
        assert not reading.done()
        assert not taking.done()
        assert (counter.get(), one.get("k"), one.get("own/0")) == (rounds, 10 + rounds, 19_900)
        member.send_signal(signal.SIGCONT)
        taken, read = taking.exception(timeout=30), reading.exception(timeout=30)
    assert taken is None or isinstance(taken, estate.MoveAborted)
    assert read is None or isinstance(read, estate.IncompleteError)


def test_a_live_member_is_not_declared_dead(opened: Any) -> None:
    one, other = opened(2)
    with pytest.raises(estate.OptionInvalid, match="n1 is a live member"):
        one.declare_dead("n1")
    with pytest.raises(estate.NoMember, match="those that have: none"):
        one.declare_dead("n2")
    other.close()
    wait_until(lambda: one.members() == ["n0"], "who has left stays a member")
    assert one.declare_dead("n1") == 0


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
