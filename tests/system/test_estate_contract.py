"""What holds for all backends alike: `local`, `p2p`, a Redis, a Redis Cluster of six.

`cluster(n)` opens n instances which see each other; with `local` there is one only, and tests that
are about several are left out there.
"""

import itertools
import secrets
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from typing import Any

import pytest
from redis_servers import Server, cluster_url, free_ports, wait_until

from flowferry import estate
from flowferry.estate import Cached, Estate, Live, Snapshot

BACKENDS = ["local", "p2p", "redis", "redis+cluster"]
SEVERAL = BACKENDS[1:]

Opener = Callable[..., list[Estate]]


class Backend:
    """A kind of backend, and how its instances are opened."""

    def __init__(self, kind: str, request: pytest.FixtureRequest) -> None:
        self.kind = kind
        self.cluster = f"c{secrets.token_hex(4)}"
        self.stack = ExitStack()
        self.ports = iter(free_ports(32)) if kind == "p2p" else iter(())
        self.peers: list[str] = []
        self.url = kind
        if kind == "redis":
            one: Server = request.getfixturevalue("one_redis")
            self.url = one.url
        elif kind == "redis+cluster":
            self.url = cluster_url(request.getfixturevalue("six_redis"))

    def open(self, node: str, **options: Any) -> Estate:
        """One more instance."""
        options.setdefault("cluster", self.cluster)
        options.setdefault("timeout", 10.0)
        if self.kind == "p2p":
            options.setdefault("listen", f"127.0.0.1:{next(self.ports)}")
            options.setdefault("peers", list(self.peers))
            self.peers.append(options["listen"])
        else:  # a machine that stands still is no failure
            options.setdefault("failure_after", 10.0)
        es = estate.open(node=node, backend=self.url, **options)
        self.stack.callback(es.close)
        return es

    def several(self, count: int, **options: Any) -> list[Estate]:
        """Instances n0, n1, … which all see each other."""
        opened = [self.open(f"n{number}", **options) for number in range(count)]
        names = sorted(es.node for es in opened)
        for es in opened:
            wait_until(partial(sees, es, names), f"{es} does not see {names}")
        return opened


def sees(es: Estate, names: list[str]) -> bool:
    return es.members() == names


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    it = Backend(request.param, request)
    with it.stack:
        yield it


@pytest.fixture(params=SEVERAL)
def shared(request: pytest.FixtureRequest) -> Iterator[Backend]:
    it = Backend(request.param, request)
    with it.stack:
        yield it


# --- the local view ---


@pytest.mark.parametrize(
    "value",
    [b"", b"\0\xff\r\n$5", "", "größer als 1 µs 🚚", 0, -(2**63), 2**63 - 1, 0.1, -1e300, True],
    ids=repr,
)
def test_a_value_comes_back_as_what_it_was(backend: Backend, value: Any) -> None:
    es = backend.open("n0")
    es.set("k", value)
    assert es.get("k") == value
    assert type(es.get("k")) is (int if value is True else type(value))


def test_what_is_not_there_is_none_or_the_default(backend: Backend) -> None:
    es = backend.open("n0")
    assert es.get("k") is None
    assert es.get("k", 7) == 7
    assert es.delete("k") is False
    es.set("k", 0)
    assert es.get("k", 7) == 0
    assert es.delete("k") is True
    assert es.get("k") is None


def test_a_counter_counts_from_zero_and_keeps_64_bits(backend: Backend) -> None:
    es = backend.open("n0")
    assert es.add("k") == 1
    assert es.add("k", -3) == -2
    assert es.add("k", 2**63 - 1) == 2**63 - 3
    with pytest.raises(estate.CounterOverflow) as caught:
        es.add("k", 3)
    assert (caught.value.key, caught.value.node) == ("k", "n0")
    assert es.get("k") == 2**63 - 3
    assert es.add("k", -(2**53) - 1) == 2**63 - 3 - 2**53 - 1


def test_counting_something_else_is_refused_and_harmless(backend: Backend) -> None:
    es = backend.open("n0")
    for value in (b"1", "1", 1.0):
        es.set("k", value)
        with pytest.raises(estate.TypeConflict, match=r"'k'|\"k\"") as caught:
            es.add("k")
        assert (caught.value.key, caught.value.node) == ("k", "n0")
        assert es.get("k") == value


