"""What is Python's own: asyncio, fork, the interpreter let go, codecs, types, reducers by name."""

import asyncio
import gc
import inspect
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis_servers import Server, free_ports, wait_until

from flowferry import estate
from flowferry.estate import AsyncEstate, Estate, watch


@pytest.fixture
def es() -> Iterator[Estate]:
    with estate.open(cluster="c", node="n0", backend="local") as opened:
        yield opened


@pytest.fixture
def stuck(tmp_path: Path) -> Iterator[tuple[Estate, Server]]:
    """An estate whose server answers no more, since it is stopped; it waits for 2 s."""
    from redis_servers import redis_server

    with redis_server(tmp_path / "redis") as server:
        options: dict[str, Any] = {"timeout": 2.0, "failure_after": 60.0}
        with estate.open(cluster="c", node="n0", backend=server.url, **options) as opened:
            assert server.process is not None
            server.process.send_signal(signal.SIGSTOP)
            try:
                yield opened, server
            finally:
                server.process.send_signal(signal.SIGCONT)


# --- waiting ---


def test_other_threads_run_while_a_call_waits(stuck: tuple[Estate, Server]) -> None:
    es, _ = stuck
    ended = threading.Event()

    def ask() -> None:
        with pytest.raises(estate.BackendFailed):
            es.get_global("k", "sum")
        ended.set()

    asking = threading.Thread(target=ask)
    asking.start()
    turns = 0
    while not ended.is_set():
        turns += 1
        time.sleep(0)
    asking.join()
    assert turns > 1000, "the interpreter was held while the call waited"


async def _ticks(until: "asyncio.Future[Any]") -> int:
    ticks = 0
    while not until.done():
        await asyncio.sleep(0.01)
        ticks += 1
    return ticks


def test_the_loop_goes_on_while_calls_wait(stuck: tuple[Estate, Server]) -> None:
    es, _ = stuck

    async def main() -> int:
        asking = asyncio.gather(
            *(es.aio.get_global("k", "sum") for _ in range(4)), return_exceptions=True
        )
        ticks = await _ticks(asking)
        assert all(isinstance(each, estate.BackendFailed) for each in await asking)
        return ticks

    assert asyncio.run(main()) > 20


def test_a_cancelled_task_goes_on_at_once(stuck: tuple[Estate, Server]) -> None:
    es, server = stuck

    async def main() -> None:
        asking = asyncio.create_task(es.aio.get_global("k", "sum"))
        await asyncio.sleep(0.05)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        # The request that goes on in its thread does not stand in the way of the next.
        assert server.process is not None
        server.process.send_signal(signal.SIGCONT)
        assert await es.aio.get_global("k", "sum") is None

    asyncio.run(main())


def test_asyncio_has_every_call_that_waits(one_redis: Server) -> None:
    cluster = f"c{secrets.token_hex(4)}"

    async def main() -> None:
        options: dict[str, Any] = {"cluster": cluster, "backend": one_redis.url}
        one = await estate.aopen(node="n0", **options)
        async with one, await estate.aopen(node="n1", **options) as other:
            await one.set("k", 1, ttl=60)
            assert await other.add("k", 2) == 2
            assert await one.get("k") == 1
            item = await one.get_item("k")
            assert item is not None
            assert (item.value, item.expires is None) == (1, False)
            assert await one.get_item("none") is None
            assert await one.statistics() == one.estate.statistics()
            with pytest.raises(estate.Unsupported):
                await one.on_global_read(print)
            assert await one.get_global("k", "sum") == 3
            assert await one.get_global("k", lambda items: len(items)) == 2
            view = await other.view_global("*", "count", pattern="glob")
            assert (view.value, view.complete) == (2, True)
            assert await one.members() == ["n0", "n1"]
            assert await one.keys() == ["k"]
            flow = one.flow("f")
            await flow.set("n", 5)
            assert (await flow.add("n"), await flow.get("n"), flow.scope) == (6, 6, "flow:f")
            assert await flow.names() == ["n"]
            assert await flow.delete("none") is False
            handle = await flow.item("n")
            assert (handle.key, await handle.add(4), await handle.get()) == (flow.key("n"), 10, 10)
            assert await other.take(["f"], "n0", 1) == 1
            assert await other.abort_take(1) is False
            assert (await flow.get("n", "gone"), await handle.get()) == ("gone", None)
            assert await other.flow("f").get("n") == 10
            mine = await other.item("k")
            await mine.set(7)
            assert (await mine.delete(), await other.get("k")) == (True, None)
            with pytest.raises(estate.Unsupported):
                await one.declare_dead("n1")
            assert await one.delete("k") is True
        with pytest.raises(estate.Closed):
            await one.get("k")

    asyncio.run(main())


