"""The picture: delay of every packet over time with the moves behind it, and the buffers below."""

import textwrap
from pathlib import Path
from typing import NamedTuple

import matplotlib

matplotlib.use("Agg")  # no display is needed, and none is looked for

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from flowferry import probe
from flowferry.demo.cues import SCENES
from flowferry.demo.stage import Demo
from flowferry.demo.traffic import FLOWS, QUIET, RATE
from flowferry.demo.verdict import Outcome

#: Colour-blind safe (Okabe and Ito), one for each scene.
TINTS = dict(
    zip(
        (scene.title for scene in SCENES),
        ("#56B4E9", "#009E73", "#F0E442", "#E69F00", "#D55E00", "#CC79A7"),
        strict=True,
    )
)
TINT = 0.4
FILLS = ("#0072B2", "#D55E00")


class Series(NamedTuple):
    """One kind of packet: how it is drawn, and its delays (ms) over time (s)."""

    label: str
    marker: str
    colour: str
    size: float
    layer: int
    at: list[float]
    late: list[float]


def draw(demo: Demo, outcome: Outcome, timeline: Path, path: Path) -> None:
    """Write the PNG. `timeline`: the probe's."""
    figure = Figure(figsize=(14, 7.5), dpi=120, layout="constrained")
    columns = figure.add_gridspec(2, 2, width_ratios=(2.6, 1), height_ratios=(3, 1))
    delay = figure.add_subplot(columns[0, 0])
    fill = figure.add_subplot(columns[1, 0], sharex=delay)
    near_delay = figure.add_subplot(columns[0, 1])
    near_fill = figure.add_subplot(columns[1, 1], sharex=near_delay)
    series = _series(demo, timeline)
    for axes in (delay, near_delay):
        _delays(axes, series)
    for axes in (fill, near_fill):
        _buffers(axes, demo)
    for axes in (delay, near_delay):
        _spots(axes, outcome)
    tints = _moves((delay, fill, near_delay, near_fill), demo)
    delay.set_xlim(0, outcome.duration)
    delay.set_yscale("log")
    delay.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    delay.set_ylabel("delay of each packet (ms, log scale)")
    delay.set_title("all of it; a band is a move with its state, a line its request", fontsize=10)
    delay.tick_params(labelbottom=False)
    fill.set_ylabel("held in the\nbuffers (KiB)")
    fill.set_xlabel("time since the traffic began (s); packets stand where they were sent")
    fill.legend(loc="upper right", fontsize=8)
    _look_closer(near_delay, near_fill, demo, series)
    handles, labels = delay.get_legend_handles_labels()
    handles += [Patch(color=TINTS[title], alpha=TINT) for title in tints]
    labels += [f"move: {title}" for title in tints]
    figure.legend(handles, labels, ncols=5, loc="outside lower center", frameon=False, fontsize=9)
    passed = not outcome.problems()
    figure.suptitle(
        f"Live flows moved {len(outcome.moves)} times between two running instances"
        f" ({outcome.function}): "
        + ("nothing lost, reordered or duplicated" if passed else _failure(outcome)),
        fontsize=12,
        fontweight="bold",
        color="black" if passed else "#B00000",
    )
    figure.savefig(path)


def _failure(outcome: Outcome) -> str:
    return "\n" + textwrap.shorten(f"FAILED: {outcome.problems()[0]}", 150, placeholder=" …")


def _series(demo: Demo, timeline: Path) -> list[Series]:
    """Delays over seconds since the traffic began."""
    assert demo.session is not None
    assert demo.ping is not None
    busy_flows = FLOWS - round(FLOWS * QUIET)
    busy: tuple[list[float], list[float]] = ([], [])
    quiet: tuple[list[float], list[float]] = ([], [])
    for packet in probe.read_timeline(timeline):
        at, late = busy if packet.flow < busy_flows else quiet
        at.append((packet.sent_ns - demo.began_ns) / 1e9)
        late.append((packet.received_ns - packet.sent_ns) / 1e6)
    began = demo.began_ns / 1e9
    pings = [(at - ms / 1e3 - demo.clock_offset - began, ms) for at, ms in demo.ping.trips]
    asked = [(at - began, ms) for at, ms in demo.session.trips]
    return [
        Series(f"UDP, {RATE:,} packets/s a flow (one way)", ".", "#0072B2", 2.5, 2, *busy),
        Series("TCP request and answer", ".", "#009E73", 3, 3, *_columns(asked)),
        Series("ping (there and back)", "+", "#D55E00", 5, 4, *_columns(pings)),
        Series("UDP, quiet flows (one way)", "o", "#000000", 3, 5, *quiet),
    ]


