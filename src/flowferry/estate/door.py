"""A door to an instance's local view: a UNIX socket that other programs on this machine ask at.

A local view is memory of one process; nobody else can look into it. `flowferry state join` opens a
door to the instance it runs, and so can any function::

    with estate.open(cluster="ids", node="nf1") as es, door.serve(es):
        ...                                   # `flowferry state --node nf1 keys` works meanwhile

A request is one line of JSON with what to `do`; the answer is one, too (for `watch`, one an event).
Who may open the socket may read and write everything: it is made for its owner only.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import socket
import socketserver
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import quote, unquote

from flowferry.estate import errors
from flowferry.estate.estate import Estate
from flowferry.estate.view import Cached, Consistency, Event, Item, Live, Snapshot, View

__all__ = ["Client", "answer", "door_of", "doors", "serve"]

Json: TypeAlias = dict[str, Any]

#: Bytes of a request at most: a value of 10 MB in base64, and then some.
LINE_MAX = 64 << 20
#: Seconds that a watch waits before it looks whether its reader is still there.
PATIENCE = 0.5


def directory() -> Path:
    """Where doors are: `FLOWFERRY_STATE_DIR`, else a directory of this user's."""
    given = os.environ.get("FLOWFERRY_STATE_DIR")
    if given:
        return Path(given)
    if os.getuid() == 0:
        return Path("/run/flowferry/state")
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    return Path(runtime or tempfile.gettempdir()) / f"flowferry-state-{os.getuid()}"


def door_of(cluster: str, node: str) -> Path:
    """Where an instance's door is unless it was opened elsewhere.

    A socket's path is short (107 bytes), so that long names do not all have one.
    """
    return directory() / f"{quote(cluster, safe='')}@{quote(node, safe='')}.sock"


def doors() -> list[tuple[str, str, Path]]:
    """Cluster, node and path of all doors at the usual place, open or left behind."""
    found = []
    for path in sorted(directory().glob("*@*.sock")):
        cluster, _, node = path.name.removesuffix(".sock").partition("@")
        found.append((unquote(cluster), unquote(node), path))
    return found


@contextmanager
def serve(es: Estate, path: str | os.PathLike[str] | None = None) -> Iterator[Path]:
    """Keep a door open for the length of a block; yields where it is.

    Raises:
        OptionInvalid: A path that cannot be one, or where somebody listens already.
    """
    place = Path(path) if path is not None else door_of(es.cluster, es.node)
    if len(os.fsencode(place)) > 107:
        raise errors.OptionInvalid(f"{place} is too long for a socket; give a shorter one")
    place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if place.exists():
        if _listening(place):
            raise errors.OptionInvalid(f"somebody listens at {place}; give another path")
        place.unlink()
    before = os.umask(0o177)
    try:
        server = _Server(es, place)
    except OSError as error:
        raise errors.OptionInvalid(f"no door at {place}: {error.strerror}") from None
    finally:
        os.umask(before)
    thread = threading.Thread(target=server.serve_forever, args=(0.1,), name="estate-door")
    thread.daemon = True
    thread.start()
    try:
        yield place
    finally:
        server.shutdown()
        server.server_close()
        with contextlib.suppress(FileNotFoundError):
            place.unlink()


def _listening(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, es: Estate, path: Path) -> None:
        self.estate = es
        super().__init__(str(path), _Visitor)


class _Visitor(socketserver.StreamRequestHandler):
    server: _Server

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):
            while line := self.rfile.readline(LINE_MAX):
                self._one(line)

    def _one(self, line: bytes) -> None:
        try:
            request = json.loads(line)
            if request["do"] == "watch":
                self._watch(request)
            else:
                self._say(answer(self.server.estate, request))
        except Exception as error:
            self._say(_failure(error))

    def _watch(self, request: Json) -> None:
        with self.server.estate.watch(request["key"], pattern=request.get("pattern")) as watch:
            self._say({})
            while not watch.ended:
                event = watch.next(PATIENCE)
                self._say({} if event is None else event_json(event))

    def _say(self, told: Json) -> None:
        self.wfile.write(json.dumps(told).encode() + b"\n")


def _failure(error: Exception) -> Json:
    kind = type(error).__name__
    text = str(error) if isinstance(error, errors.EstateError) else f"{kind}: {error}"
    told: Json = {"error": text, "kind": kind}
    if isinstance(error, errors.IncompleteError):
        told["view"] = view_json(error.view)
    return told


# --- what can be asked ---


def answer(es: Estate, request: Mapping[str, Any]) -> Json:
    """Do what a request says.

    Raises:
        ValueError: It is none.
        EstateError: What went wrong.
    """
    job = _JOBS.get(request["do"])
    if job is None:
        raise ValueError(f"{request['do']!r} is none of {', '.join(sorted(_JOBS))}")
    return job(es, request)


def _set(es: Estate, request: Mapping[str, Any]) -> Json:
    es.set(request["key"], value_of(request), ttl=request.get("ttl"))
    return {"key": request["key"], "node": es.node}


def _get(es: Estate, request: Mapping[str, Any]) -> Json:
    item = es.get_item(request["key"])
    return {"node": es.node, "key": request["key"], "item": item and item_json(item)}


def _delete(es: Estate, request: Mapping[str, Any]) -> Json:
    gone = es.delete(request["key"])
    return {"key": request["key"], "node": es.node, "deleted": gone}