def test_asyncio_has_what_instances_do_among_themselves() -> None:
    async def main() -> None:
        places = [f"127.0.0.1:{port}" for port in free_ports(2)]
        options: dict[str, Any] = {"cluster": f"c{secrets.token_hex(4)}", "peers": places}
        async with (
            await estate.aopen(node="n0", listen=places[0], **options) as one,
            await estate.aopen(node="n1", listen=places[1], **options) as other,
        ):
            while not await one.members() == await other.members() == ["n0", "n1"]:
                await asyncio.sleep(0.01)
            reads: asyncio.Queue[tuple[estate.GlobalRead, int]] = asyncio.Queue()
            await one.on_global_read(lambda read: reads.put_nowait((read, threading.get_ident())))
            await asyncio.gather(
                one.joint(1, ["n1"], set={"a": 1}, add={"k": -5}, timeout=10),
                other.joint(1, ["n0"], add={"k": 5}, timeout=10),
            )
            assert (one.estate.get("a"), one.estate.get("k"), other.estate.get("k")) == (1, -5, 5)
            assert await other.get_global("k", "sum", timeout=10) == 0
            read = estate.GlobalRead("n1", "k")
            assert await asyncio.wait_for(reads.get(), 30) == (read, threading.get_ident())
            with pytest.raises(estate.NotJoined):
                await one.joint(2, ["n1"], delete=["a"], timeout=0.1)

    asyncio.run(asyncio.wait_for(main(), 60))


def test_asyncio_takes_what_the_estate_takes() -> None:
    waits = set(dir(AsyncEstate)) - {"close", "estate"}
    for name in sorted(each for each in waits if not each.startswith("_")):
        sync, awaited = (
            list(inspect.signature(getattr(kind, name)).parameters)
            for kind in (Estate, AsyncEstate)
        )
        assert awaited == sync, name


def test_closing_again_does_nothing_for_asyncio_too(es: Estate) -> None:
    async def main() -> None:
        async with es.aio as opened:
            await opened.close()
            await asyncio.gather(opened.close(), opened.close())
        with pytest.raises(estate.Closed):
            await opened.get("k")

    asyncio.run(main())


def test_the_loop_goes_on_while_an_estate_closes(stuck: tuple[Estate, Server]) -> None:
    es, _ = stuck

    async def leave() -> None:
        async with es.aio:
            pass

    async def main() -> int:
        return await _ticks(asyncio.ensure_future(leave()))

    assert asyncio.run(main()) > 20


def test_watches_leave_the_threads_to_other_calls(
    es: Estate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "PATIENCE", 300.0)

    def threads() -> int:
        return sum(each.name.startswith("estate-watch") for each in threading.enumerate())

    async def main() -> None:
        watches = [await es.aio.watch(f"w/{number}") for number in range(20)]
        waiting = [asyncio.ensure_future(anext(each)) for each in watches]
        await asyncio.sleep(0)
        started = time.monotonic()
        reads = asyncio.gather(*(es.aio.get_global("k", "sum") for _ in range(100)))
        assert await asyncio.wait_for(reads, 30) == [None] * 100
        print(f"100 reads beside 20 watches: {time.monotonic() - started:.3f} s")
        for number, each in enumerate(waiting):
            es.set(f"w/{number}", number)
            assert (await asyncio.wait_for(each, 30)).key == f"w/{number}"
        assert threads() >= 20
        for one in watches:
            one.close()

    try:
        asyncio.run(main())
    finally:
        es.close()
    wait_until(lambda: threads() == 0, "the threads of watches stay when those have ended")


def test_an_asynchronous_watch_loses_nothing_to_cancellation(es: Estate) -> None:
    async def main() -> list[Any]:
        seen: list[Any] = []
        changes = await es.aio.watch("w/*")
        for number in range(3):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(changes), 0.02)
            es.set(f"w/{number}", number)
            event = await asyncio.wait_for(anext(changes), 10)
            assert event.item is not None
            seen.append(event.item.value)
        es.close()
        return seen + [event async for event in changes]

    assert asyncio.run(main()) == [0, 1, 2]


# --- fork ---

