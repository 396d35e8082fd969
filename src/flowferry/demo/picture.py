"""The picture: delay of every probe packet over time with the holds behind it, and the buffer."""

from pathlib import Path
from typing import NamedTuple

import matplotlib

matplotlib.use("Agg")  # no display is needed, and none is looked for

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator

from flowferry import probe
from flowferry.demo.stage import Demo
from flowferry.demo.traffic import FLOWS, QUIET, RATE
from flowferry.demo.verdict import Outcome

#: Colour-blind safe (Okabe and Ito), one per kind of hold in the order of the plan.
TINTS = ("#56B4E9", "#009E73", "#F0E442", "#E69F00", "#D55E00", "#CC79A7")
TINT = 0.4
FILL = "#0072B2"


class Style(NamedTuple):
    """How one kind of packet is drawn."""

    label: str
    marker: str
    colour: str
    size: float
    layer: int


def draw(demo: Demo, outcome: Outcome, path: Path) -> None:
    """Write the PNG. The probe's timeline must still be there."""
    figure = Figure(figsize=(14, 7.5), dpi=120, layout="constrained")
    columns = figure.add_gridspec(2, 2, width_ratios=(2.6, 1), height_ratios=(3, 1))
    delay = figure.add_subplot(columns[0, 0])
    fill = figure.add_subplot(columns[1, 0], sharex=delay)
    near_delay = figure.add_subplot(columns[0, 1])
    near_fill = figure.add_subplot(columns[1, 1], sharex=near_delay)
    points = _points(demo)
    for axes in (delay, near_delay):
        _delays(axes, points)
    for axes in (fill, near_fill):
        _buffer(axes, demo)
    tints = _holds((delay, fill, near_delay, near_fill), demo)
    delay.set_xlim(0, demo.duration)
    delay.set_yscale("log")
    delay.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    delay.set_ylabel("delay of each packet (ms, log scale)")
    delay.set_title("all of it", fontsize=10)
    delay.tick_params(labelbottom=False)
    fill.set_ylabel("held in the\nbuffer (KiB)")
    fill.set_xlabel("time since the traffic began (s); packets stand where they were sent")
    _look_closer(near_delay, near_fill, demo)
    handles, labels = delay.get_legend_handles_labels()
    handles += [Patch(color=tint, alpha=TINT) for tint in tints.values()]
    labels += [f"hold: {title}" for title in tints]
    figure.legend(handles, labels, ncols=5, loc="outside lower center", frameon=False, fontsize=9)
    passed = not outcome.problems()
    figure.suptitle(
        f"Live flows through one function ({outcome.function}, {outcome.shim} shim), captured and"
        f" released {len(outcome.holds)} times: "
        + ("nothing lost, reordered or duplicated" if passed else "FAILED, see the report"),
        fontsize=12,
        fontweight="bold",
        color="black" if passed else "#B00000",
    )
    figure.savefig(path)


def _points(demo: Demo) -> list[tuple[Style, list[float], list[float]]]:
    """Delays in ms over seconds since the traffic began, a series for each kind of packet."""
    assert demo.udp is not None
    assert demo.ping is not None
    busy_flows = FLOWS - round(FLOWS * QUIET)
    busy: tuple[list[float], list[float]] = ([], [])
    quiet: tuple[list[float], list[float]] = ([], [])
    for packet in probe.read_timeline(demo.udp.timeline):
        at, late = busy if packet.flow < busy_flows else quiet
        at.append((packet.sent_ns - demo.began_ns) / 1e9)
        late.append((packet.received_ns - packet.sent_ns) / 1e6)
    began = demo.began_ns / 1e9 + demo.clock_offset
    asked = [at - ms / 1e3 - began for at, ms in demo.ping.trips]
    return [
        (Style(f"UDP, {RATE:,} packets/s a flow (one way)", ".", "#0072B2", 2.5, 2), *busy),
        (
            Style("ping (there and back)", "+", "#D55E00", 5, 3),
            asked,
            [m for _, m in demo.ping.trips],
        ),
        (Style("UDP, quiet flows (one way)", "o", "#000000", 3, 4), *quiet),
    ]


def _delays(axes: Axes, points: list[tuple[Style, list[float], list[float]]]) -> None:
    for style, at, late in points:
        axes.plot(
            at, late, style.marker, label=style.label, color=style.colour,
            markersize=style.size, zorder=style.layer, rasterized=True,
        )  # fmt: skip
    axes.grid(alpha=0.25)


def _look_closer(delay: Axes, fill: Axes, demo: Demo) -> None:
    """One hold by itself: the longest one that took everything, or else the longest."""
    whole = [hold for hold in demo.holds if hold["match"] == "*"] or demo.holds
    hold = max(whole, key=lambda hold: hold["planned_ms"])
    begin = (hold["began_ns"] - demo.began_ns) / 1e9
    length = (hold["ended_ns"] - hold["began_ns"]) / 1e9
    delay.set_xlim(begin - 0.3 * length, begin + 1.5 * length)
    delay.set_ylim(0, 1.15e3 * length)
    delay.set_ylabel("delay of each packet (ms)")
    delay.set_title(f"a closer look: {hold['title']}, {hold['planned_ms']:.1f} ms", fontsize=10)
    delay.tick_params(labelbottom=False)
    fill.set_xlabel("time since the hold began (ms)")
    step = next(s for s in (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 1) if 5 * s > length)
    fill.xaxis.set_major_locator(FixedLocator([begin + k * step for k in range(-2, 7)]))
    fill.xaxis.set_major_formatter(lambda at, _: f"{(at - begin) * 1e3:.0f}")


def _buffer(axes: Axes, demo: Demo) -> None:
    at = [(look.at_ns - demo.began_ns) / 1e9 for look in demo.looks]
    used = [look.buffer_bytes / 1024 for look in demo.looks]
    axes.fill_between(at, used, step="mid", color=FILL, alpha=0.85, linewidth=0.8, zorder=3)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.25)


def _holds(panels: tuple[Axes, ...], demo: Demo) -> dict[str, str]:
    """Shade every hold; the tint of each kind that occurs."""
    tints: dict[str, str] = {}
    for hold in demo.holds:
        tint = tints.setdefault(hold["title"], TINTS[len(tints) % len(TINTS)])
        begin = (hold["began_ns"] - demo.began_ns) / 1e9
        end = (hold["released_ns"] - demo.began_ns) / 1e9
        for axes in panels:
            # The edge keeps a hold of 1 ms visible on an axis of 20 s.
            axes.axvspan(begin, end, color=tint, alpha=TINT, linewidth=1.5, zorder=1)
    return tints
