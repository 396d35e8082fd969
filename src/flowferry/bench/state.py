"""The state store beside what else there is: dict, a C hash table, Redis, UDP and ZeroMQ.

Local operations in C and Python; global reads in Rust, C and Python at 2 to 16 instances, each a
process; a sum over many keys; a move of many items. Each case has its yardstick measured in the
same passes, in turn. Lower is better where the unit is a time; the goal says which way it counts.
"""

import random
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

from flowferry import estate
from flowferry.bench.arms import say
from flowferry.bench.report import Case, Goal, Report
from flowferry.bench.settings import Settings
from flowferry.bench.state_members import Members, members
from flowferry.bench.state_native import CPrograms, Yardsticks
from flowferry.bench.state_redis import estates, redis_url
from flowferry.estate import Cached, Consistency, Estate, Live

TITLE = "Local state and global reads beside dict, a C hash table, Redis, UDP and ZeroMQ"
VALUE = bytes(64)
KEYS = [f"bench/counter/{number:06}" for number in range(1000)]
INSTANCES = (2, 4, 8, 16)
LIVE = Live()


def run(settings: Settings) -> Report:
    """All cases; the settings choose."""
    report = Report("state", TITLE, settings.to_dict())
    parts: list[tuple[str, Callable[[Settings], Iterator[Case]]]] = [
        ("c", _c),
        ("python", _python),
        ("python-redis", _against_redis),
        ("live", _live),
        ("python-live", _python_live),
        ("cached", _cached),
        ("sum", _sum),
        ("take", _take),
        ("idle", _idle),
    ]
    for name, cases in parts:
        # A part is run if any of its cases may be wanted: their names begin with the part's.
        if settings.wants(name) or settings.only.startswith(f"{name}-"):
            say(f"state: {name}")
            report.cases += [case for case in cases(settings) if settings.wants(case.name)]
    return report


def _case(
    name: str, title: str, unit: str, arms: dict[str, list[float]], goal: Goal | None
) -> Case:
    baseline, candidate = arms
    return Case(name, title, unit, baseline, candidate, arms, goal)


def _value(name: str, title: str, unit: str, values: list[float], most: float) -> Case:
    """A figure with a goal of its own; the other arm is the goal."""
    arms = {"goal": [most] * len(values), "estate": values}
    return _case(name, title, unit, arms, Goal(measure="value", most=most))


def _c(settings: Settings) -> Iterator[Case]:
    with ExitStack() as stack:
        programs = CPrograms()
        stack.callback(programs.close)
        url = stack.enter_context(redis_url("redis+unix"))
        told = [programs.local(url) for _ in range(min(settings.passes, 3))]
    for number, row in enumerate(told[0]["p50_ns"]):
        keys = row["keys"]
        judged = keys == 10_000
        for what, most in (("set", 120.0), ("get", 60.0)):
            arms = {
                "hash table": [each["p50_ns"][number][f"plain_{what}"] for each in told],
                "estate": [each["p50_ns"][number][what] for each in told],
            }
            goal = Goal(measure="value", most=most) if judged else None
            yield _case(f"c-{what}-{keys}", f"C {what}, {keys:,} keys", "ns", arms, goal)
    for what in ("set", "get"):
        # Operations a second: the gain is how many times as many.
        arms = {
            "redis": [1e9 / each["redis"][f"redis_{what}"] for each in told],
            "estate": [1e9 / each["redis"][what] for each in told],
        }
        title = f"C {what} against Redis on a UNIX socket"
        yield _case(f"c-redis-{what}", title, "op/s", arms, Goal(300.0))
    adds = [each["handle_add_ns"] for each in told]
    yield _value("c-add", "C add by an item handle", "ns", adds, 15.0)
    for number, row in enumerate(told[0]["million_per_second"]):
        for what in ("set", "get"):
            arms = {
                "hash table": [e["million_per_second"][number][f"plain_{what}"] for e in told],
                "estate": [each["million_per_second"][number][what] for each in told],
            }
            threads = row["threads"]
            title = f"C {what}, {threads} threads together"
            yield _case(f"c-threads-{what}-{threads}", title, "M op/s", arms, None)
    for keys, _ in told[0]["bytes_per_item_beyond_key_and_value"].items():
        beyond = [each["bytes_per_item_beyond_key_and_value"][keys] for each in told]
        name, title = f"c-memory-{keys}", f"memory beyond key and value, {int(keys):,} items"
        yield _value(name, title, "bytes", beyond, 120.0)


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