FORKING = """
import asyncio, os, sys
from flowferry import estate
es = estate.open(cluster="c", node="n0", backend=sys.argv[1], timeout=2)
es.set("k", 1)
handle, watch = es.item("k"), es.watch()
child = os.fork()
if child == 0:
    calls = [lambda: es.get("k"), lambda: es.set("k", 2), lambda: es.add("k"), lambda: es.keys(),
             lambda: es.get_global("k", "sum"), lambda: es.members(), lambda: handle.add(1),
             lambda: asyncio.run(watch.__anext__())]
    for call in calls:
        try:
            call()
        except estate.Forked as error:
            assert "fork" in str(error) and "child" in str(error)
        else:
            os._exit(3)
    es.close()
    del es, handle, watch
    with estate.open(cluster="c", node="n1", backend=sys.argv[1], timeout=2) as mine:
        mine.set("k", 3)
        os._exit(0 if mine.get("k") == 3 else 4)
_, status = os.waitpid(child, 0)
assert os.waitstatus_to_exitcode(status) == 0, status
assert es.get("k") == 1
es.close()
"""


@pytest.mark.parametrize("backend", ["local", "redis", "p2p"])
def test_a_forked_child_is_told_and_not_hung(backend: str, one_redis: Server) -> None:
    url = one_redis.url if backend == "redis" else backend
    subprocess.run([sys.executable, "-c", FORKING, url], check=True, timeout=60)


# --- values ---


def test_other_objects_need_a_codec(es: Estate) -> None:
    for value in ([1], {"a": 1}, None, object(), 1j):
        with pytest.raises(TypeError, match="codec"):
            es.set("k", value)
    with pytest.raises(OverflowError, match="64 bits"):
        es.set("k", 2**63)
    thing = {"b": [1, 2.5, None], "a": "ü"}
    es.set("k", thing, codec=estate.JSON)
    assert es.get("k") == '{"a":"\\u00fc","b":[1,2.5,null]}'
    assert es.get("k", codec=estate.JSON) == thing
    es.set("k", {1, 2}, codec=estate.PICKLE)
    assert es.get("k", codec=estate.PICKLE) == {1, 2}
    assert es.get("none", 5, codec=estate.JSON) == 5


def test_a_value_is_a_copy_and_a_subclass_is_its_base(es: Estate) -> None:
    class Name(str):
        __slots__ = ()

    es.set("k", Name("x"))
    assert type(es.get("k")) is str
    with pytest.raises(TypeError):
        es.set("k", bytearray(b"x"))


@pytest.mark.parametrize("key", [b"k", 1, None, "\ud800"], ids=repr)
def test_a_key_is_text(es: Estate, key: Any) -> None:
    with pytest.raises((TypeError, UnicodeEncodeError)):
        es.set(key, 1)


# --- reducers ---


def test_reducers_by_name(es: Estate) -> None:
    name = f"spread-{secrets.token_hex(4)}"

    @estate.reducer(name)
    def spread(items: Any) -> int:
        values: list[int] = [item.value for item in items]
        return max(values) - min(values)

    es.set("a/1", 3)
    es.set("a/2", 10)
    assert es.get_global("a/*", name, pattern="glob") == 7
    assert es.view_global("a/*", name, pattern="glob").value == 7
    assert es.get_global("nothing", name) is None
    with pytest.raises(ValueError, match="already"):
        estate.reducer("sum")(spread)
    with pytest.raises(ValueError, match="already"):
        estate.reducer(name)(lambda items: 0)
    with pytest.raises(estate.NoReducer, match=name):
        es.get_global("a", "no such")


def test_a_reducer_may_use_the_estate(es: Estate) -> None:
    es.set("k", 1)
    total = es.get_global("k", lambda items: es.get("k") + es.get_global("k", "sum"))
    assert total == 2


def test_what_a_call_does_not_understand(es: Estate) -> None:
    wrong: list[dict[str, Any]] = [
        {"pattern": "sql"},
        {"require": "most"},
        {"require": -1},
        {"timeout": -1.0},
        {"timeout": float("nan")},
        {"consistency": estate.Cached(-1.0)},
    ]
    for options in wrong:
        with pytest.raises((ValueError, OverflowError)):
            es.get_global("k", "sum", **options)
    with pytest.raises(TypeError, match="list of flows"):
        es.take("f", "n1", 1)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"node": ""}, "node"),
        ({"cluster": "x" * 256}, "cluster"),
        ({"backend": "mysql://x"}, "redis://"),
        ({"backend": "redis://host:port"}, "backend"),
        ({"failure_after": 0.0}, "failure_after"),
        ({"timeout": 1e9}, "timeout"),
    ],
)
def test_what_cannot_be_opened(options: dict[str, Any], says: str) -> None:
    full = {"cluster": "c", "node": "n", "backend": "local", **options}
    with pytest.raises(estate.OptionInvalid, match=says):
        estate.open(**full)


def test_a_server_that_is_not_there() -> None:
    with pytest.raises(estate.BackendFailed, match=r"redis://127\.0\.0\.1:1"):
        estate.open(cluster="c", node="n", backend="redis://127.0.0.1:1")