def _columns(pairs: list[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [at for at, _ in pairs], [ms for _, ms in pairs]


def _delays(axes: Axes, series: list[Series]) -> None:
    for one in series:
        axes.plot(
            one.at, one.late, one.marker, label=one.label, color=one.colour,
            markersize=one.size, zorder=one.layer, rasterized=True,
        )  # fmt: skip
    axes.grid(alpha=0.25)


def _spots(axes: Axes, outcome: Outcome) -> None:
    """A cross at the upper edge wherever packets went amiss."""
    if outcome.spots:
        at = [(spot.from_s + spot.to_s) / 2 for spot in outcome.spots]
        axes.plot(
            at, [0.97] * len(at), "X", label="lost, reordered or duplicated", color="#B00000",
            markersize=9, zorder=6, transform=axes.get_xaxis_transform(),
        )  # fmt: skip


def _look_closer(delay: Axes, fill: Axes, demo: Demo, series: list[Series]) -> None:
    """The move that delayed a packet most."""

    def worst(move: dict[str, int]) -> float:
        begin, end = _span(demo, move)
        return max(
            (
                late
                for one in series
                for at, late in zip(one.at, one.late, strict=True)
                if begin - 0.05 <= at <= end
            ),
            default=0.0,
        )

    if not demo.moves:
        return
    longest, move = max(((worst(move), move) for move in demo.moves), key=lambda pair: pair[0])
    begin, _ = _span(demo, move)
    length = max(longest / 1e3, 0.005)
    delay.set_xlim(begin - 0.5 * length, begin + 2.5 * length)
    delay.set_ylim(0, 1.15e3 * length)
    delay.set_ylabel("delay of each packet (ms)")
    delay.set_title(f"a closer look: {move['title']}", fontsize=10)
    delay.tick_params(labelbottom=False)
    fill.set_xlabel("time since the request (ms)")
    ticks = MaxNLocator(6).tick_values(-0.5e3 * length, 2.5e3 * length)
    fill.set_xticks([begin + at / 1e3 for at in ticks[1:-1]])
    fill.xaxis.set_major_formatter(lambda at, _: f"{(at - begin) * 1e3:.3g}")


def _buffers(axes: Axes, demo: Demo) -> None:
    at = [(look.at_ns - demo.began_ns) / 1e9 for look in demo.looks]
    names = sorted({name for look in demo.looks for name in look.buffers})
    for name, colour in zip(names, FILLS, strict=False):
        used = [look.buffers.get(name, 0) / 1024 for look in demo.looks]
        axes.fill_between(
            at, used, step="mid", color=colour, alpha=0.7, linewidth=0.8, zorder=3, label=name
        )
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.25)


def _span(demo: Demo, move: dict[str, int]) -> tuple[float, float]:
    """When a move was asked for, and when its state was over (s)."""
    begin = (move["asked_ns"] - demo.began_ns) / 1e9
    busy = max(move.get("transfer_ms") or 0.0, move.get("fence_ms") or 0.0) / 1e3
    return begin, min(begin + busy + 0.005, (move["over_ns"] - demo.began_ns) / 1e9)


def _moves(panels: tuple[Axes, ...], demo: Demo) -> list[str]:
    """Shade every move; the scenes that occur."""
    seen: dict[str, None] = {}
    for cue, move in zip(demo.cues, demo.moves, strict=False):
        tint = TINTS[cue.scene.title]
        seen[cue.scene.title] = None
        begin, end = _span(demo, move)
        for axes in panels:
            axes.axvspan(begin, end, color=tint, alpha=TINT, linewidth=1.5, zorder=1)
            axes.axvline(begin, color=tint, linewidth=1, zorder=1)
    return list(seen)
