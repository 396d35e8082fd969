"""`flowferry hsl adapter`: move a function's state by shell hooks when its flows move."""

import asyncio
import signal
from pathlib import Path

import click

from flowferry.hsl import Tls
from flowferry.hsl.adapters import ChannelError, Hooks, HooksAdapter, Settings
from flowferry.hsl.config import key_file_problem

PEM = click.Path(exists=True, dir_okay=False)


class Address(click.ParamType[tuple[str, int]]):
    """`HOST:PORT`."""

    name = "host:port"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, int]:
        """Host and port."""
        host, _, port = str(value).rpartition(":")
        if not host or not port.isdigit() or not 1 <= int(port) <= 65535:
            self.fail(f"{value!r} is no address; write HOST:PORT with a port to 65535", param, ctx)
        return host.strip("[]"), int(port)


class Key(click.ParamType[tuple[int, bytes]]):
    """`ID:FILE`."""

    name = "id:file"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, bytes]:
        """Number and secret; the secret never gets into a message."""
        number, _, file = str(value).partition(":")
        if not number.isdigit() or not file:
            self.fail(f"{value!r} is no key; write ID:FILE", param, ctx)
        problem = key_file_problem(Path(file))
        if problem is not None:
            self.fail(f"{file!r} {problem}", param, ctx)
        return int(number), bytes.fromhex(Path(file).read_text("ascii").strip())


@click.command()
@click.option(
    "--socket",
    type=click.Path(path_type=Path),
    required=True,
    help="The agent's function_socket.",
)
@click.option(
    "--listen",
    type=Address(),
    required=True,
    help="Where state of other instances is taken; all adapters use the same port.",
)
@click.option(
    "--key",
    "keys",
    type=Key(),
    multiple=True,
    required=True,
    help="A key of the deployment; the first one signs.",
)
@click.option("--export", metavar="COMMAND", help="Writes the flows' state to its output.")
@click.option("--import", "import_", metavar="COMMAND", help="Reads it from its input.")
@click.option("--prepare", metavar="COMMAND", help="A handover may come.")
@click.option("--drain", metavar="COMMAND", help="The last packets are on their way through.")
@click.option("--freeze", metavar="COMMAND", help="No packet of the flows comes any more.")
@click.option("--released", metavar="COMMAND", help="The handover is done: old state may go.")
@click.option("--aborted", metavar="COMMAND", help="It was called off: the flows stay.")
@click.option("--rate", type=click.FloatRange(0.001), help="Mbit/s of state sent, at most.")
@click.option(
    "--most-bytes",
    type=click.IntRange(1),
    default=1 << 30,
    show_default=True,
    help="Of one handover's state.",
)
@click.option(
    "--staging",
    type=click.Path(file_okay=False, exists=True, path_type=Path),
    help="Where state waits to be imported.  [default: temporary files]",
)
@click.option("--tls-ca", type=PEM, help="Who signs the other instances' certificates (PEM).")
@click.option("--tls-certificate", type=PEM, help="This instance's, which stands for instance-N.")
@click.option("--tls-key", type=PEM, help="The key to it.")
@click.option(
    "--whole",
    is_flag=True,
    help="A flow may need what belongs to others: one that begins meanwhile waits for all state.",
)
def adapter(
    socket: Path,
    listen: tuple[str, int],
    keys: tuple[tuple[int, bytes], ...],
    rate: float | None,
    most_bytes: int,
    staging: Path | None,
    tls_ca: str | None,
    tls_certificate: str | None,
    tls_key: str | None,
    whole: bool,
    **hooks: str | None,
) -> None:
    """Move a function's state by shell hooks, beside its agent, until it is ended.

    \b
    Hooks find in their environment: FLOWFERRY_EVENT, FLOWFERRY_HANDOVER,
    FLOWFERRY_ROLE, FLOWFERRY_PEER, and FLOWFERRY_FLOWS, a file with a flow a line.
    """
    tls = None
    if tls_ca or tls_certificate or tls_key:
        if not (tls_ca and tls_certificate and tls_key):
            raise click.UsageError("--tls-ca, --tls-certificate and --tls-key go together")
        tls = Tls(tls_certificate, tls_key, tls_ca)
    settings = Settings(
        socket=socket,
        listen=listen,
        keys=dict(keys),
        hooks=Hooks(**hooks),
        bytes_per_second=None if rate is None else rate * 1e6 / 8,
        most_bytes=most_bytes,
        staging=staging,
        tls=tls,
        whole=whole,
    )
    try:
        asyncio.run(_serve(HooksAdapter(settings)))
    except ChannelError as error:
        raise click.ClickException(str(error)) from None


async def _serve(it: HooksAdapter) -> None:
    """Serve until SIGTERM or Ctrl-C; say `ready` on stderr once the agent has been greeted."""
    ready = asyncio.Event()
    work = asyncio.create_task(it.run(ready))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, work.cancel)
    said = asyncio.create_task(ready.wait())
    await asyncio.wait([work, said], return_when=asyncio.FIRST_COMPLETED)
    if ready.is_set():
        click.echo("ready", err=True)
    said.cancel()
    try:
        await work
    except asyncio.CancelledError:
        return
