"""A move is proven from outside: tcpdump at both hosts and at every port of the instances.

Each packet comes out of exactly one instance; of each flow and direction the source's numbers are
all before the destination's; both had some; nothing is lost, reordered or doubled at the hosts; the
interfaces' own counters agree.
"""

from pathlib import Path

import pytest
from handover_rig import Bed, Echo, Numbered, in_order, split_cleanly, witnesses
from hsl_pcap import until

from flowferry.controller import Platform
from flowferry.testbed import Testbed

FLOWS, RATE = 40, 4000


def counters(bed: Testbed, role: str, dev: str) -> dict[str, int]:
    names = ("rx_packets", "tx_packets")
    text = bed.run(role, ["cat", *(f"/sys/class/net/{dev}/statistics/{n}" for n in names)]).stdout
    return dict(zip(names, map(int, text.split()), strict=True))


@pytest.mark.parametrize("steering", [True, False], ids=["steered", "unsteered"])
@pytest.mark.parametrize("function", ["bridge", "forwarder"])
def test_each_packet_is_at_one_instance_and_in_order(
    testbed: Bed, tmp_path: Path, function: str, steering: bool
) -> None:
    bed = testbed(instances=2, function=function, steering=steering)
    # Without steering a sender that moves between CPUs reorders by itself.
    cpu = None if steering else 0
    with Platform(bed, settling_ms=500) as platform:
        bed.run("h1", ["ping", "-c1", "-W5", bed.hosts["h2"].ip4])
        before = counters(bed, "h1", "eth0"), counters(bed, "h2", "eth0")
        with (
            witnesses(bed, tmp_path) as dumps,
            Echo(bed, flows=FLOWS, rate=RATE, cpu=cpu) as echo,
        ):
            done = platform.client.move("udp", "i2", wait=True, timeout=30)
            half = echo.arrived.packets
            until(lambda: echo.arrived.packets >= half + 1000, "traffic through the destination")
        after = counters(bed, "h1", "eth0"), counters(bed, "h2", "eth0")
    assert (done["state"], done["error"]) == ("done", None), done
    assert done["lost_packets"] == done["controller_packets"] == 0
    back = echo.sent["replies"]
    assert back is not None
    for account in (echo.there, back):
        figures = {k: account[k] for k in ("lost", "reordered", "duplicated", "unclassified")}
        assert not any(figures.values()), figures
    run = echo.sent["run"]
    for way, far, near in (("there", "down", "up"), ("back", "up", "down")):
        out = {i: Numbered.of(dumps[f"{i}-{far} {way}"].records(), run, way) for i in ("i1", "i2")}
        assert len(out["i1"]) > 100
        assert len(out["i2"]) > 100
        assert split_cleanly(out["i1"], out["i2"]) == (0, 0)
        assert in_order(out["i1"])
        assert in_order(out["i2"])
        came = {i: Numbered.of(dumps[f"{i}-{near} {way}"].records(), run, way) for i in out}
        first, last = ("h1", "h2") if way == "there" else ("h2", "h1")
        sent = Numbered.of(dumps[f"{first} {way}"].records(), run, way)
        got = Numbered.of(dumps[f"{last} {way}"].records(), run, way)
        assert in_order(got)
        assert len(sent) == len(got) == len(out["i1"]) + len(out["i2"])
        assert len(sent) == len(came["i1"]) + len(came["i2"])
    # What the hosts' interfaces counted: the same number left one and reached the other.
    h1, h2 = ({k: b[k] - a[k] for k in a} for a, b in zip(before, after, strict=True))
    assert h1["tx_packets"] == h2["rx_packets"]
    assert h2["tx_packets"] == h1["rx_packets"]
