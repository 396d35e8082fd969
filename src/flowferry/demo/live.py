"""What a person sees while the demo runs: a live view on a terminal, plain lines elsewhere."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from flowferry.demo.stage import Demo, Look

#: Looks that the live view's buffer bar goes back: half a second, or nobody would see a short hold.
RECENT = 125
#: Holds listed in the live view.
LISTED = 8


@contextmanager
def shown(demo: Demo, console: Console) -> Iterator[Callable[[Demo], None]]:
    """Show `demo` while the block runs; what it yields is to be told of every step."""
    if console.is_terminal:
        with Live(
            get_renderable=lambda: view(demo), console=console, refresh_per_second=10
        ) as live:
            yield lambda _: live.refresh()
            live.refresh()
        return
    printed = 0

    def tell(demo: Demo) -> None:
        nonlocal printed
        if not demo.holds or (demo.cue is None and demo.phase != "traffic flows"):
            console.print(f"{demo.phase} …", highlight=False)
        for hold in demo.holds[printed:]:
            printed += 1
            console.print(line(printed, hold), highlight=False, soft_wrap=True)

    yield tell


def line(number: int, hold: dict[str, object]) -> str:
    """One hold that is over."""
    return (
        f"hold {number:2}  {hold['title']:17}  {hold['planned_ms']:5.1f} ms  "
        f"captured {hold['captured_packets']:5,}  released {hold['released_packets']:5,}  "
        f"lost {hold['lost_packets']}"
    )


def view(demo: Demo) -> RenderableType:
    """The live view as it is now."""
    looks = demo.looks[-RECENT:]
    now = looks[-1] if looks else Look(0, 0, 0, 0, 0)
    fill = max((look.buffer_bytes for look in looks), default=0)
    top = max((look.buffer_bytes for look in demo.looks), default=0)
    elapsed = (time.monotonic_ns() - demo.began_ns) / 1e9 if demo.began_ns else 0.0
    facts = Table(show_header=False, box=None, pad_edge=False)
    facts.add_column(style="dim", min_width=12)
    facts.add_column(min_width=34)
    facts.add_column(justify="right", min_width=22)
    state = f"[bold yellow]{demo.phase}[/] {demo.cue.title}" if demo.cue else demo.phase
    facts.add_row("now", state, f"{len(demo.holds)} of {len(demo.cues)} holds done")
    facts.add_row("time", bar(elapsed, demo.duration), f"{min(elapsed, demo.duration):.1f} s")
    facts.add_row("buffer", bar(fill, top), f"{fill / 1024:,.0f} of at most {top / 1024:,.0f} KiB")
    facts.add_row("captured", f"{now.captured:,} packets", f"{now.released:,} released")
    if demo.udp is not None:
        facts.add_row("UDP", f"{demo.udp.received:,} packets arrived", "")
    if demo.tcp is not None:
        sent = f"{demo.tcp.bytes_received / 1e6:,.1f} MB arrived"
        facts.add_row("TCP", sent, f"longest stall {demo.tcp.longest_stall * 1e3:.1f} ms")
    if demo.ping is not None and demo.ping.trips:
        recent = [ms for _, ms in demo.ping.trips[-25:]]
        facts.add_row(
            "ping", f"{recent[-1]:.2f} ms there and back", f"{max(recent):.1f} ms at most lately"
        )
    switch = "switch - " if demo.function == "bridge" else ""
    title = Text(f"flowferry demo: h1 - {switch}HSL + {demo.function} - {switch}h2", style="bold")
    listed = [
        Text(line(len(demo.holds) - len(demo.holds[-LISTED:]) + k + 1, hold), style="dim")
        for k, hold in enumerate(demo.holds[-LISTED:])
    ]
    return Group(title, facts, *listed)


def bar(value: float, total: float) -> ProgressBar:
    """A bar of fixed width."""
    return ProgressBar(total=max(total, 1e-9), completed=min(value, max(total, 1e-9)), width=30)
