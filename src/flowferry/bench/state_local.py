"""Local state in C and Python, beside a C hash table, a dict and a Redis on a UNIX socket."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

from flowferry import estate
from flowferry.bench.report import Case, Goal
from flowferry.bench.settings import Settings
from flowferry.bench.state_cases import case, judged
from flowferry.bench.state_native import CPrograms
from flowferry.bench.state_redis import estates, redis_url
from flowferry.estate import Estate

VALUE = bytes(64)
KEYS = [f"bench/counter/{number:06}" for number in range(1000)]


def in_c(settings: Settings) -> Iterator[Case]:
    """`crates/estate/bench/local.c`: latencies, threads, memory, and Redis."""
    with ExitStack() as stack:
        programs = CPrograms()
        stack.callback(programs.close)
        url = stack.enter_context(redis_url("redis+unix"))
        told = [programs.local(url) for _ in range(min(settings.passes, 3))]
    for number, row in enumerate(told[0]["p50_ns"]):
        keys = row["keys"]
        has_goal = keys == 10_000
        for what, most in (("set", 120.0), ("get", 60.0)):
            arms = {
                "hash table": [each["p50_ns"][number][f"plain_{what}"] for each in told],
                "estate": [each["p50_ns"][number][what] for each in told],
            }
            goal = Goal(measure="value", most=most) if has_goal else None
            yield case(f"c-{what}-{keys}", f"C {what}, {keys:,} keys", "ns", arms, goal)
    for what in ("set", "get", "add"):
        # Operations a second: the gain is how many times as many.
        arms = {
            "redis": [1e9 / each["redis"][f"redis_{what}"] for each in told],
            "estate": [1e9 / each["redis"][what] for each in told],
        }
        by = " by an item handle" if what == "add" else ""
        title = f"C {what}{by} against Redis on a UNIX socket"
        yield case(f"c-redis-{what}", title, "op/s", arms, Goal(300.0))
    adds = [each["handle_add_ns"] for each in told]
    yield judged("c-add", "C add by an item handle", "ns", adds, 15.0)
    yield from _threads([each["million_per_second"] for each in told])
    for keys, _ in told[0]["bytes_per_item_beyond_key_and_value"].items():
        beyond = [each["bytes_per_item_beyond_key_and_value"][keys] for each in told]
        name, title = f"c-memory-{keys}", f"memory beyond key and value, {int(keys):,} items"
        yield judged(name, title, "bytes", beyond, 120.0)


def _threads(told: list[list[dict[str, Any]]]) -> Iterator[Case]:
    """One thread beside two, and, where there is one, the hash table beside the estate."""
    what_keys = {"shared": "the same keys", "own": "keys of their own", "apart": "estates apart"}
    by = {(row["keys"], row["threads"]): number for number, row in enumerate(told[0])}
    for keys, title in what_keys.items():
        one, two = ([each[by[keys, threads]] for each in told] for threads in (1, 2))
        for what in ("set", "get", "add"):
            arms = {"1 thread": [e[what] for e in one], "2 threads": [e[what] for e in two]}
            yield case(f"c-threads-{keys}-{what}", f"C {what}, {title}", "M op/s", arms, None)
            if keys != "apart" and what != "add":
                arms = {
                    "hash table": [e[f"plain_{what}"] for e in two],
                    "estate": arms["2 threads"],
                }
                about = f"C {what}, 2 threads, {title}, beside a hash table"
                yield case(f"c-threads-{keys}-{what}-plain", about, "M op/s", arms, None)


def _loop(operation: Callable[[str], object], seconds: float) -> float:
    """ns of an operation, in a loop over the keys, everything else the same for all arms."""
    rounds, spent = 0, 0.0
    while spent < seconds:
        began = time.perf_counter()
        for key in KEYS:
            operation(key)
        spent += time.perf_counter() - began
        rounds += 1
    return spent / rounds / len(KEYS) * 1e9


def _loop_set(store: Estate, seconds: float) -> float:
    rounds, spent = 0, 0.0
    put = store.set
    while spent < seconds:
        began = time.perf_counter()
        for key in KEYS:
            put(key, VALUE)
        spent += time.perf_counter() - began
        rounds += 1
    return spent / rounds / len(KEYS) * 1e9


def _loop_set_dict(store: dict[str, bytes], seconds: float) -> float:
    rounds, spent = 0, 0.0
    while spent < seconds:
        began = time.perf_counter()
        for key in KEYS:
            store[key] = VALUE
        spent += time.perf_counter() - began
        rounds += 1
    return spent / rounds / len(KEYS) * 1e9


def _loop_get_dict(store: dict[str, bytes], seconds: float) -> float:
    rounds, spent = 0, 0.0
    while spent < seconds:
        began = time.perf_counter()
        for key in KEYS:
            store[key]
        spent += time.perf_counter() - began
        rounds += 1
    return spent / rounds / len(KEYS) * 1e9


def in_python(settings: Settings) -> Iterator[Case]:
    """Beside a dict, in the same loop."""
    plain: dict[str, bytes] = {}
    sets: dict[str, list[float]] = {"dict": [], "estate": []}
    gets: dict[str, list[float]] = {"dict": [], "estate": []}
    adds: list[float] = []
    seconds = settings.seconds / 10
    with estate.open(cluster="bench", node="one") as es:
        counter = es.item("counter")
        for _ in range(settings.passes):
            sets["dict"].append(_loop_set_dict(plain, seconds))
            sets["estate"].append(_loop_set(es, seconds))
            gets["dict"].append(_loop_get_dict(plain, seconds))
            gets["estate"].append(_loop(es.get, seconds))
            adds.append(_loop(lambda _: counter.add(1), seconds))
    yield case("python-set", "Python set", "ns", sets, Goal(most=6.0))
    yield case("python-get", "Python get", "ns", gets, Goal(most=6.0))
    arms = {"dict": sets["dict"], "estate": adds}
    yield case("python-add", "Python add by an item handle, in a lambda", "ns", arms, None)


def against_redis(settings: Settings) -> Iterator[Case]:
    """Python beside a Redis, through the same API."""
    sets: dict[str, list[float]] = {"redis": [], "estate": []}
    gets: dict[str, list[float]] = {"redis": [], "estate": []}
    seconds = settings.seconds / 10
    with ExitStack() as stack:
        url = stack.enter_context(redis_url("redis+unix"))
        (server,) = stack.enter_context(estates(url, 1))
        es = stack.enter_context(estate.open(cluster="bench", node="one"))
        for _ in range(settings.passes):
            for name, one in (("redis", server), ("estate", es)):
                # Operations a second: the gain is how many times as many.
                sets[name].append(1e9 / _loop_set(one, seconds))
                gets[name].append(1e9 / _loop(one.get, seconds))
    for name, arms in (("set", sets), ("get", gets)):
        title = f"Python {name} against Redis on a UNIX socket"
        yield case(f"python-redis-{name}", title, "op/s", arms, Goal(300.0))
