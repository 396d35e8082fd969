"""The state store beside what else there is: dict, a C hash table, Redis, UDP and ZeroMQ.

Local operations in C and Python; global reads in Rust, C and Python at 2 to 16 instances, each a
process; a sum over many keys; a move of many items. Each case has its yardstick measured in the
same passes, in turn. Lower is better where the unit is a time; the goal says which way it counts.
"""

import random
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

from flowferry import estate
from flowferry.bench.arms import say
from flowferry.bench.report import Case, Goal, Report
from flowferry.bench.settings import Settings
from flowferry.bench.state_cases import case, judged
from flowferry.bench.state_local import against_redis, in_c, in_python
from flowferry.bench.state_members import Members, members
from flowferry.bench.state_native import CPrograms, Yardsticks
from flowferry.bench.state_redis import estates, redis_url
from flowferry.estate import Cached, Consistency, Estate, Live

TITLE = "Local state and global reads beside dict, a C hash table, Redis, UDP and ZeroMQ"
INSTANCES = (2, 4, 8, 16)
LIVE = Live()


def run(settings: Settings) -> Report:
    """All cases; the settings choose."""
    report = Report("state", TITLE, settings.to_dict())
    parts: list[tuple[str, Callable[[Settings], Iterator[Case]]]] = [
        ("c", in_c),
        ("python", in_python),
        ("python-redis", against_redis),
        ("live", _live),
        ("python-live", _python_live),
        ("cached", _cached),
        ("sum", _sum),
        ("take", _take),
        ("idle", _idle),
        ("silent", _silent),
        ("failure", _failure),
    ]
    for name, cases in parts:
        # A part is run if any of its cases may be wanted: their names begin with the part's.
        if settings.wants(name) or settings.only.lstrip("^").startswith(f"{name}-"):
            say(f"state: {name}")
            report.cases += [case for case in cases(settings) if settings.wants(case.name)]
    return report


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
                    yield case(name, about, "µs", arms, Goal(most=most))


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
    return case(name, title, "µs", arms, None)


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
            yield judged(f"cached-{count}-c", title, "µs", values, 2.0)
            with members(count) as others:
                _everywhere(others)
                ask = _asker(others.es, Cached(1.0))
                values = [_median_us(ask, settings.seconds / 10) for _ in range(settings.passes)]
            title = f"Python get_global Cached, {count} instances"
            yield judged(f"cached-{count}-python", title, "µs", values, 4.0)


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
        yield judged("sum-time", title, "ms", arms["estate"], 20.0)
    per_second = {name: [1000 / value for value in values] for name, values in arms.items()}
    yield case("sum-redis", f"{title}, against SCAN and MGET", "1/s", per_second, Goal(20.0))


def _fill_servers(servers: list[Estate], keys: int) -> None:
    def fill(es: Estate) -> None:
        for number in range(keys):
            es.set(f"sum/{number:06}", 1)

    with ThreadPoolExecutor(len(servers)) as pool:
        list(pool.map(fill, servers))


FLOWS, PER_FLOW = 10_000, 10


def _take(settings: Settings) -> Iterator[Case]:
    times: list[float] = []
    frozen: list[float] = []
    stalls: dict[int, list[float]] = {100: [], FLOWS: []}
    names = [f"s{number}" for number in range(FLOWS)]
    with members(2) as both:
        for _ in range(min(settings.passes, 5)):
            for written in (0, *stalls):
                for part in range(PER_FLOW):
                    both.fill(f"flow:s%d/{part}", FLOWS, "100")
                if written:
                    stalls[written].append(_stall(both, names, written))
                else:
                    began = time.perf_counter()
                    moved = both.es.take(names, "m00", random.getrandbits(63))
                    times.append(time.perf_counter() - began)
                    # And what was written there after the items of the pass before had gone.
                    assert FLOWS * PER_FLOW <= moved < FLOWS * PER_FLOW + FLOWS, moved
                    frozen.append(both.es.statistics()["last_take_frozen_us"] / 1000)
                for key in both.es.keys("flow:*"):
                    both.es.delete(key)
    yield judged("take-time", "take of 100,000 items of 100 bytes", "s", times, 0.5)
    yield judged("take-freeze", "of that, frozen at the source", "ms", frozen, 10.0)
    title = "take while {} flows are written: from the last write there to the first one here"
    yield judged("take-writer-100", title.format("100"), "ms", stalls[100], 10.0)
    # Each of the 10,000 is written again in the time that copying them takes.
    yield judged("take-writer-all", title.format("all"), "ms", stalls[FLOWS], 10.0)


