"""The adapter that runs shell hooks: any program's state moves if two commands can copy it.

`export` writes the state of the flows to its standard output, `import` reads it from its standard
input, at the other instance. Further hooks are told of steps. Each gets

    FLOWFERRY_EVENT  FLOWFERRY_HANDOVER  FLOWFERRY_ROLE  FLOWFERRY_PEER (host:port)
    FLOWFERRY_FLOWS  (a file with one flow a line)

State goes from adapter to adapter over the management network, not through the agents, and waits
there in a file until the destination's agent says `import`. A handover that is aborted leaves
nothing behind. Hooks run one after another in the order of the agent's steps, each handover by
itself, so that a long export holds up no other handover.

Flows that begin while state is on its way are served at the destination at once, and a handover
that is called off then takes their state back: `export` runs at the destination and `import` at the
source. What was under way there is ended first. `whole` says that state is no sum of flows, and has
them wait.
"""

import asyncio
import logging
import os
import signal
import ssl
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO

from flowferry.hsl import certificates
from flowferry.hsl.adapters import channel, transfer
from flowferry.hsl.adapters.channel import ChannelError, Step
from flowferry.hsl.adapters.transfer import TransferError
from flowferry.hsl.agent import Tls

LOG = logging.getLogger(__name__)

#: Seconds that a hook which only hears of a step may take.
NOTICE_PATIENCE = 10.0
#: Seconds that export or import may take if the agent names no deadline.
STATE_PATIENCE = 60.0
BLOCK = 64 << 10
#: Handovers that are remembered as over.
REMEMBERED = 1024


@dataclass(frozen=True)
class Hooks:
    """Shell commands by step; None: nothing is run."""

    prepare: str | None = None
    drain: str | None = None
    freeze: str | None = None
    export: str | None = None
    #: `import` is a word of Python's.
    import_: str | None = None
    released: str | None = None
    aborted: str | None = None

    @property
    def one_sided(self) -> bool:
        """State can be given and not taken, or the other way."""
        return (self.export is None) != (self.import_ is None)

    def of(self, event: str) -> str | None:
        """The command for a step."""
        command: str | None = getattr(self, "import_" if event == "import" else event, None)
        return command


@dataclass(frozen=True)
class Settings:
    """What an adapter is told."""

    #: The agent's `function_socket`.
    socket: Path
    #: Where other adapters' state is taken: `(host, port)`. All adapters use one port number.
    listen: tuple[str, int]
    #: Keys by number; the first one signs.
    keys: Mapping[int, bytes]
    hooks: Hooks
    #: Most bytes of state sent per second, or None.
    bytes_per_second: float | None = None
    #: Most bytes of one handover's state.
    most_bytes: int = 1 << 30
    #: Where state waits; the system's directory for temporary files by default.
    staging: Path | None = None
    #: With it, state goes over TLS; all adapters of a deployment have it, or none.
    tls: Tls | None = None
    name: str = "hooks"
    #: A new flow may need what belongs to others (expectations, translations, quotas).
    whole: bool = False


class _HookError(Exception):
    """A hook failed; its last words."""


@dataclass
class _Staged:
    file: IO[bytes]
    size: int
    #: Whom the sender's certificate stands for; None without TLS.
    sender: frozenset[str] | None