def test_an_item_expires_and_a_counter_keeps_its_time(backend: Backend) -> None:
    es = backend.open("n0")
    es.set("brief", 1, ttl=2.0)
    assert es.add("brief") == 2
    es.set("long", 1, ttl=600)
    item = es.get_item("long")
    assert item is not None
    assert item.expires is not None
    assert item.expires - item.written == pytest.approx(600, abs=1)
    wait_until(lambda: es.get("brief") is None, "the item does not expire")
    assert es.get_global("*", "count", pattern="glob") == 1
    es.set("long", 2)
    again = es.get_item("long")
    assert again is not None
    assert again.expires is None


KEYS = ["a", "a/b", "a/b/c", "b", "a*", "a[b]", "größe", "a\nb", " ", "flow:x/n"]


@pytest.mark.parametrize(
    ("pattern", "kind", "found"),
    [
        ("*", "glob", KEYS),
        ("a/*", "glob", ["a/b", "a/b/c"]),
        ("?", "glob", ["a", "b", " "]),
        ("gr??e", "glob", ["größe"]),
        (r"a\*", "glob", ["a*"]),
        ("a[*[]*", "glob", ["a*", "a[b]"]),
        ("a[b]", None, ["a[b]"]),
        (".", "regex", ["a", "b", " "]),
        (r"a/\w(/c)?", "regex", ["a/b", "a/b/c"]),
        ("nothing", None, []),
    ],
)
def test_keys_by_pattern(backend: Backend, pattern: str, kind: Any, found: list[str]) -> None:
    es = backend.open("n0")
    for key in KEYS:
        es.set(key, 1)
    assert sorted(es.keys(pattern, pattern=kind)) == sorted(found)
    assert es.get_global(pattern, "count", pattern=kind) == len(found)


def test_every_legal_character_in_a_key(backend: Backend) -> None:
    es = backend.open("n0")
    # All ASCII, the ends of every length of UTF-8, and what a server might take for its own.
    signs = [
        *map(chr, range(128)),
        "\x80",
        "\u07ff",
        "\u0800",
        "\uffff",
        "\U00010000",
        "\U0010ffff",
    ]
    keys = [
        *signs,
        "{",
        "}",
        "{}",
        "{a}b",
        "a:b",
        "%41",
        "e\u0301",
        "é",
        "x" * 1024,
        "\U0010ffff" * 256,
    ]
    for number, key in enumerate(keys):
        es.set(key, number)
    expected = dict(zip(keys, itertools.count(), strict=False))
    assert {key: es.get(key) for key in expected} == expected
    assert sorted(es.keys()) == sorted(expected)
    items = es.view_global("*", list, pattern="glob").items
    assert {item.key: item.value for item in items} == expected


@pytest.mark.parametrize("key", ["", "x" * 1025, "ö" * 513])
def test_a_key_that_cannot_be_one(backend: Backend, key: str) -> None:
    es = backend.open("n0")
    for attempt in (lambda: es.set(key, 1), lambda: es.add(key), lambda: es.item(key)):
        with pytest.raises(estate.KeyInvalid, match=r"1,024"):
            attempt()