def _stall(both: Members, names: list[str], written: int) -> float:
    """ms from the last successful write at the source to the first at the destination."""
    both.fill("flow:s%d/n", FLOWS, "int")
    both.write("flow:s%d/n", written)
    with ThreadPoolExecutor(1) as pool:
        taking = pool.submit(both.es.take, names, "m00", random.getrandbits(63))
        counter = both.es.item(f"flow:{names[0]}/n")
        # What has arrived can be read, and not written before it is this instance's.
        while counter.get() is None and not taking.done():
            time.sleep(0)
        while True:
            try:
                counter.add(1)
                break
            except estate.Frozen:
                time.sleep(0)
        first = time.monotonic()
        assert taking.result() == FLOWS * (PER_FLOW + 1)
    return (first - both.last_write()) * 1000


def _idle(settings: Settings) -> Iterator[Case]:
    with members(16) as others:
        values = [others.idle_percent(1.0) for _ in range(min(settings.passes, 5))]
    yield judged("idle-cpu", "CPU of an idle member of 16", "%", values, 1.0)


def _silent(settings: Settings) -> Iterator[Case]:
    usual: dict[str, list[float]] = {"all run": [], "one stopped": []}
    worst: dict[str, list[float]] = {"all run": [], "one stopped": []}
    with members(3, failure_after=60.0) as others, ThreadPoolExecutor(1) as pool:
        counter = others.es.item("counter")
        for _ in range(settings.passes):
            _each_ns(counter, usual["all run"], worst["all run"])
            with others.one_stopped():
                reading = pool.submit(others.es.view_global, "counter", "sum", timeout=9.0)
                _each_ns(counter, usual["one stopped"], worst["one stopped"])
                assert not reading.done(), "the read did not wait for the member that is stopped"
            reading.result()
    title = "Python add by handle, one by one, while a read waits for a stopped member"
    yield case("silent-add", title, "ns", usual, None)
    yield case("silent-add-999", f"{title}: one in 1,000", "ns", worst, None)


def _each_ns(counter: estate.ItemHandle, usual: list[float], worst: list[float]) -> None:
    """Median and 99.9th percentile of 200,000 additions, each with a reading of the clock."""
    times: list[int] = []
    clock = time.perf_counter_ns
    for _ in range(200_000):
        began = clock()
        counter.add(1)
        times.append(clock() - began)
    times.sort()
    usual.append(times[len(times) // 2])
    worst.append(times[len(times) * 999 // 1000])


#: Seconds after which a member that is not missed is a fault.
GONE = 30.0


def _failure(settings: Settings) -> Iterator[Case]:
    killed: list[float] = []
    stopped: list[float] = []
    for _ in range(min(settings.passes, 5)):
        with members(3) as others:
            began = time.monotonic()
            with others.one_stopped():
                stopped.append(_gone_at(others.es) - began)
            began = time.monotonic()
            others.kill_one()
            killed.append(_gone_at(others.es) - began)
    yield judged("failure-killed", "a killed member is no member after", "s", killed, 1.0)
    arms = {"failure_after": [1.0] * len(stopped), "estate": stopped}
    yield case("failure-stopped", "a stopped member is no member after", "s", arms, None)


def _gone_at(es: Estate) -> float:
    """When the third member is none any more, by `time.monotonic`."""
    patience = time.monotonic() + GONE
    while len(es.members()) == 3:
        if time.monotonic() > patience:
            raise RuntimeError(f"a member that is gone is a member for {GONE:g} s")
        time.sleep(0.001)
    return time.monotonic()