@dataclass
class HooksAdapter:
    """One instance's adapter; `run` serves until it is cancelled or the agent goes."""

    settings: Settings
    _staged: dict[int, _Staged] = field(default_factory=dict)
    #: The last piece of work of each handover: the next one waits for it.
    _last: dict[int, "asyncio.Task[None]"] = field(default_factory=dict)
    #: The event that it is about.
    _at: dict[int, str] = field(default_factory=dict)
    #: Handovers that are over, the latest last: state that comes late for them is not taken.
    _ended: dict[int, None] = field(default_factory=dict)
    #: How to encrypt, for either end.
    _dialling: ssl.SSLContext | None = None
    _taking: ssl.SSLContext | None = None

    async def run(self, ready: "asyncio.Event | None" = None) -> None:
        """Serve the agent. Raises `ChannelError` when it cannot be reached or has gone."""
        settings = self.settings
        if settings.tls is not None:
            try:
                self._dialling = certificates.context(settings.tls, dialling=True)
                self._taking = certificates.context(settings.tls, dialling=False)
            except (ValueError, OSError) as error:
                raise ChannelError(str(error)) from None
        try:
            server = await asyncio.start_server(self._take, *settings.listen)
        except OSError as error:
            host, port = settings.listen
            raise ChannelError(
                f"cannot listen on {host}:{port} ({error.strerror}); give another --listen"
            ) from None
        async with server:
            try:
                reader, writer = await asyncio.open_unix_connection(
                    str(settings.socket), limit=channel.LONGEST_LINE
                )
            except OSError as error:
                raise ChannelError(
                    f"no agent answers on {settings.socket} ({error.strerror}); "
                    "set its function_socket and start it first"
                ) from None
            new_flows = not settings.whole and not settings.hooks.one_sided
            writer.write(channel.hello(settings.name, new_flows=new_flows))
            if ready is not None:
                ready.set()
            try:
                await self._serve(reader, writer)
            finally:
                writer.close()
                for task in self._last.values():
                    task.cancel()
                await asyncio.gather(*self._last.values(), return_exceptions=True)
                for handover in list(self._staged):
                    self._drop(handover)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            try:
                line = await reader.readline()
            except ValueError:
                raise ChannelError("the agent sent a line that is too long; update both") from None
            except ConnectionError:
                line = b""
            if not line:
                raise ChannelError("the agent has ended or refused this adapter; see its log")
            step = Step.parse(line)
            if step.event == "flows":
                writer.write(channel.listed(step, ()))
                continue
            before = self._last.get(step.handover)
            if before is not None and self._ends(step):
                before.cancel()  # what it waits for is no longer wanted
            task = asyncio.create_task(self._work(step, before, writer))
            self._last[step.handover] = task
            self._at[step.handover] = step.event
            task.add_done_callback(partial(self._forget, step.handover))

    def _forget(self, handover: int, task: "asyncio.Task[None]") -> None:
        if self._last.get(handover) is task:
            del self._last[handover], self._at[handover]

    def _ends(self, step: Step) -> bool:
        """Whether it means that the handover is called off: state goes back, or nowhere."""
        turned = {("import", "drain"), ("export", "import")}
        return step.event == "aborted" or (self._at[step.handover], step.event) in turned

    async def _work(
        self, step: Step, before: "asyncio.Task[None] | None", writer: asyncio.StreamWriter
    ) -> None:
        if before is not None:
            await asyncio.wait([before])
        answer: bytes | None = None
        try:
            if step.event == "export":
                answer = channel.done(step, size=await self._export(step))
            elif step.event == "import":
                answer = channel.done(step, size=await self._import(step))
            else:
                if step.event in ("released", "aborted"):
                    self._end(step.handover)
                await self._notify(step)
        except (_HookError, TransferError, OSError) as error:
            if step.event in ("export", "import"):
                answer = channel.failed(step, str(error))
        if answer is not None:
            writer.write(answer)
            with suppress(ConnectionError):
                await writer.drain()

    async def _notify(self, step: Step) -> None:
        command = self.settings.hooks.of(step.event)
        if command is not None:
            async with _Process(command, step, stdin=None, output=False) as process:
                await process.finish(NOTICE_PATIENCE)

    async def _export(self, step: Step) -> int:
        if step.peer is None:
            raise TransferError("the agent names no peer for the export; update the agent")
        host = step.peer.rpartition(":")[0].strip("[]")
        number, secret = next(iter(self.settings.keys.items()))
        return await transfer.send(
            host,
            self.settings.listen[1],
            step.handover,
            self._exported(step),
            key=(number, secret),
            bytes_per_second=self.settings.bytes_per_second,
            tls=self._security(step),
        )

    def _security(self, step: Step) -> tuple[ssl.SSLContext, str] | None:
        if self._dialling is None:
            return None
        if step.peer_instance is None:
            raise TransferError("the agent does not name the peer's instance; update the agent")
        return self._dialling, certificates.name_of(step.peer_instance)

    async def _exported(self, step: Step) -> AsyncIterator[bytes]:
        command = self.settings.hooks.export
        if command is None:
            return
        patience = (step.deadline_ms or STATE_PATIENCE * 1e3) / 1e3
        async with _Process(command, step, stdin=None, output=True) as process:
            while block := await process.read():
                yield block
            await process.finish(patience)

    async def _import(self, step: Step) -> int:
        staged = self._staged.pop(step.handover, None)
        if staged is None:
            raise TransferError(
                f"no state has come for handover {step.handover}; look at the source's adapter"
            )
        if staged.sender is not None:
            name = certificates.name_of(step.peer_instance or 0)
            if name not in staged.sender:
                staged.file.close()
                who = ", ".join(sorted(staged.sender)) or "nobody"
                raise TransferError(
                    f"the state of {name} came with a certificate of {who}; "
                    "look at --tls-certificate there"
                )
        with staged.file as file:
            command = self.settings.hooks.import_
            if command is not None:
                file.seek(0)
                patience = (step.deadline_ms or STATE_PATIENCE * 1e3) / 1e3
                async with _Process(command, step, stdin=file, output=False) as process:
                    await process.finish(patience)
        return staged.size

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """State from another adapter; strangers get a closed connection and nothing else."""
        with ExitStack() as given_up:
            given_up.callback(writer.close)
            file = given_up.enter_context(tempfile.TemporaryFile(dir=self.settings.staging))
            # What goes wrong here the sender hears, and tells its agent.
            given_up.enter_context(
                suppress(TransferError, TimeoutError, asyncio.IncompleteReadError, OSError)
            )
            names = await self._encrypt(writer)
            incoming = transfer.Incoming(reader, writer)
            handover = await incoming.greet(self.settings.keys)
            if handover in self._ended:
                raise TransferError(f"handover {handover} is over")
            size = await incoming.take(file, self.settings.most_bytes)
            self._drop(handover)  # sent again: the newer counts
            self._staged[handover] = _Staged(file, size, names)
            given_up.pop_all()
            with suppress(TimeoutError, OSError):
                await incoming.confirm(size)
            writer.close()

    async def _encrypt(self, writer: asyncio.StreamWriter) -> frozenset[str] | None:
        """Agree on TLS, where it is wanted; whom the sender's certificate stands for."""
        if self._taking is None:
            return None
        try:
            await writer.start_tls(self._taking, ssl_handshake_timeout=transfer.HANDSHAKE)
        except OSError as error:
            host, *_ = writer.get_extra_info("peername") or ("somebody",)
            LOG.warning("state from %s turned away: %s; %s", host, error, transfer.SAME)
            raise
        return certificates.shown(writer.get_extra_info("ssl_object"))

    def _end(self, handover: int) -> None:
        self._drop(handover)
        self._ended[handover] = None
        while len(self._ended) > REMEMBERED:
            del self._ended[next(iter(self._ended))]

    def _drop(self, handover: int) -> None:
        staged = self._staged.pop(handover, None)
        if staged is not None:
            staged.file.close()


