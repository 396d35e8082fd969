"""The journal: what was written is there again, whole, whoever died."""

import multiprocessing
import os
import signal
import sqlite3
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest
from test_partition import model, rule

from flowferry.controller.change import Change
from flowferry.controller.handover import Handover
from flowferry.controller.match import parse
from flowferry.controller.model import UPSTREAM, Instance
from flowferry.controller.partition import Part
from flowferry.controller.store import Record, Store, StoreError, read_peer, write_peer
from flowferry.controller.strategies.base import HandoverState, Report, Settings
from flowferry.wire import Peer


def test_rules_instances_and_defaults_come_back(tmp_path: Path) -> None:
    store = Store(tmp_path / "j.db")
    changed = model().with_rule(replace(rule(3, "udp,tp_dst=80", 7, 2), before_equal=True))
    changed = changed.with_default("nf", 2)
    store.save_rules(changed)
    added = Instance(
        "i9", 9, "nf", 19, 29, Peer(9, ip_address("fd00::9"), 7001), ("02:00:00:00:00:09",)
    )
    store.save_instances(model(), model().with_instance(added).without_instance(3))
    store.close()
    found = Store(tmp_path / "j.db").restore(model())
    assert found.rules == changed.rules
    assert found.defaults == {"nf": 2}
    assert sorted(found.instances) == [1, 2, 9]
    assert found.instances[9] == added


def test_numbers_are_never_given_twice(tmp_path: Path) -> None:
    store = Store(tmp_path / "j.db")
    assert [store.next_number("handover") for _ in range(3)] == [1, 2, 3]
    assert store.next_number("rule") == 1
    store.close()
    assert Store(tmp_path / "j.db").next_number("handover") == 4


def test_boots_rise_also_when_the_clock_stands_or_the_journal_is_new(tmp_path: Path) -> None:
    store = Store(tmp_path / "j.db")
    assert [store.next_boot(now) for now in (1000.0, 1000.0, 900.0, 5000.9)] == [
        1000,
        1001,
        1002,
        5000,
    ]
    assert Store(tmp_path / "new.db").next_boot(6000.0) > store.next_boot(5000.0)


def test_a_handover_reads_back(tmp_path: Path) -> None:
    part = Part(1, parse("udp"), (parse("udp,tp_dst=80"),), 1, 2, (UPSTREAM,), 100)
    handover = Handover(
        7, "nf", "udp", "i2", "direct", True, Settings(settling_ms=5), 12.5,
        change=Change("nf", (rule(3, "udp", 100, 2),), (4,)),
        undo=Change("nf", drop=(3,)), back={2}, priority=100, rule=3, parts=(part,),
        state=HandoverState.FENCING, report=Report(3, flags=("unfenced",), parts={1: "fencing"}),
        step="turned", data={"a": [1]},
    )  # fmt: skip
    handover.note("a line")
    store = Store(tmp_path / "j.db")
    store.save_handover(Record(7, False, handover.as_record()))
    store.close()
    (record,) = Store(tmp_path / "j.db").handovers()
    assert not record.over
    assert Handover.from_record(record.body) == handover


def test_together_is_all_or_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path / "j.db")
    try:
        with store.together():
            store.save_rules(model().with_rule(rule(3, "udp", 7, 2)))
            raise KeyError
    except KeyError:
        pass
    assert store.restore(model()).rules == {}


def _write_and_die(path: Path) -> None:
    store = Store(path)
    store.save_rules(model().with_rule(rule(3, "udp", 7, 2)))
    store._db.execute("BEGIN IMMEDIATE")
    store.save_rules(model())
    os.kill(os.getpid(), signal.SIGKILL)


def test_what_was_committed_survives_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "j.db"
    process = multiprocessing.get_context("fork").Process(target=_write_and_die, args=(path,))
    process.start()
    process.join(30)
    assert process.exitcode == -signal.SIGKILL
    assert list(Store(path).restore(model()).rules) == [3]


def test_one_controller_has_the_journal(tmp_path: Path) -> None:
    store = Store(tmp_path / "j.db")
    with pytest.raises(StoreError, match="end the other controller"):
        Store(tmp_path / "j.db")
    store.close()


def test_a_journal_that_is_none_is_refused_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "j.db").write_bytes(b"no database at all, but long enough to be looked at" * 30)
    with pytest.raises(StoreError, match="move it away"):
        Store(tmp_path / "j.db")
    with pytest.raises(StoreError, match="make its directory"):
        Store(tmp_path / "missing" / "j.db")
    with sqlite3.connect(tmp_path / "other.db") as other:
        other.execute("PRAGMA user_version=99")
    with pytest.raises(StoreError, match="version 99"):
        Store(tmp_path / "other.db")


@pytest.mark.parametrize("text", ["10.0.0.1:7001", "[fd00::1]:7001"])
def test_addresses_of_streams(text: str) -> None:
    assert write_peer(read_peer(1, text)) == text
    with pytest.raises(ValueError, match="possible port"):
        read_peer(1, "10.0.0.1:0")
