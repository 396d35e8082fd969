"""What a person sees while the demo runs: a live view on a terminal, plain lines elsewhere."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from flowferry.demo.cues import SCENES
from flowferry.demo.stage import Demo

#: Looks that the buffers' bars go back: half a second, or nobody would see a short capture.
RECENT = 100
#: Moves listed in the live view.
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
        if demo.cue is None and (not demo.moves or demo.phase != "traffic flows"):
            console.print(f"{demo.phase} …", highlight=False)
        for move in demo.moves[printed:]:
            printed += 1
            console.print(line(printed, move), highlight=False, soft_wrap=True)

    yield tell


def line(number: int, move: dict[str, Any]) -> str:
    """One move that is over."""
    end = move["state"] if move["state"] == "done" else f"{move['state']}: {move['error']}"
    return (
        f"move {number:2}  {move['title']:21}  {size(move['state_bytes']):>8} of state  "
        f"fence {_ms(move['fence_ms'])}  captured {move['captured_packets']:5,}  "
        f"strays {move['stray_packets']:4,}  lost {move['lost_packets']}  {end}"
    )


def _ms(value: float | None) -> str:
    return "      - " if value is None else f"{value:5.1f} ms"


def size(count: float) -> str:
    """Bytes in a few letters.

    >>> size(0), size(1536), size(10_000_000)
    ('0 B', '1.5 kB', '10.0 MB')
    """
    if count < 1000:
        return f"{count:.0f} B"
    return f"{count / 1e3:.1f} kB" if count < 1e6 else f"{count / 1e6:.1f} MB"


def view(demo: Demo) -> RenderableType:
    """The live view as it is now."""
    elapsed = (time.monotonic_ns() - demo.began_ns) / 1e9 if demo.began_ns else 0.0
    facts = Table(show_header=False, box=None, pad_edge=False)
    facts.add_column(style="dim", min_width=12)
    facts.add_column(min_width=34)
    facts.add_column(justify="right", min_width=26)
    state = f"[bold yellow]{demo.phase}[/] {demo.cue.title}" if demo.cue else demo.phase
    facts.add_row("now", state, f"{len(demo.moves)} of {len(demo.cues)} moves, {elapsed:.0f} s")
    recent = demo.looks[-RECENT:]
    for name in sorted(recent[-1].buffers if recent else ()):
        fill = max(look.buffers.get(name, 0) for look in recent)
        top = max(look.buffers.get(name, 0) for look in demo.looks)
        facts.add_row(f"{name} holds", bar(fill, top), f"{size(fill)} of at most {size(top)}")
    if demo.udp is not None:
        slowest = max((look.udp_ms for look in recent), default=0.0)
        facts.add_row("UDP", f"{demo.udp.received:,} packets arrived", _lately([slowest]))
    if demo.tcp is not None:
        sent = f"{demo.tcp.bytes_received / 1e6:,.1f} MB arrived"
        facts.add_row("TCP bulk", sent, f"longest stall {demo.tcp.longest_stall * 1e3:.1f} ms")
    if demo.session is not None and demo.session.trips:
        answers = [ms for _, ms in demo.session.trips[-50:]]
        facts.add_row("requests", f"{demo.session.answered:,} answered", _lately(answers))
    if demo.ping is not None and demo.ping.trips:
        trips = [ms for _, ms in demo.ping.trips[-25:]]
        facts.add_row("ping", f"{trips[-1]:.2f} ms there and back", _lately(trips))
    title = Text(
        f"flowferry demo: h1 - switch - [ HSL + {demo.function} ] x 2 - switch - h2", style="bold"
    )
    first = len(demo.moves) - len(demo.moves[-LISTED:]) + 1
    listed = [
        Text(line(first + k, move), style="dim") for k, move in enumerate(demo.moves[-LISTED:])
    ]
    return Group(title, facts, _places(demo), *listed)


def _lately(milliseconds: list[float]) -> str:
    return f"{max(milliseconds):.1f} ms at most lately"


def _places(demo: Demo) -> RenderableType:
    """Which rule's flows are where; `home` is where the rules below say."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("what is where", min_width=18)
    for name in ("i1", "i2"):
        table.add_column(name, justify="center", min_width=6)
    for scene in SCENES:
        place = demo.places.get(scene.title)
        if place is None:
            continue
        moving = demo.cue is not None and demo.cue.scene is scene
        mark = "[bold yellow]…[/]" if moving else "●"
        table.add_row(scene.title, *(mark if place == name else "" for name in ("i1", "i2")))
    return table


def bar(value: float, total: float) -> ProgressBar:
    """A bar of fixed width."""
    return ProgressBar(total=max(total, 1e-9), completed=min(value, max(total, 1e-9)), width=30)