class _Process:
    """A hook while it runs; it and its children are ended when the block is left early."""

    def __init__(self, command: str, step: Step, *, stdin: IO[bytes] | None, output: bool) -> None:
        self._command, self._step = command, step
        self._stdin, self._output = stdin, output

    async def __aenter__(self) -> "_Process":
        step = self._step
        with ExitStack() as files:
            flows = files.enter_context(
                tempfile.NamedTemporaryFile("w", prefix="flowferry-flows-", encoding="utf-8")
            )
            flows.writelines(f"{flow}\n" for flow in step.flows)
            flows.flush()
            self._errors = files.enter_context(tempfile.TemporaryFile())
            self._process = await asyncio.create_subprocess_shell(
                self._command,
                stdin=self._stdin if self._stdin is not None else asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE if self._output else asyncio.subprocess.DEVNULL,
                stderr=self._errors,
                start_new_session=True,
                env={
                    **os.environ,
                    "FLOWFERRY_EVENT": step.event,
                    "FLOWFERRY_HANDOVER": str(step.handover),
                    "FLOWFERRY_ROLE": step.role or "",
                    "FLOWFERRY_PEER": step.peer or "",
                    "FLOWFERRY_FLOWS": flows.name,
                },
            )
            self._files = files.pop_all()
        return self

    async def read(self) -> bytes:
        """The next piece of its output; empty at the end."""
        assert self._process.stdout is not None
        return await self._process.stdout.read(BLOCK)

    async def finish(self, patience: float) -> None:
        """Wait until it has ended well. Raises `_HookError`."""
        try:
            async with asyncio.timeout(patience):
                status = await self._process.wait()
        except TimeoutError:
            raise _HookError(
                f"the {self._step.event} hook was not done within {patience:g} s; "
                "make it faster or give it more time"
            ) from None
        if status != 0:
            self._errors.seek(0)
            said = self._errors.read(4096).decode(errors="replace").strip().splitlines()
            last = said[-1] if said else "it said nothing"
            raise _HookError(f"the {self._step.event} hook ended with status {status}: {last}")

    async def __aexit__(self, *_: object) -> None:
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            await self._process.wait()
        self._files.close()