def test_threads_lose_no_addition(backend: Backend) -> None:
    es = backend.open("n0")
    handle = es.item("k")
    rounds = 200

    def count() -> None:
        for _ in range(rounds):
            es.add("k")
            handle.add(2)

    threads = [threading.Thread(target=count) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert es.get("k") == 8 * rounds * 3


def test_a_handle_is_the_item_also_after_it_was_deleted(backend: Backend) -> None:
    es = backend.open("n0")
    handle = es.item("k")
    assert handle.get() is None
    assert handle.add(5) == 5
    assert es.get("k") == 5
    es.delete("k")
    assert handle.get() is None
    handle.set("again")
    assert es.get("k") == "again"
    assert handle.delete() is True


# --- the global view ---


def test_local_items_are_nobody_elses(shared: Backend) -> None:
    one, other = shared.several(2)
    one.set("k", 1)
    assert other.get("k") is None
    assert other.keys() == []
    assert other.delete("k") is False
    other.set("k", 2)
    assert one.get("k") == 1


@pytest.mark.parametrize("level", [Live(), Snapshot()], ids=repr)
def test_any_subset_of_the_instances_holds_the_key(shared: Backend, level: Any) -> None:
    nodes = shared.several(3)
    for holding in itertools.product([False, True], repeat=len(nodes)):
        for number, (es, holds) in enumerate(zip(nodes, holding, strict=True)):
            es.set("k", 10**number) if holds else es.delete("k")
        expected = [10**number for number, holds in enumerate(holding) if holds]
        for es in nodes:
            assert es.get_global("k", "sum", consistency=level) == (sum(expected) or None)
            seen = es.get_global("k", lambda i: sorted(x.value for x in i), consistency=level)
            assert seen == (expected or None)
        view = nodes[0].view_global("k", "count", consistency=level)
        assert view.answered == ("n0", "n1", "n2")
        assert (view.missing, view.complete, view.oldest) == ((), True, None)


def test_none_holds_it(backend: Backend) -> None:
    es = backend.open("n0")
    for reduce in ("latest", "sum", "avg", "min", "max", "any", "all", "union", "concat", "causal"):
        assert es.get_global("k", reduce) is None
    assert es.get_global("k", lambda items: pytest.fail("called without items")) is None
    # How many there are is known also when there are none: not an absent result, but zero.
    assert es.get_global("k*", "count", pattern="glob") == 0
    levels: list[Any] = [Live(), Snapshot(), Cached(1.0)]
    for level in levels:
        view = es.view_global("k", "count", consistency=level)
        assert (view.value, view.complete) == (0, True), level


def test_reducers_over_the_cluster(shared: Backend) -> None:
    nodes = shared.several(3)
    for number, es in enumerate(nodes):
        es.get_global("int", "count")  # what is written now is later than what it has seen
        es.set("int", number + 1)
        es.set("float", number / 2)
        es.set("text", f"{number}\n")
        es.set("bits", bytes([1 << number]))
    asker = nodes[1]
    assert asker.get_global("int", "sum") == 6
    assert asker.get_global("int", "avg") == 2.0
    assert asker.get_global("float", "sum") == 1.5
    assert (asker.get_global("int", "min"), asker.get_global("int", "max")) == (1, 3)
    assert asker.get_global("int", "count") == 3
    assert asker.get_global("int", "latest") == 3
    assert asker.get_global("text", "concat") == "0\n1\n2\n"
    assert asker.get_global("bits", "union") == b"\x07"
    assert (asker.get_global("float", "any"), asker.get_global("float", "all")) == (1, 0)


def test_the_last_write_is_the_latest(shared: Backend) -> None:
    nodes = shared.several(2)
    for turn in range(6):
        # Whoever has seen the cluster writes later than all it has seen, whatever its clock says.
        nodes[turn % 2].get_global("k", "latest")
        nodes[turn % 2].set("k", turn)
        assert nodes[0].get_global("k", "latest") == turn
        assert nodes[1].get_global("k", "latest") == turn


def test_siblings_are_reported_until_somebody_has_seen_both(shared: Backend) -> None:
    one, other = shared.several(2)
    one.set("k", "a")
    other.set("k", "b")
    seen = one.view_global("k", "causal")
    assert sorted(item.value for item in seen.items) == ["a", "b"]
    one.set("k", "c", after=seen.items)
    view = other.view_global("k", "causal")
    assert [item.value for item in view.items] == ["c"]
    assert view.value == "c"
    assert set(view.items[0].history) == {"n0", "n1"}


def test_types_that_do_not_go_together_are_named(shared: Backend) -> None:
    one, other = shared.several(2)
    one.set("k", 1)
    other.set("k", "1")
    for reduce in ("sum", "min", "union"):
        with pytest.raises(estate.TypeConflict) as caught:
            one.get_global("k", reduce)
        assert caught.value.key == "k"
        assert caught.value.node in ("n0", "n1")
        assert "k" in str(caught.value)
    assert one.get_global("k", "count") == 2
    assert {item.value for item in one.view_global("k", list).items} == {1, "1"}


def test_a_reducer_of_ones_own_gets_items_with_all_that_belongs_to_them(shared: Backend) -> None:
    nodes = shared.several(2)
    for es in nodes:
        es.set("a/1", es.node)
        es.set("a/2", es.node)
    items = nodes[0].get_global("a/*", list, pattern="glob")
    assert items is not None
    assert [(item.key, item.node) for item in items] == [
        ("a/1", "n0"),
        ("a/1", "n1"),
        ("a/2", "n0"),
        ("a/2", "n1"),
    ]
    assert all(item.value == item.node for item in items)
    nodes[0].set("a/1", "again")
    again = nodes[1].get_global("a/1", lambda items: max(items, key=lambda item: item.version))
    assert again is not None
    assert (again.node, again.value) == ("n0", "again")


def test_a_reducer_that_raises_raises_at_the_asker_only(shared: Backend) -> None:
    one, other = shared.several(2)
    one.set("k", 1)

    def broken(items: Any) -> int:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine") as caught:
        other.get_global("k", broken)
    assert "'k'" in caught.value.__notes__[0]
    assert other.get_global("k", "sum") == 1


def test_a_cached_view_is_as_old_as_it_says_and_no_older(shared: Backend) -> None:
    one, other = shared.several(2)
    one.set("k", 1)
    level = Cached(max_age=2.0)
    wait_until(lambda: other.get_global("k", "sum", consistency=level) == 1, "not cached")
    one.set("k", 2)
    view = other.view_global("k", "sum", consistency=level)
    assert view.oldest is not None
    assert 0 <= view.oldest <= 2.0
    wait_until(lambda: other.get_global("k", "sum", consistency=level) == 2, "stays old")


def test_more_nodes_than_have_one_digit_are_all_seen(shared: Backend) -> None:
    nodes = shared.several(12)
    for es in nodes:
        es.add("k")
        es.add("p/1")
    assert nodes[0].get_global("k", "sum") == 12
    assert nodes[11].get_global("p/*", "sum", pattern="glob") == 12


def test_clusters_and_names_that_look_like_parts_of_keys(shared: Backend) -> None:
    names = ["a", "a:b", "*", "ö", "a%3ab", "{x}"]
    nodes = [shared.open(name) for name in names]
    wait_until(lambda: all(es.members() == sorted(names) for es in nodes), "not all are members")
    for es in nodes:
        es.set("k", es.node)
        es.set("b:k", 1)
    assert nodes[0].get_global("k", lambda i: sorted(x.node for x in i)) == sorted(names)
    assert nodes[0].get_global("b:*", "sum", pattern="glob") == len(names)


# --- members ---


def test_two_of_the_same_name_is_a_clear_error(shared: Backend) -> None:
    shared.several(2, failure_after=2.0)
    with pytest.raises(estate.NameTaken, match="n0"):
        shared.open("n0", failure_after=2.0)


def test_who_leaves_is_no_member_and_its_items_are_in_no_read(shared: Backend) -> None:
    one, other = shared.several(2)
    one.add("k", 1)
    other.add("k", 2)
    other.close()
    wait_until(lambda: one.members() == ["n0"], "n1 stays a member")
    assert one.get_global("k", "sum") == 1


def test_after_closing_every_call_says_so(backend: Backend) -> None:
    es = backend.open("n0")
    handle = es.item("k")
    es.close()
    es.close()
    for attempt in (
        lambda: es.set("k", 1),
        lambda: es.get("k"),
        lambda: es.add("k"),
        lambda: es.delete("k"),
        lambda: es.keys(),
        lambda: handle.add(1),
        lambda: es.get_global("k", "sum"),
        lambda: es.members(),
        lambda: es.statistics(),
    ):
        with pytest.raises(estate.Closed, match="closed"):
            attempt()


# --- moves ---


def flows(*names: str) -> list[str]:
    return list(names)


def test_a_flow_moves_with_all_its_items(shared: Backend) -> None:
    one, other = shared.several(2)
    mine, staying = one.flow("session-1"), one.flow("session-2")
    mine.set("packets", 5)
    mine.set("name", "x")
    staying.set("packets", 7)
    one.set("other", 1)
    before = one.get_item("flow:session-1/packets")
    assert other.take(["session-1"], "n0", 1) == 2
    assert (mine.get("packets"), mine.names()) == (None, [])
    assert other.flow("session-1").get("packets") == 5
    assert sorted(other.flow("session-1").names()) == ["name", "packets"]
    assert staying.get("packets") == 7
    assert one.get("other") == 1
    after = other.get_item("flow:session-1/packets")
    assert before is not None
    assert after is not None
    assert (after.version, after.node) == (before.version, "n1")
    assert other.get_global("flow:*/packets", "sum", pattern="glob") == 12


def test_a_repeated_move_does_nothing_more(shared: Backend) -> None:
    one, other = shared.several(2)
    one.flow("f").set("n", 1)
    assert other.take(["f", "g"], "n0", 77) == 1
    one.flow("f").set("n", 2)
    one.flow("g").set("n", 3)
    assert other.take(["f", "g"], "n0", 77) == 1
    assert other.flow("f").get("n") == 1
    assert one.flow("g").get("n") == 3
    other.flow("f").delete("n")
    assert other.take(["f", "g"], "n0", 78) == 2
    assert other.flow("f").get("n") == 2


def test_keys_move_too(shared: Backend) -> None:
    one, other = shared.several(2)
    one.set("k", b"\0" * 100)
    one.set("stays", 1)
    assert other.take(source="n0", move_id=5, keys=["k", "missing"]) == 1
    assert other.get("k") == b"\0" * 100
    assert one.keys() == ["stays"]


def test_what_is_at_both_places_does_not_move_and_loses_nothing(shared: Backend) -> None:
    one, other = shared.several(2)
    for es in (one, other):
        es.flow("f").set("n", es.node)
    one.flow("f").set("more", 1)
    with pytest.raises(estate.MoveAborted, match="flow:f/n"):
        other.take(["f"], "n0", 1)
    assert (one.flow("f").get("n"), one.flow("f").get("more")) == ("n0", 1)
    assert (other.flow("f").get("n"), other.flow("f").get("more")) == ("n1", None)
    one.flow("f").set("n", "still written")
    other.flow("f").delete("n")
    assert other.take(["f"], "n0", 1) == 2
    assert other.flow("f").get("n") == "still written"


def test_moving_from_nobody_or_from_oneself(backend: Backend) -> None:
    es = backend.open("n0")
    es.flow("f").set("n", 1)
    with pytest.raises(estate.NoMember, match="nobody"):
        es.take(["f"], "nobody", 1)
    with pytest.raises(estate.NoMember, match="nobody"):
        es.take(source="nobody", move_id=1, keys=["k"])
    assert es.take(["f"], "n0", 2) == 0
    assert es.flow("f").get("n") == 1


def test_many_items_move_at_once(shared: Backend) -> None:
    one, other = shared.several(2)
    names = [f"s{number}" for number in range(500)]
    for name in names:
        for part in ("a", "b"):
            one.flow(name).set(part, 1)
    assert other.take(names, "n0", 9) == 1000
    assert one.keys() == []
    assert other.get_global("flow:*", "sum", pattern="glob") == 1000


def test_a_move_that_is_over_cannot_be_given_up(shared: Backend) -> None:
    one, other = shared.several(2)
    one.flow("f").set("n", 1)
    assert other.abort_take(1) is False
    assert other.take(["f"], "n0", 1) == 1
    assert other.abort_take(1) is False
    assert other.flow("f").get("n") == 1


# --- watching ---


def test_a_watch_tells_of_writes_and_deletions_of_all_members(shared: Backend) -> None:
    one, other = shared.several(2)
    seen: dict[tuple[str, str], Any] = {}
    with one.watch("w/*") as watch:

        def look() -> bool:
            while event := watch.next(0.05):
                seen[event.node, event.key] = event.item and event.item.value
            return seen == expected

        one.set("w/1", 1)
        other.set("w/2", "two")
        other.set("else", 1)
        expected: dict[tuple[str, str], Any] = {("n0", "w/1"): 1, ("n1", "w/2"): "two"}
        wait_until(look, "the writes are not told")
        other.delete("w/2")
        expected = {**expected, ("n1", "w/2"): None}
        wait_until(look, "the deletion is not told")


def test_a_watch_ends_with_the_estate(backend: Backend) -> None:
    es = backend.open("n0")
    watch = es.watch()
    with ThreadPoolExecutor(1) as pool:
        looking = pool.submit(lambda: list(watch))
        es.close()
        looking.result(timeout=10)
    assert watch.ended


# --- what would break a weaker store ---


def test_patterns_that_hang_a_backtracking_engine(shared: Backend) -> None:
    nodes = shared.several(2)
    nodes[1].set("a" * 1000 + "!", 1)
    for pattern, kind in (
        ("(a+)+$", "regex"),
        ("(a|aa)*b", "regex"),
        ("(.*a){30}b", "regex"),
        ("a*" * 50 + "b", "glob"),
    ):
        assert nodes[0].get_global(pattern, "count", pattern=kind) == 0  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("pattern", "kind"), [("(", "regex"), ("a{1000}{1000}", "regex"), ("[", "glob")]
)
def test_a_pattern_that_is_none(backend: Backend, pattern: str, kind: Any) -> None:
    es = backend.open("n0")
    for attempt in (
        lambda: es.get_global(pattern, "sum", pattern=kind),
        lambda: es.keys(pattern, pattern=kind),
        lambda: es.watch(pattern, pattern=kind),
    ):
        with pytest.raises(estate.PatternInvalid):
            attempt()


def test_ten_megabytes_in_a_value(shared: Backend) -> None:
    one, other = shared.several(2)
    big = secrets.token_bytes(10_000_000)
    one.set("flow:f/k", big)
    assert one.get("flow:f/k") == big
    assert other.get_global("flow:f/k", "latest") == big
    assert other.take(["f"], "n0", 1) == 1
    assert other.get("flow:f/k") == big
