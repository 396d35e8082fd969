"""`flowferry state` on real instances: at their doors, and from outside."""

import json
import secrets
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from estate_members import stop
from redis_servers import Server, free_ports, wait_until

from flowferry import estate
from flowferry.estate import door

FLOWFERRY = Path(sys.executable).with_name("flowferry")

Run = Callable[..., subprocess.CompletedProcess[Any]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run `flowferry state …` with doors in a directory of this test's."""
    monkeypatch.setenv("FLOWFERRY_STATE_DIR", str(tmp_path / "doors"))

    def run(*words: str, **options: Any) -> subprocess.CompletedProcess[Any]:
        options = {"text": True, "timeout": 60, **options}
        argv = [str(FLOWFERRY), "state", *words]
        return subprocess.run(argv, capture_output=True, check=False, **options)

    return run


@pytest.fixture
def join() -> Iterator[Callable[..., tuple[subprocess.Popen[str], dict[str, Any]]]]:
    """Start `flowferry state join`; gives the process and what it says when it is a member."""
    with ExitStack() as stack:

        def start(*words: str) -> tuple[subprocess.Popen[str], dict[str, Any]]:
            argv = [str(FLOWFERRY), "state", "join", "--json", *words]
            process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
            stack.callback(process.wait, timeout=30)
            stack.callback(process.kill)
            assert process.stdout is not None
            stack.callback(process.stdout.close)
            return process, json.loads(process.stdout.readline())

        yield start


def said(done: subprocess.CompletedProcess[str]) -> Any:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def refused(done: subprocess.CompletedProcess[str], status: int) -> str:
    assert done.returncode == status, done.stdout + done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("Error: ")
    return last


def test_an_instance_from_joining_to_leaving(run: Run, join: Any) -> None:
    process, told = join("--cluster", "c", "--node", "nf1", "--backend", "local")
    assert told["members"] == ["nf1"]
    assert Path(told["socket"]).is_socket()
    assert Path(told["socket"]).stat().st_mode & 0o777 == 0o600
    assert run("set", "hits", "5").returncode == 0
    assert run("add", "hits", "-7").stdout == "-2\n"
    assert run("get", "hits").stdout == "-2\n"
    item = said(run("get", "hits", "--json"))
    assert (item["type"], item["value"], item["node"]) == ("int", -2, "nf1")
    assert said(run("keys", "--json"))["keys"] == ["hits"]
    view = said(run("global", "hits", "--reduce", "sum", "--json"))
    assert (view["value"], view["answered"], view["complete"]) == (-2, ["nf1"], True)
    assert said(run("members", "--json"))["members"] == ["nf1"]
    assert said(run("delete", "hits", "--json"))["deleted"] is True
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=10) == 0
    assert not Path(told["socket"]).exists()
    assert "flowferry state join" in refused(run("get", "hits"), 1)


@pytest.mark.parametrize(
    ("words", "kind", "value"),
    [
        (["7"], "int", 7),
        (["7.5"], "float", 7.5),
        (["seven"], "str", "seven"),
        (["7", "--type", "str"], "str", "7"),
        (["7", "--type", "float"], "float", 7.0),
        (["00ff", "--type", "bytes"], "bytes", "AP8="),
    ],
)
def test_what_is_set_has_the_type_that_it_looks_like(
    run: Run, join: Any, words: list[str], kind: str, value: Any
) -> None:
    join("--node", "nf1", "--backend", "local")
    said(run("set", "k", *words, "--json"))
    item = said(run("get", "k", "--json"))
    assert (item["type"], item["value"]) == (kind, value)


def test_any_bytes_go_in_and_out(run: Run, join: Any) -> None:
    join("--node", "nf1", "--backend", "local")
    big = secrets.token_bytes(1_000_000)
    assert run("set", "k", "-", input=big, text=False).returncode == 0
    assert run("get", "k", "--raw", text=False).stdout == big


def test_what_cannot_be_done_is_one_line_and_a_status(run: Run, join: Any) -> None:
    join("--node", "nf1", "--backend", "local")
    said(run("set", "text", "x", "--json"))
    assert "no item 'nope'" in refused(run("get", "nope"), 1)
    assert "no item 'nope'" in refused(run("delete", "nope"), 1)
    assert "holds str, not int" in refused(run("add", "text"), 1)
    assert "key 'text'" in refused(run("global", "text", "--reduce", "sum"), 1).replace('"', "'")
    assert "1,024" in refused(run("set", "", "x"), 2)
    assert "is no pattern" in refused(run("keys", "(", "--regex"), 2)
    assert "is no int" in refused(run("set", "k", "x", "--type", "int"), 2)
    assert "not both" in refused(run("global", "k", "--glob", "--regex"), 2)
    assert "quorum" in refused(run("global", "k", "--require", "most"), 2)
    assert "nf7" in refused(run("get", "text", "--node", "nf7"), 1)


