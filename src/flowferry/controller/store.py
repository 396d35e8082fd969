"""What the controller must still know after a crash: an SQLite database, written ahead.

Rules in force, instances added at run time, and every handover with the step it has reached. A
commit survives `kill -9` at any instant (WAL, `synchronous=FULL`: also a power cut). One process
has the journal at a time.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from flowferry.controller.match import parse, text
from flowferry.controller.model import Instance, Model, Rule
from flowferry.wire import Peer

#: Handovers that are over and still listed after a restart.
KEPT = 1000
VERSION = 1
#: What `one_way` holds.
BOTH_WAYS, ONE_WAY, OTHER_WAY = 0, 1, 2
SCHEMA = """
CREATE TABLE IF NOT EXISTS numbers (name TEXT PRIMARY KEY, value INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS rules (
    id INTEGER PRIMARY KEY, grp TEXT, match TEXT, priority INTEGER, target INTEGER, one_way INTEGER,
    before_equal INTEGER
);
CREATE TABLE IF NOT EXISTS instances (id INTEGER PRIMARY KEY, body TEXT);
CREATE TABLE IF NOT EXISTS removed (id INTEGER PRIMARY KEY);
CREATE TABLE IF NOT EXISTS defaults (grp TEXT PRIMARY KEY, target INTEGER);
CREATE TABLE IF NOT EXISTS positions (sender INTEGER PRIMARY KEY, boot INTEGER, sequence INTEGER);
CREATE TABLE IF NOT EXISTS handovers (number INTEGER PRIMARY KEY, over INTEGER, body TEXT);
"""


class StoreError(Exception):
    """The journal cannot be used; one line with the remedy."""


@dataclass(frozen=True)
class Record:
    """A handover as journalled."""

    number: int
    over: bool
    #: What the service needs to show it, and to resume it if it is not over.
    body: Mapping[str, Any]


class Store:
    """The journal. All calls are short; none waits for anything but the disk."""

    def __init__(self, path: Path | str) -> None:
        """Open or make it. Raises `StoreError`."""
        try:
            self._db = sqlite3.connect(path, isolation_level=None, timeout=1.0)
            self._db.execute("PRAGMA locking_mode=EXCLUSIVE")
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            if version not in (0, VERSION):
                raise StoreError(
                    f"journal {path} is of version {version}, this controller writes {VERSION}; "
                    "name another file"
                )
            self._db.executescript(
                f"BEGIN IMMEDIATE; {SCHEMA} PRAGMA user_version={VERSION}; COMMIT;"
            )
        except sqlite3.OperationalError as error:
            remedy = (
                "end the other controller, or name another file"
                if "locked" in str(error)
                else "make its directory writable, or name another file"
            )
            raise StoreError(f"journal {path} cannot be used ({error}); {remedy}") from None
        except sqlite3.DatabaseError as error:
            raise StoreError(
                f"journal {path} is damaged ({error}); move it away to begin anew"
            ) from None

    def close(self) -> None:
        """Close it."""
        self._db.close()

    @contextmanager
    def together(self) -> Iterator[None]:
        """All writes of the block, or none."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def next_number(self, name: str) -> int:
        """1, 2, 3 … for a name; never the same again, whatever crashes."""
        row = self._db.execute(
            "INSERT INTO numbers VALUES (?, 1) "
            "ON CONFLICT (name) DO UPDATE SET value = value + 1 RETURNING value",
            (name,),
        ).fetchone()
        return int(row[0])

    def next_boot(self, now: float) -> int:
        """Greater at every start, also if the journal was moved away. `now`: Unix seconds."""
        row = self._db.execute(
            "INSERT INTO numbers VALUES ('boot', ?1) "
            "ON CONFLICT (name) DO UPDATE SET value = max(value + 1, ?1) RETURNING value",
            (int(now),),
        ).fetchone()
        return int(row[0])

    # -- the model -----------------------------------------------------------------------------

    def restore(self, configured: Model) -> Model:
        """The configured model with what has been changed at run time."""
        model = configured
        for (body,) in self._db.execute("SELECT body FROM instances"):
            instance = read_instance(json.loads(body))
            if instance.group in model.groups:
                model = model.with_instance(instance)
        gone = {number for (number,) in self._db.execute("SELECT id FROM removed")}
        instances = {k: v for k, v in model.instances.items() if k not in gone}
        rows = self._db.execute("SELECT * FROM rules")
        rules = [
            Rule(
                r[0], r[1], parse(r[2]), r[3], r[4], r[5] == ONE_WAY, bool(r[6]), r[5] == OTHER_WAY
            )
            for r in rows
        ]
        defaults = dict(self._db.execute("SELECT grp, target FROM defaults").fetchall())
        return replace(
            model,
            instances=instances,
            rules={r.id: r for r in rules if r.group in model.groups and r.target in instances},
            defaults={k: v for k, v in defaults.items() if v in instances},
        )

    def save_rules(self, model: Model) -> None:
        """Make the model's rules and defaults the ones in force."""
        self._db.execute("DELETE FROM rules")
        self._db.executemany(
            "INSERT INTO rules VALUES (?, ?, ?, ?, ?, ?, ?)",
            [
                (r.id, r.group, text(r.match), r.priority, r.target, _way(r), r.before_equal)
                for r in model.rules.values()
            ],
        )
        self._db.execute("DELETE FROM defaults")
        self._db.executemany("INSERT INTO defaults VALUES (?, ?)", list(model.defaults.items()))

    def save_instances(self, before: Model, after: Model) -> None:
        """What of the instances is another; the configuration does not bring back what is gone."""
        for number in before.instances.keys() - after.instances.keys():
            self._db.execute("DELETE FROM instances WHERE id = ?", (number,))
            self._db.execute("INSERT OR REPLACE INTO removed VALUES (?)", (number,))
        for number, instance in after.instances.items():
            if before.instances.get(number) != instance:
                body = json.dumps(write_instance(instance))
                self._db.execute("INSERT OR REPLACE INTO instances VALUES (?, ?)", (number, body))
                self._db.execute("DELETE FROM removed WHERE id = ?", (number,))

    # -- handovers -----------------------------------------------------------------------------

    def save_handover(self, record: Record) -> None:
        """The step that a handover has reached."""
        self._db.execute(
            "INSERT OR REPLACE INTO handovers VALUES (?, ?, ?)",
            (record.number, record.over, json.dumps(record.body)),
        )
        if record.over:
            self._db.execute(
                "DELETE FROM handovers WHERE over AND number <= ?", (record.number - KEPT,)
            )

    def handovers(self) -> list[Record]:
        """All that are kept, by number."""
        rows = self._db.execute("SELECT number, over, body FROM handovers ORDER BY number")
        return [Record(number, bool(over), json.loads(body)) for number, over, body in rows]

    # -- control frames ------------------------------------------------------------------------

    def positions(self) -> list[tuple[int, int, int]]:
        """How far each sender's frames had been taken (docs/wire.md, replay)."""
        return list(self._db.execute("SELECT sender, boot, sequence FROM positions"))

    def save_positions(self, positions: list[tuple[int, int, int]]) -> None:
        """Keep them for the next start."""
        self._db.executemany("INSERT OR REPLACE INTO positions VALUES (?, ?, ?)", positions)


def _way(rule: Rule) -> int:
    return ONE_WAY if rule.one_way else OTHER_WAY if rule.other_way else BOTH_WAYS


def write_instance(instance: Instance) -> dict[str, Any]:
    """As plain values."""
    peer = instance.peer
    return {
        "name": instance.name,
        "id": instance.id,
        "group": instance.group,
        "upstream_port": instance.upstream_port,
        "downstream_port": instance.downstream_port,
        "peer": None if peer is None else write_peer(peer),
        "macs": list(instance.macs),
        "state": instance.state,
    }


def read_instance(body: Mapping[str, Any]) -> Instance:
    """The inverse of `write_instance`."""
    fields = dict(body)
    address = fields.pop("peer", None)
    peer = None if address is None else read_peer(fields["id"], address)
    return Instance(**{**fields, "macs": tuple(fields.get("macs", ()))}, peer=peer)


def write_peer(peer: Peer) -> str:
    """HOST:PORT, with brackets around IPv6."""
    host = f"[{peer.address}]" if peer.address.version == 6 else str(peer.address)
    return f"{host}:{peer.port}"


def read_peer(instance: int, address: str) -> Peer:
    """The inverse of `write_peer`. Raises `ValueError`."""
    host, _, port = address.rpartition(":")
    number = int(port)
    if not 1 <= number <= 65535:
        raise ValueError(f"{address!r} has no possible port")
    return Peer(instance, ip_address(host.strip("[]")), number)