def _python(settings: Settings) -> Iterator[Case]:
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
    yield _case("python-set", "Python set", "ns", sets, Goal(most=6.0))
    yield _case("python-get", "Python get", "ns", gets, Goal(most=6.0))
    arms = {"dict": sets["dict"], "estate": adds}
    yield _case("python-add", "Python add by an item handle, in a lambda", "ns", arms, None)


def _against_redis(settings: Settings) -> Iterator[Case]:
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
        yield _case(f"python-redis-{name}", title, "op/s", arms, Goal(300.0))


def _live(settings: Settings) -> Iterator[Case]:
    """By Rust, C and Python: each beside the same two yardsticks, measured next to it."""
    yardsticks = Yardsticks()
    rounds = 2000 if settings.passes > 5 else 800
    with ExitStack() as stack:
        programs = CPrograms()
        stack.callback(programs.close)
        for count in INSTANCES:
            found: dict[str, list[float]] = {}
            for _ in range(min(settings.passes, 5)):
                told = yardsticks.run(["udp", "zmq", "estate"], [count - 1], rounds)
                told["c", 0] = _live_c(programs, count, settings)["live_us"]
                told["python", 0] = _live_python(count, settings)
                for (kind, _peers), value in told.items():
                    found.setdefault(kind, []).append(value)
            for kind, language in (("estate", "Rust"), ("c", "C"), ("python", "Python")):
                for other, most, title in (("udp", 4.0, "the UDP floor"), ("zmq", 1.0, "ZeroMQ")):
                    arms = {other: found[other], kind: found[kind]}
                    name = f"live-{count}-{language.lower()}-{other}"
                    about = f"{language} get_global Live, {count} instances, against {title}"
                    yield _case(name, about, "µs", arms, Goal(most=most))


def _everywhere(others: Members) -> None:
    """One item on each instance, with the value 1: `packets/0`."""
    others.es.set("packets/0", 1)
    others.fill("packets/%d", 1, "int")


def _live_c(programs: CPrograms, count: int, settings: Settings) -> dict[str, float]:
    # This process is one of the others here: the C program is the last instance.
    with members(count - 1) as others:
        _everywhere(others)
        return programs.global_reads(others.cluster, others.place, count, settings.seconds / 5)


def _live_python(count: int, settings: Settings) -> float:
    with members(count) as others:
        _everywhere(others)
        ask = _asker(others.es)
        if ask() != count:
            raise RuntimeError(f"a read of {count} instances gave {ask()}")
        return _median_us(ask, settings.seconds / 5)


def _median_us(ask: Callable[[], object], seconds: float, least: int = 20) -> float:
    ask()
    times: list[float] = []
    until = time.perf_counter() + seconds
    while len(times) < least or time.perf_counter() < until:
        began = time.perf_counter()
        ask()
        times.append((time.perf_counter() - began) * 1e6)
    return statistics.median(times)


def _python_live(settings: Settings) -> Iterator[Case]:
    for kind in ("redis", "redis+cluster"):
        with redis_url(kind) as url:
            for count in INSTANCES:
                yield _python_live_of(kind, url, count, settings)


def _python_live_of(kind: str, url: str, count: int, settings: Settings) -> Case:
    arms: dict[str, list[float]] = {kind: [], "estate": []}
    with members(count) as others, estates(url, count) as servers:
        _everywhere(others)
        for server in servers:
            server.set("packets/0", 1)
        for _ in range(settings.passes):
            for name, es in ((kind, servers[0]), ("estate", others.es)):
                ask = _asker(es)
                arms[name].append(_median_us(ask, settings.seconds / 10))
    name = f"python-live-{count}-{kind.replace('+', '-')}"
    title = f"Python get_global Live, {count} instances, beside {kind}"
    return _case(name, title, "µs", arms, None)