def test_which_instance_is_asked_when_there_are_two(run: Run, join: Any) -> None:
    join("--node", "nf1", "--backend", "local")
    join("--node", "nf2", "--backend", "local")
    assert "nf1" in refused(run("keys"), 1)
    said(run("set", "k", "1", "--node", "nf2", "--json"))
    assert said(run("keys", "--node", "nf1", "--json"))["keys"] == []
    assert said(run("keys", "--node", "nf2", "--json"))["keys"] == ["k"]


def test_a_cluster_is_looked_into_from_outside(run: Run, join: Any, one_redis: Server) -> None:
    where = ["--cluster", f"c{secrets.token_hex(4)}", "--backend", one_redis.url]
    join(*where, "--node", "nf1")
    join(*where, "--node", "nf2")
    said(run("set", "k", "3", "--node", "nf1", "--json"))
    said(run("set", "k", "4", "--node", "nf2", "--json"))
    view = said(run("global", "k", *where, "--reduce", "sum", "--json"))
    assert view["value"] == 7
    assert said(run("members", *where, "--json"))["members"] == ["nf1", "nf2"]
    assert "--node" in refused(run("keys", *where), 2)
    assert "nf1" in refused(run("join", *where, "--node", "nf1"), 1)


@pytest.fixture
def pair(run: Run, join: Any) -> subprocess.Popen[str]:
    """Members nf1 and nf2 with some items; the process of the second."""
    place = f"127.0.0.1:{free_ports(1)[0]}"
    # A member that is stopped stays expected for as long as a test takes.
    here = ["--cluster", "pair", "--failure-after", "60"]
    join(*here, "--node", "nf1", "--listen", place)
    process: subprocess.Popen[str]
    process, told = join(*here, "--node", "nf2", "--peer", place)
    assert told["members"] == ["nf1", "nf2"]
    assert said(run("members", "--node", "nf1", "--json"))["members"] == ["nf1", "nf2"]
    for node, key, value in (("nf1", "a/1", "3"), ("nf2", "a/1", "4"), ("nf2", "a/22", "10")):
        said(run("set", key, value, "--node", node, "--json"))
    return process


@pytest.mark.parametrize(
    ("words", "value"),
    [
        (["a/1"], 7),
        (["a/1", "--snapshot"], 7),
        (["a/1", "--cached", "5"], 7),
        (["a/*", "--glob"], 17),
        (["a/?", "--glob"], 7),
        (["a/*"], None),
        ([r"a/\d{2}", "--regex"], 10),
        ([r"a/\d+", "--regex", "--snapshot"], 17),
        (["a/1", "--require", "1", "--timeout", "10"], 7),
        (["a/1", "--require", "quorum"], 7),
    ],
    ids=str,
)
def test_all_members_are_read(run: Run, pair: Any, words: list[str], value: int | None) -> None:
    view = said(run("global", *words, "--reduce", "sum", "--node", "nf1", "--json"))
    assert view["value"] == value
    assert (view["answered"], view["missing"], view["complete"]) == (["nf1", "nf2"], [], True)


def test_a_member_that_is_stopped_is_named(run: Run, pair: subprocess.Popen[str]) -> None:
    read = ["global", "a/1", "--reduce", "sum", "--node", "nf1", "--timeout", "0.3"]
    stop(pair)
    done = run(*read, "--json")
    assert "no answer in time from nf2" in refused(done, 1)
    view = json.loads(done.stdout)
    assert (view["value"], view["missing"], view["complete"]) == (3, ["nf2"], False)
    done = run(*read)
    assert "missing: nf2" in done.stderr
    assert "nf2" in refused(done, 1)
    assert done.stdout.splitlines()[-1] == "3"
    assert "nf2" in refused(run(*read, "--require", "2"), 1)
    assert "nf2" in refused(run(*read, "--require", "quorum"), 1)
    assert said(run(*read, "--require", "1", "--json"))["value"] == 3
    pair.send_signal(signal.SIGCONT)
    assert said(run(*read[:-2], "--timeout", "10", "--json"))["value"] == 7


