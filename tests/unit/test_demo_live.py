"""What the live view of the demo shows."""

from types import SimpleNamespace
from typing import Any

from rich.console import Console

from flowferry.demo import Demo, plan
from flowferry.demo.live import view
from flowferry.demo.stage import Look


def shown(demo: Demo) -> str:
    console = Console(width=120)
    with console.capture() as captured:
        console.print(view(demo))
    return captured.get()


def test_it_shows_how_long_udp_packets_take() -> None:
    udp: Any = SimpleNamespace(received=4321)
    demo = Demo("bridge", plan(1), udp=udp)
    demo.looks = [Look(n, {"i1": 0, "i2": 0}, ms) for n, ms in enumerate((7.0, *[0.0] * 98, 2.5))]
    (line,) = (line for line in shown(demo).splitlines() if line.startswith("UDP"))
    assert "4,321 packets arrived" in line
    assert "7.0 ms at most lately" in line
    demo.looks.append(Look(100, {"i1": 0, "i2": 0}, 0.1))  # half a second later
    assert "2.5 ms at most lately" in shown(demo)