def test_a_server_that_comes_back(tmp_path: Path) -> None:
    from redis_servers import redis_server

    with (
        redis_server(tmp_path / "redis") as server,
        estate.open(cluster="c", node="n", backend=server.url, timeout=5.0) as es,
    ):
        es.set("k", 1)
        server.stop()
        with pytest.raises(estate.BackendFailed):
            es.get("k")
        server.start()
        es.set("k", 2)
        wait_until(lambda: es.members() == ["n"], "it is no member of the new server")
        assert es.get_global("k", "sum") == 2


def test_errors_are_what_python_programs_catch() -> None:
    for error, base in (
        (estate.TypeConflict, TypeError),
        (estate.KeyInvalid, ValueError),
        (estate.IncompleteError, TimeoutError),
        (estate.BackendFailed, ConnectionError),
        (estate.NoMember, LookupError),
        (estate.Unsupported, NotImplementedError),
    ):
        assert issubclass(error, estate.EstateError)
        assert issubclass(error, base)


# --- memory ---


def test_a_million_keys(es: Estate) -> None:
    for number in range(1_000_000):
        es.set(f"k/{number}", number)
    assert es.statistics()["items"] == 1_000_000
    assert es.get_global("k/*", "sum", pattern="glob", timeout=30) == 499_999_500_000
    assert es.get_global("k/99999?", "count", pattern="glob", timeout=30) == 10
    assert es.get_global(r"k/\d*7", "max", pattern="regex", timeout=30) == 999_997
    assert len(es.keys()) == 1_000_000


def test_nothing_is_kept_of_what_was_let_go(es: Estate) -> None:
    class Marked(str):
        __slots__ = ("__weakref__",)

    value = Marked("x" * 1000)
    gone = weakref.ref(value)
    es.set("k", value)
    del value
    gc.collect()
    assert gone() is None


def fill(es: Estate) -> None:
    for number in range(1000):
        es.set(f"k{number}", b"x" * 1000)


def test_a_limit_evicts_what_has_a_time_to_live_and_then_refuses() -> None:
    with estate.open(cluster="c", node="n", backend="local", memory_limit=200_000) as es:
        for number in range(1000):
            es.set(f"brief/{number}", b"x" * 1000, ttl=600)
        figures = es.statistics()
        assert figures["bytes"] <= 200_000
        assert figures["evicted"] > 0
        with pytest.raises(estate.MemoryFull) as caught:
            fill(es)
        assert caught.value.key.startswith("k")
        assert es.statistics()["bytes"] <= 200_000


# --- types ---

TYPED = """
from flowferry import estate
from flowferry.estate import Item

with estate.open(cluster="c", node="n") as es:
    reveal_type(es.get_global("k", "sum"))
    reveal_type(es.get_global("k", lambda items: [item.key for item in items]))
    reveal_type(es.view_global("k", lambda items: len(items)).value)
    reveal_type(es.add("k"))
    reveal_type(es.item("k").add(1))
    es.get_global("k", "sum", patern="glob")
    es.get_global("k", "sum", pattern="sql")
    es.add("k", "1")


async def awaited() -> None:
    async with await estate.aopen(cluster="c", node="n") as es:
        reveal_type(await es.get_global("k", "sum"))
        reveal_type(await es.get_global("k", lambda items: [item.key for item in items]))
        reveal_type((await es.view_global("k", lambda items: len(items))).value)
        reveal_type(await es.get_item("k"))
        await es.set("k", 1, tll=5)
        await es.joint(1, ["n1"], sett={"k": 1})
"""


def test_types_are_told(tmp_path: Path) -> None:
    file = tmp_path / "typed.py"
    file.write_text(TYPED)
    argv = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", str(file)]
    env = {**os.environ, "MYPYPATH": str(Path(estate.__file__).parents[2])}
    done = subprocess.run(argv, capture_output=True, text=True, env=env, cwd=tmp_path, timeout=200)
    lines = [line.split(": ", 1)[1] for line in done.stdout.splitlines()]
    notes = [line for line in lines if line.startswith("note: Revealed")]
    assert [note.split('"')[1].replace("builtins.", "") for note in notes] == [
        "bytes | str | int | float | None",
        "list[str] | None",
        "int | None",
        "int",
        "int",
        "bytes | str | int | float | None",
        "list[str] | None",
        "int | None",
        "flowferry._native.EstateFound | None",
    ]
    wrong = {line.split(":")[1] for line in done.stdout.splitlines() if ": error: " in line}
    assert wrong == {"11", "12", "13", "22", "23"}, done.stdout