def _add(es: Estate, request: Mapping[str, Any]) -> Json:
    value = es.add(request["key"], request.get("delta", 1))
    return {"key": request["key"], "node": es.node, "value": value}


def _keys(es: Estate, request: Mapping[str, Any]) -> Json:
    keys = es.keys(request.get("key", "*"), pattern=request.get("pattern", "glob"))
    return {"node": es.node, "keys": sorted(keys)}


def _global(es: Estate, request: Mapping[str, Any]) -> Json:
    view = es.view_global(
        request["key"],
        list if request["reduce"] == "items" else request["reduce"],
        pattern=request.get("pattern"),
        consistency=_consistency(request),
        timeout=request.get("timeout"),
    )
    if request["reduce"] == "items":
        view = replace(view, value=None)
    return {"key": request["key"], "reduce": request["reduce"], **view_json(view)}


def _consistency(request: Mapping[str, Any]) -> Consistency:
    if "cached" in request:
        return Cached(float(request["cached"]))
    return Snapshot() if request.get("snapshot") else Live()


def _take(es: Estate, request: Mapping[str, Any]) -> Json:
    moved = es.take(request["flows"], request["source"], request["move_id"])
    return {"node": es.node, "source": request["source"], "items": moved}


def _abort_take(es: Estate, request: Mapping[str, Any]) -> Json:
    aborted = es.abort_take(request["move_id"])
    return {"node": es.node, "move_id": request["move_id"], "aborted": aborted}


def _declare_dead(es: Estate, request: Mapping[str, Any]) -> Json:
    decided = es.declare_dead(request["member"])
    return {"node": es.node, "member": request["member"], "moves": decided}


def _members(es: Estate, request: Mapping[str, Any]) -> Json:
    return {"cluster": es.cluster, "node": es.node, "members": es.members()}


def _statistics(es: Estate, request: Mapping[str, Any]) -> Json:
    return {"node": es.node, **es.statistics()}


_JOBS: dict[str, Callable[[Estate, Mapping[str, Any]], Json]] = {
    "set": _set,
    "get": _get,
    "delete": _delete,
    "add": _add,
    "keys": _keys,
    "global": _global,
    "take": _take,
    "abort_take": _abort_take,
    "declare_dead": _declare_dead,
    "members": _members,
    "statistics": _statistics,
}


# --- values as JSON ---


def value_json(value: Any) -> Json:
    """A value with its type; bytes in base64."""
    if isinstance(value, bytes):
        return {"type": "bytes", "value": base64.b64encode(value).decode()}
    return {"type": "none" if value is None else type(value).__name__, "value": value}


def value_of(told: Mapping[str, Any]) -> bytes | str | int | float:
    """The value that `value_json` told of."""
    value, kind = told["value"], told["type"]
    if kind == "bytes":
        return base64.b64decode(value, validate=True)
    if kind == "float":
        return float(value)
    if (kind, type(value)) not in (("str", str), ("int", int)):
        raise ValueError(f"{value!r} is no {kind}")
    known: str | int = value
    return known


def item_json(item: Item) -> Json:
    """An item with all that belongs to it."""
    return {
        "key": item.key,
        "node": item.node,
        **value_json(item.value),
        "version": item.version,
        "written": item.written,
        "expires": item.expires,
    }


def view_json(view: View[Any]) -> Json:
    """A view; `value` is what the reducer made."""
    return {
        **value_json(view.value),
        "items": [item_json(item) for item in view.items],
        "answered": list(view.answered),
        "missing": list(view.missing),
        "complete": view.complete,
        "oldest": view.oldest,
    }


def event_json(event: Event) -> Json:
    """A change; `item` is null when the item has gone."""
    return {
        "node": event.node,
        "key": event.key,
        "item": None if event.item is None else item_json(event.item),
    }


class Client:
    """A visitor at a door."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Go there.

        Raises:
            BackendFailed: Nobody opens.
        """
        self._socket = socket.socket(socket.AF_UNIX)
        try:
            self._socket.connect(os.fspath(path))
        except OSError as error:
            self._socket.close()
            raise errors.BackendFailed(
                f"no instance answers at {os.fspath(path)} ({error.strerror}); "
                "start one with 'flowferry state join --node NAME'"
            ) from None
        self._file = self._socket.makefile("rwb")

    def ask(self, request: Mapping[str, Any]) -> Json:
        """One request and its answer.

        Raises:
            EstateError: What went wrong there, as the class it had there.
        """
        self._send(request)
        return self._receive()

    def watch(self, key: str, pattern: str | None) -> Iterator[Json]:
        """Changes of matching items, until the instance ends."""
        self._send({"do": "watch", "key": key, "pattern": pattern})
        self._receive()
        while True:
            try:
                told = self._receive()
            except errors.Closed:
                return
            if told:
                yield told

    def _send(self, request: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(request).encode() + b"\n")
        self._file.flush()

    def _receive(self) -> Json:
        line = self._file.readline()
        if not line:
            raise errors.Closed("the instance has ended; start it again")
        told: Json = json.loads(line)
        if "error" in told:
            raise _raised(told)
        return told

    def close(self) -> None:
        """Leave."""
        self._file.close()
        self._socket.close()


def _raised(told: Json) -> errors.EstateError:
    known = getattr(errors, told["kind"], errors.EstateError)
    if not issubclass(known, errors.EstateError) or issubclass(
        known, errors.IncompleteError | errors.ItemError
    ):
        known = errors.EstateError
    raised: errors.EstateError = known(told["error"])
    return raised
