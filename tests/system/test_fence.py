"""A marker on the barrier reply is no fence; one behind the first packet on the new path is.

On a real Open vSwitch under load; what is counted comes from the old instance's agent, behind its
flush of every CPU's queue (`flowferry bench fence` is the same measurement, with figures).
"""

from collections.abc import Callable

import pytest

from flowferry.bench.fence import bench

FAST, THOROUGH = 40, 1_000


def late_flips(name: str, mode: str, flips: int, ports: str, steering: bool) -> list[int]:
    """Flips with packets behind the marker: how many packets each."""
    with bench(name, ports=ports, steering=steering) as bed:
        found = [bed.flip(mode).late for _ in range(flips)]  # type: ignore[arg-type]
    return [late for late in found if late]


def test_on_the_barrier_reply_packets_come_behind_the_marker(run_name: Callable[[], str]) -> None:
    late = late_flips(run_name(), "barrier", 100, "system", False)
    print(f"{len(late)} of 100 flips, {sum(late)} packets")
    assert late


@pytest.mark.parametrize("sender", ["first-packet", "destination"])
@pytest.mark.parametrize(("ports", "steering"), [("system", False), ("afxdp-nonpmd", True)])
def test_behind_the_first_packet_none_come(
    run_name: Callable[[], str], ports: str, steering: bool, sender: str
) -> None:
    assert late_flips(run_name(), sender, FAST, ports, steering) == []


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.parametrize("sender", ["first-packet", "destination"])
@pytest.mark.parametrize("steering", [False, True], ids=["plain", "steered"])
@pytest.mark.parametrize("ports", ["system", "afxdp-nonpmd"])
def test_a_thousand_flips(
    run_name: Callable[[], str], ports: str, steering: bool, sender: str
) -> None:
    assert late_flips(run_name(), sender, THOROUGH, ports, steering) == []