def _asker(es: Estate, level: Consistency = LIVE) -> Callable[[], object]:
    return lambda: es.get_global("packets/0", "sum", consistency=level)


def _cached(settings: Settings) -> Iterator[Case]:
    with ExitStack() as stack:
        programs = CPrograms()
        stack.callback(programs.close)
        for count in (2, 16):
            passes = range(min(settings.passes, 5))
            values = [_live_c(programs, count, settings)["cached_us"] for _ in passes]
            title = f"C get_global Cached, {count} instances"
            yield _value(f"cached-{count}-c", title, "µs", values, 2.0)
            with members(count) as others:
                _everywhere(others)
                ask = _asker(others.es, Cached(1.0))
                values = [_median_us(ask, settings.seconds / 10) for _ in range(settings.passes)]
            title = f"Python get_global Cached, {count} instances"
            yield _value(f"cached-{count}-python", title, "µs", values, 4.0)


def _sum(settings: Settings) -> Iterator[Case]:
    keys = 100_000 if settings.passes > 5 else 10_000
    count = 8
    arms: dict[str, list[float]] = {"redis": [], "estate": []}
    with ExitStack() as stack:
        url = stack.enter_context(redis_url("redis"))
        servers = stack.enter_context(estates(url, count))
        others = stack.enter_context(members(count))
        others.fill("sum/%06d", keys, "int")
        for number in range(keys):
            others.es.set(f"sum/{number:06}", 1)
        _fill_servers(servers, keys)
        for _ in range(min(settings.passes, 5)):
            for name, es in (("redis", servers[0]), ("estate", others.es)):
                began = time.perf_counter()
                total = es.get_global("sum/*", "sum", pattern="glob", timeout=10.0)
                arms[name].append((time.perf_counter() - began) * 1000)
                assert total == keys * count, (name, total)
    title = f"sum over a pattern, {keys:,} keys on each of {count} instances"
    if keys == 100_000:
        yield _value("sum-time", title, "ms", arms["estate"], 20.0)
    per_second = {name: [1000 / value for value in values] for name, values in arms.items()}
    yield _case("sum-redis", f"{title}, against SCAN and MGET", "1/s", per_second, Goal(20.0))


def _fill_servers(servers: list[Estate], keys: int) -> None:
    from concurrent.futures import ThreadPoolExecutor

    def fill(es: Estate) -> None:
        for number in range(keys):
            es.set(f"sum/{number:06}", 1)

    with ThreadPoolExecutor(len(servers)) as pool:
        list(pool.map(fill, servers))


def _take(settings: Settings) -> Iterator[Case]:
    flows, per_flow = 10_000, 10
    times: list[float] = []
    frozen: list[float] = []
    names = [f"s{number}" for number in range(flows)]
    with members(2) as both:
        for _ in range(min(settings.passes, 5)):
            for part in range(per_flow):
                both.fill(f"flow:s%d/{part}", flows, "100")
            began = time.perf_counter()
            moved = both.es.take(names, "m00", random.getrandbits(63))
            times.append(time.perf_counter() - began)
            assert moved == flows * per_flow, moved
            frozen.append(both.es.statistics()["last_take_frozen_us"] / 1000)
            for key in both.es.keys("flow:*"):
                both.es.delete(key)
    yield _value("take-time", "take of 100,000 items of 100 bytes", "s", times, 0.5)
    yield _value("take-freeze", "of that, frozen at the source", "ms", frozen, 10.0)


def _idle(settings: Settings) -> Iterator[Case]:
    with members(16) as others:
        values = [others.idle_percent(1.0) for _ in range(min(settings.passes, 5))]
    yield _value("idle-cpu", "CPU of an idle member of 16", "%", values, 1.0)
