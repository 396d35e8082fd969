"""Members that come, go, stop, are killed and cut off, each a process of its own."""

import contextlib
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from estate_members import Authority, Member, Refused
from redis_servers import free_ports, wait_until

from flowferry import estate
from flowferry.testbed import Chain, links

FLOWFERRY = Path(sys.executable).with_name("flowferry")

Join = Callable[..., Member]


@pytest.fixture
def join() -> Iterator[Join]:
    """Start members: `join("n0", peers=[…])`; they are ended after the test."""
    with ExitStack() as stack:

        def start(node: str, **options: Any) -> Member:
            member = Member(node=node, cluster="members", **options)
            stack.callback(member.end)
            return member

        yield start


def sees(member: Member, names: Sequence[str]) -> None:
    wait_until(
        lambda: member.say("members") == sorted(names), f"{member.node} does not see {names}"
    )


def total(member: Member, **options: Any) -> Any:
    return member.say("get_global", "k", "sum", **options)


def within(bed: Chain, role: str) -> Callable[[Sequence[str]], "subprocess.Popen[str]"]:
    """Start programs in a namespace."""
    return lambda argv: bed.popen(
        role, argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


@pytest.fixture
def sites(netns_chain: Callable[..., Chain]) -> Chain:
    """h1 at 10.1.0.1 and h2 at 10.2.0.2, which do not reach each other; nf at .9 of both nets."""
    bed = netns_chain(function=None)
    for role, dev, cidr in (
        ("h1", "eth0", "10.1.0.1/24"),
        ("nf", "up", "10.1.0.9/24"),
        ("h2", "eth0", "10.2.0.2/24"),
        ("nf", "down", "10.2.0.9/24"),
    ):
        links.address(bed.namespaces[role], dev, cidr)
    return bed


def test_sixteen_members_and_some_that_come_and_go_while_all_are_read(join: Join) -> None:
    place = f"127.0.0.1:{free_ports(1)[0]}"
    first = join("n0", listen=place)
    lasting = [first, *(join(f"n{number}", peers=[place]) for number in range(1, 16))]
    names = [member.node for member in lasting]
    for member in lasting:
        sees(member, names)
        member.say("add", "k", 1)
    asker, *others = lasting
    assert total(asker) == 16
    stop = threading.Event()

    def come_and_go() -> None:
        for number in range(6):
            visitor = Member(node=f"v{number}", cluster="members", peers=[place])
            try:
                visitor.say("add", "k", 100)
                if number % 2:
                    visitor.kill()
            finally:
                # By a goodbye, or without one.
                visitor.process.stdin.close()  # type: ignore[union-attr]
                visitor.process.wait(30)
                visitor.end()
        stop.set()

    coming = threading.Thread(target=come_and_go)
    coming.start()
    seen: list[int] = []
    missing: list[str] = []
    while not stop.is_set():
        asker.order("view_global", "k", "sum", timeout=5.0)
        view = asker.reply()
        missing += view["missing"]
        seen.append(view["value"])
    coming.join()
    # Those who stay are in every result, and visitors wholly or not at all.
    assert set(seen) <= {16, 116}
    assert seen
    assert all(name.startswith("v") for name in missing)
    for member in others:
        sees(member, names)
        assert total(member) == 16


def test_a_killed_member_is_missing_then_gone_and_free_for_another(join: Join) -> None:
    place = f"127.0.0.1:{free_ports(1)[0]}"
    one = join("n0", listen=place, failure_after=3.0)
    two = join("n1", peers=[place], failure_after=3.0)
    two.say("add", "k", 1)
    sees(one, ["n0", "n1"])
    two.stop()
    one.order("get_global", "k", "sum", timeout=0.3)
    with pytest.raises(Refused, match=r"IncompleteError.*n1") as missing:
        one.reply()
    assert missing.value.told["missing"] == ["n1"]
    two.kill()
    sees(one, ["n0"])
    assert total(one) is None
    again = join("n1", peers=[place])
    again.say("add", "k", 7)
    assert total(one) == 7


def test_members_on_both_sides_of_a_cut_go_on_alone_and_together_again(sites: Chain) -> None:
    with ExitStack() as stack:
        place = "10.0.0.1:7600"
        links.address(sites.namespaces["nf"], "up", "10.0.0.11/24")

        def member(role: str, node: str, **options: Any) -> Member:
            one = Member(
                within(sites, role), node=node, cluster="cut", failure_after=3.0, **options
            )
            stack.callback(one.end)
            return one

        one = member("h1", "near", listen=place)
        two = member("nf", "far", listen="10.0.0.11:7600", peers=[place])
        for each, value in ((one, 1), (two, 20)):
            sees(each, ["far", "near"])
            each.say("add", "k", value)
        assert total(one) == 21
        sites.run("nf", ["ip", "link", "set", "dev", "up", "down"])
        with pytest.raises(Refused, match="IncompleteError") as missing:
            total(one, timeout=0.3)
        assert (missing.value.told["missing"], missing.value.told["value"]) == (["far"], 1)
        for each in (one, two):
            sees(each, [each.node])
            each.say("add", "k", 100)
        assert (total(one), total(two)) == (101, 120)
        sites.run("nf", ["ip", "link", "set", "dev", "up", "up"])
        for each in (one, two):
            sees(each, ["far", "near"])
            assert total(each) == 221


def test_two_sites_that_a_router_joins(sites: Chain, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    with ExitStack() as stack:
        ca, certificate, key = authority.issue("router")
        argv = [str(FLOWFERRY), "state", "router", "--json", "--cluster", "sites"]
        argv += ["--node", "router", "--listen", "0.0.0.0:7600", "--tls-ca", ca]
        argv += ["--tls-certificate", certificate, "--tls-key", key]
        router = sites.popen("nf", argv, stdout=subprocess.PIPE, text=True)
        assert router.stdout is not None
        stack.callback(router.stdout.close)
        assert json.loads(router.stdout.readline())["node"] == "router"

        def member(role: str, node: str, listen: str, peer: str) -> Member:
            tls = authority.issue(node)
            one = Member(
                within(sites, role),
                node=node,
                cluster="sites",
                listen=listen,
                peers=[f"{peer}:7600"],
                tls=tls,
            )
            stack.callback(one.end)
            return one

        one = member("h1", "one", "10.1.0.1:7601", "10.1.0.9")
        two = member("h2", "two", "10.2.0.2:7601", "10.2.0.9")
        names = ["one", "router", "two"]
        for each, value in ((one, 1), (two, 20)):
            sees(each, names)
            each.say("add", "k", value)
        assert total(one) == total(two) == 21
        two.say("set", "flow:x/state", "moved")
        assert one.say("take", None, "two", 1, keys=["flow:x/state"]) == 1
        assert (one.say("get", "flow:x/state"), two.say("get", "flow:x/state")) == ("moved", None)
        with pytest.raises(Refused, match="NameTaken"):
            member("h1", "two", "10.1.0.1:7602", "10.1.0.9")
        two.kill()
        sees(one, ["one", "router"])
        assert total(one) == 1
        router.terminate()
        sees(one, ["one"])


def test_who_has_another_authority_is_refused_with_a_clear_error(tmp_path: Path) -> None:
    ours, theirs = Authority(tmp_path / "ours"), Authority(tmp_path / "theirs")
    place = f"127.0.0.1:{free_ports(1)[0]}"
    with contextlib.closing(
        estate.open(cluster="tls", node="a", listen=place, tls=estate.Tls(*ours.issue("a")))
    ) as es:
        with pytest.raises(estate.EstateError, match="authority"):
            estate.open(cluster="tls", node="b", peers=[place], tls=estate.Tls(*theirs.issue("b")))
        with pytest.raises(estate.EstateError, match="do both have TLS"):
            estate.open(cluster="tls", node="b", peers=[place])
        with pytest.raises(estate.EstateError, match="stands neither for"):
            estate.open(cluster="tls", node="b", peers=[place], tls=estate.Tls(*ours.issue("c")))
        es.set("k", 5)
        with estate.open(
            cluster="tls", node="b", peers=[place], tls=estate.Tls(*ours.issue("b"))
        ) as other:
            assert other.get_global("k", "sum") == 5


def test_the_command_line_speaks_tls(tmp_path: Path) -> None:
    ours, theirs = Authority(tmp_path / "ours"), Authority(tmp_path / "theirs")
    place = f"127.0.0.1:{free_ports(1)[0]}"

    def ask(authority: Authority) -> "subprocess.CompletedProcess[str]":
        ca, certificate, key = authority.issue("tls")  # the cluster: a visitor's name is any
        argv = [str(FLOWFERRY), "state", "global", "k", "--reduce", "sum", "--json"]
        argv += ["--cluster", "tls", "--peer", place, "--tls-ca", ca]
        argv += ["--tls-certificate", certificate, "--tls-key", key]
        return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)

    tls = estate.Tls(*ours.issue("a"))
    with estate.open(cluster="tls", node="a", listen=place, tls=tls) as es:
        es.set("k", 5)
        answer = ask(ours)
        assert answer.returncode == 0, answer.stderr
        assert json.loads(answer.stdout)["value"] == 5
        refused = ask(theirs)
        assert refused.returncode == 1
        assert "authority" in refused.stderr


def test_members_that_scout_find_each_other(sites: Chain) -> None:
    with ExitStack() as stack:
        # Multicast goes by the default route, which a namespace does not have by itself.
        for role, dev in (("h1", "eth0"), ("nf", "up")):
            sites.run(role, ["ip", "route", "add", "224.0.0.0/4", "dev", dev])
        members = []
        for role, node in (("h1", "a"), ("nf", "b")):
            one = Member(within(sites, role), node=node, cluster="scouts", scouting=True)
            stack.callback(one.end)
            members.append(one)
        for one in members:
            sees(one, ["a", "b"])
        with pytest.raises(Refused, match="NameTaken"):
            Member(within(sites, "h1"), node="b", cluster="scouts", scouting=True)
