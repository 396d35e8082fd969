"""The hooks adapter at work: real processes, sockets and bytes; the agents' side is played here."""

import asyncio
import hashlib
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from flowferry.hsl import Tls
from flowferry.hsl.adapters import ChannelError, Hooks, HooksAdapter, Settings, transfer
from flowferry.testbed.certificates import Authority

KEY = (1, bytes(range(32)))
PATIENCE = 20.0


class Channel:
    """An agent's end of the control channel."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.connected = asyncio.Event()
        self.reader: asyncio.StreamReader
        self.writer: asyncio.StreamWriter

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.connected.set()

    async def listen(self) -> asyncio.Server:
        return await asyncio.start_unix_server(self._accept, str(self.path))

    async def say(self, **fields: Any) -> None:
        self.writer.write(json.dumps(fields).encode() + b"\n")
        await self.writer.drain()

    async def hear(self) -> dict[str, Any]:
        line = await asyncio.wait_for(self.reader.readline(), PATIENCE)
        found = json.loads(line)
        assert isinstance(found, dict)
        return found


class Stage:
    """Two adapters, each with its agent's end, on loopback addresses of their own."""

    def __init__(self, tmp: Path) -> None:
        self.tmp = tmp
        self.tasks: list[asyncio.Task[None]] = []
        self.port = 0

    async def adapter(self, number: int, hooks: Hooks, **settings: Any) -> Channel:
        end = Channel(self.tmp / f"{number}.sock")
        self.server = await end.listen()
        if not self.port:
            self.port = free_port()
        it = HooksAdapter(
            Settings(
                end.path, (f"127.0.0.{number}", self.port), {KEY[0]: KEY[1]}, hooks, **settings
            )
        )
        task = asyncio.create_task(it.run())
        self.tasks.append(task)
        await asyncio.wait_for(end.connected.wait(), PATIENCE)
        assert (await end.hear())["hello"] == "hooks"
        return end

    async def close(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def stage(tmp: Path) -> AsyncIterator[Stage]:
    it = Stage(tmp)
    try:
        yield it
    finally:
        await it.close()


def play(tmp: Path, scene: Callable[[Stage], Awaitable[None]]) -> None:
    async def run() -> None:
        async with stage(tmp) as it:
            await asyncio.wait_for(scene(it), 60)

    asyncio.run(run())


def export(handover: int) -> dict[str, Any]:
    peer = {"instance": 2, "address": "127.0.0.2:7001"}
    return {"event": "export", "handover": handover, "flows": ["udp,a", "udp,b"], "peer": peer}


def test_bytes_move_and_wait_until_they_are_wanted(tmp_path: Path) -> None:
    state = os.urandom(3_000_001)
    (tmp_path / "state").write_bytes(state)
    got = tmp_path / "got"
    flows = tmp_path / "flows"

    async def scene(it: Stage) -> None:
        hook = f'cat "$FLOWFERRY_FLOWS" > {flows}; cat {tmp_path}/state'
        source = await it.adapter(1, Hooks(export=hook))
        taker = await it.adapter(2, Hooks(import_=f"cat > {got}"))
        await source.say(**export(513))
        done = await source.hear()
        assert done == {"done": "export", "handover": 513, "bytes": len(state)}
        assert not got.exists()
        await taker.say(event="import", handover=513, flows=[])
        assert await taker.hear() == {"done": "import", "handover": 513, "bytes": len(state)}

    play(tmp_path, scene)
    assert hashlib.sha256(got.read_bytes()).digest() == hashlib.sha256(state).digest()
    assert flows.read_text() == "udp,a\nudp,b\n"


def test_failures_are_told_with_the_hooks_last_words(tmp_path: Path) -> None:
    async def scene(it: Stage) -> None:
        bad = "echo first >&2; echo cannot read the table >&2; exit 3"
        source = await it.adapter(1, Hooks(export=bad))
        taker = await it.adapter(2, Hooks())
        await source.say(**export(1))
        failed = await source.hear()
        assert failed["failed"] == "export"
        assert failed["error"] == "the export hook ended with status 3: cannot read the table"
        await taker.say(event="import", handover=1, flows=[])
        assert "no state has come" in (await taker.hear())["error"]
        await source.say(**{**export(2), "peer": {"address": "127.0.0.9:7001"}})
        assert "no adapter answers on 127.0.0.9" in (await source.hear())["error"]

    play(tmp_path, scene)


def test_an_import_that_fails_is_told(tmp_path: Path) -> None:
    async def scene(it: Stage) -> None:
        source = await it.adapter(1, Hooks(export="echo x"))
        taker = await it.adapter(2, Hooks(import_="cat > /dev/null; echo no room >&2; exit 1"))
        await source.say(**export(1))
        await source.hear()
        await taker.say(event="import", handover=1, flows=[])
        failed = await taker.hear()
        assert (failed["failed"], failed["handover"]) == ("import", 1)
        assert failed["error"].endswith("no room")

    play(tmp_path, scene)


def test_an_abort_ends_a_hook_and_drops_what_was_staged(tmp_path: Path) -> None:
    """The export would never end by itself, nor would a child that it leaves behind."""
    aborted = tmp_path / "aborted"

    async def scene(it: Stage) -> None:
        endless = f"sleep 1000 & echo $! > {tmp_path}/child; wait"
        source = await it.adapter(1, Hooks(export=endless, aborted=f"touch {aborted}"))
        taker = await it.adapter(2, Hooks())
        await source.say(**export(1))
        await until(lambda: (tmp_path / "child").exists() and (tmp_path / "child").read_text())
        await source.say(event="aborted", handover=1, role="source", why="requested")
        await until(aborted.exists)
        child = int((tmp_path / "child").read_text())
        await until(lambda: not Path(f"/proc/{child}").exists() or zombie(child))
        # State for a handover that is over is not taken.
        await taker.say(event="aborted", handover=7)
        with pytest.raises(transfer.TransferError):
            await offer_until_refused(it, 7)

    play(tmp_path, scene)


async def offer_until_refused(it: Stage, handover: int) -> None:
    """The taker may hear of the abort after a first offer; soon it refuses all."""

    async def state() -> AsyncIterator[bytes]:
        yield b"x"

    deadline = asyncio.get_running_loop().time() + PATIENCE
    while asyncio.get_running_loop().time() < deadline:
        await transfer.send("127.0.0.2", it.port, handover, state(), key=KEY)


def zombie(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


async def until(there: Callable[[], Any]) -> None:
    deadline = asyncio.get_running_loop().time() + PATIENCE
    while not there():
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.005)


def test_strangers_get_nothing_in(tmp_path: Path) -> None:
    async def scene(it: Stage) -> None:
        taker = await it.adapter(2, Hooks(), most_bytes=1000)

        async def state(size: int) -> AsyncIterator[bytes]:
            yield b"x" * size

        for key in ((1, bytes(32)), (2, KEY[1])):
            with pytest.raises(transfer.TransferError):
                await transfer.send("127.0.0.2", it.port, 1, state(1), key=key)
        with pytest.raises(transfer.TransferError):
            await transfer.send("127.0.0.2", it.port, 1, state(1001), key=KEY)
        for garbage in (b"", b"GET / HTTP/1.1\r\n\r\n", os.urandom(5000)):
            reader, writer = await asyncio.open_connection("127.0.0.2", it.port)
            writer.write(garbage)
            writer.write_eof()
            await asyncio.wait_for(reader.read(), PATIENCE)
            writer.close()
        await taker.say(event="import", handover=1, flows=[])
        assert "no state has come" in (await taker.hear())["error"]
        assert await transfer.send("127.0.0.2", it.port, 1, state(1000), key=KEY) == 1000

    play(tmp_path, scene)


def test_handovers_do_not_wait_for_each_other(tmp_path: Path) -> None:
    async def scene(it: Stage) -> None:
        gate = tmp_path / "gate"
        os.mkfifo(gate)
        hook = f'if [ "$FLOWFERRY_HANDOVER" = 1 ]; then cat {gate}; else echo two; fi'
        source = await it.adapter(1, Hooks(export=hook))
        await it.adapter(2, Hooks())
        await source.say(**export(1))
        await source.say(**export(2))
        assert (await source.hear())["handover"] == 2
        await asyncio.to_thread(gate.write_text, "one")
        assert await source.hear() == {"done": "export", "handover": 1, "bytes": 3}

    play(tmp_path, scene)


def test_an_agent_that_goes_ends_the_adapter_with_one_line(tmp_path: Path) -> None:
    async def scene(it: Stage) -> None:
        end = await it.adapter(1, Hooks())
        end.writer.close()
        with pytest.raises(ChannelError, match="has ended"):
            await it.tasks[0]

    play(tmp_path, scene)


TAKEN = {"event": "import", "handover": 513, "flows": [], "peer": {"instance": 1, "address": "-:1"}}


@pytest.mark.parametrize(
    ("source", "taker", "at_export", "at_import"),
    [
        ("instance-1", "instance-2", None, None),
        ("instance-3", "instance-2", None, "with a certificate of instance-3"),
        ("instance-1", "instance-3", "match", "no state has come"),
        ("stranger", "instance-2", "does not believe our certificate", "no state has come"),
        ("instance-1", "stranger", "certificate verify failed", "no state has come"),
        (
            "plain",
            "instance-2",
            "did not greet; see what it says there, perhaps that it wants TLS",
            "no state has come",
        ),
        ("instance-1", "plain", "give both adapters --tls-ca", "no state has come"),
    ],
)
def test_over_tls_state_goes_from_and_to_whom_the_agents_name_only(
    tmp_path: Path, source: str, taker: str, at_export: str | None, at_import: str | None
) -> None:
    ours, theirs = Authority(tmp_path / "ours"), Authority(tmp_path / "theirs")

    def tls(name: str, instance: int) -> Tls | None:
        if name == "plain":
            return None
        by = theirs if name == "stranger" else ours
        own = by.issue(f"instance-{instance}" if name == "stranger" else name)
        return Tls(own.cert, own.key, ours.ca)

    async def scene(it: Stage) -> None:
        one = await it.adapter(1, Hooks(export="echo state"), tls=tls(source, 1))
        two = await it.adapter(2, Hooks(import_=f"cat > {tmp_path}/got"), tls=tls(taker, 2))
        for step, end, said, what in (
            (export(513), one, at_export, "export"),
            (TAKEN, two, at_import, "import"),
        ):
            await end.say(**step)
            answer = await end.hear()
            if said is None:
                assert answer == {"done": what, "handover": 513, "bytes": 6}
            else:
                assert answer["failed"] == what
                assert said in answer["error"]

    play(tmp_path, scene)
    assert (tmp_path / "got").exists() is (at_import is None)