def test_flows_are_taken_from_another_member(run: Run, pair: Any) -> None:
    for name in ("packets", "bytes"):
        said(run("set", f"flow:x/{name}", "5", "--node", "nf2", "--json"))
    take = ["take", "flow:x", "--from", "nf2", "--move-id", "7", "--node", "nf1"]
    assert run(*take).stdout == "2 items moved from nf2 to nf1\n"
    assert said(run(*take, "--json"))["move_id"] == 7, "a move can be repeated"
    assert said(run("keys", "flow:*", "--node", "nf2", "--json"))["keys"] == []
    assert said(run("keys", "flow:*", "--node", "nf1", "--json"))["keys"] == [
        "flow:x/bytes",
        "flow:x/packets",
    ]
    assert (
        said(run("global", "flow:x/*", "--glob", "--reduce", "sum", "--node", "nf1", "--json"))[
            "value"
        ]
        == 10
    )
    assert "nf9" in refused(run("take", "flow:x", "--from", "nf9", "--node", "nf1"), 1)


def test_what_cannot_be_given_up_or_is_not_dead_is_said(run: Run, pair: Any) -> None:
    here = ["--node", "nf1"]
    assert "no move 0x5 to nf1 can be given up" in refused(run("abort-take", "5", *here), 1)
    assert "--its-process-has-ended" in refused(run("declare-dead", "nf2", *here), 2)
    vouched = ["--its-process-has-ended", *here]
    assert "nf2 is a live member" in refused(run("declare-dead", "nf2", *vouched), 2)
    assert "no member that has gone" in refused(run("declare-dead", "nf3", *vouched), 1)
    pair.kill()
    pair.wait(30)

    def gone() -> bool:
        return bool(said(run("members", "--json", *here))["members"] == ["nf1"])

    wait_until(gone, "a killed member stays a member")
    told = said(run("declare-dead", "nf2", "--json", *vouched))
    assert told == {"node": "nf1", "member": "nf2", "moves": 0}
    done = run("declare-dead", "nf2", *vouched)
    assert done.stdout == "nf2 is dead to nf1; 0 moves that waited for it are decided\n"


def test_figures_and_tables_for_people(run: Run, pair: Any) -> None:
    figures = said(run("statistics", "--node", "nf2", "--json"))
    assert (figures["node"], figures["items"]) == ("nf2", 2)
    shown = dict(
        line.rsplit(None, 1) for line in run("statistics", "--node", "nf2").stdout.splitlines()
    )
    assert (shown["node"], shown["items"]) == ("nf2", "2")
    assert {name.replace("_", " ") for name in figures} == set(shown)
    done = run("global", "a/*", "--glob", "--node", "nf1")
    assert done.returncode == 0
    head, *rows = [line.split() for line in done.stdout.splitlines()]
    assert head == ["key", "node", "value", "written"]
    assert sorted(row[:3] for row in rows) == [
        ["a/1", "nf1", "3"],
        ["a/1", "nf2", "4"],
        ["a/22", "nf2", "10"],
    ]
    assert "answered: nf1, nf2" in done.stderr
    nobody = run("global", "none", "--node", "nf1")
    assert (nobody.returncode, nobody.stdout) == (0, "")
    assert "nobody has such an item" in nobody.stderr


def test_changes_are_printed_as_they_happen(run: Run, join: Any) -> None:
    _, told = join("--node", "nf1", "--backend", "local")
    argv = [str(FLOWFERRY), "state", "watch", "w/*", "--count", "2", "--json"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as watching:
        assert watching.stdout is not None
        client = door.Client(told["socket"])

        def written() -> bool:
            client.ask({"do": "set", "key": "w/1", "type": "int", "value": 1})
            client.ask({"do": "set", "key": "else", "type": "int", "value": 1})
            client.ask({"do": "delete", "key": "w/1"})
            return watching.poll() is not None

        wait_until(written, "the watch does not end")
        client.close()
        events = [json.loads(line) for line in watching.stdout]
    assert len(events) == 2
    assert all((event["node"], event["key"]) == ("nf1", "w/1") for event in events)
    assert watching.returncode == 0


def test_a_function_opens_a_door_of_its_own(run: Run) -> None:
    with estate.open(cluster="c", node="mine", backend="local") as es, door.serve(es):
        es.set("k", "from within")
        assert run("get", "k", "--node", "mine").stdout == "from within\n"
        assert run("set", "k", "from outside").returncode == 0
        assert es.get("k") == "from outside"
        with pytest.raises(estate.OptionInvalid, match="listens"), door.serve(es):
            pass
    assert door.doors() == []


def test_a_door_left_behind_by_a_crash_is_opened_again(run: Run, join: Any) -> None:
    process, told = join("--node", "nf1", "--backend", "local")
    process.kill()
    process.wait(timeout=10)
    assert Path(told["socket"]).exists()
    assert "no instance answers" in refused(run("keys"), 1)
    join("--node", "nf1", "--backend", "local")
    assert run("keys").returncode == 0
