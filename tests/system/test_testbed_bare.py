"""Chains and pairs: the parts that capture tests and benches build on."""

from collections.abc import Callable

import pytest

from flowferry.testbed import Chain, Pair
from flowferry.testbed.commands import Commands

Throughput = Callable[[Commands, str], float]


@pytest.mark.parametrize("function", ["bridge", "forwarder-direct"])
@pytest.mark.parametrize("offloads", [True, False])
@pytest.mark.parametrize("family", ["ip4", "ip6"])
def test_a_chain_carries_tcp(
    netns_chain: Callable[..., Chain],
    throughput: Throughput,
    function: str,
    offloads: bool,
    family: str,
) -> None:
    chain = netns_chain(function=function, offloads=offloads)
    assert throughput(chain, getattr(chain.hosts["h2"], family)) > 50e6


def test_a_jumbo_pair_carries_tcp(netns_pair: Callable[..., Pair], throughput: Throughput) -> None:
    pair = netns_pair(mtu=9000, offloads=False, static_neighbours=True)
    assert throughput(pair, pair.hosts["h2"].ip6) > 50e6
    assert "PERMANENT" in pair.run("h1", ["ip", "neigh"]).stdout


def test_without_a_function_nothing_joins_the_devices(netns_chain: Callable[..., Chain]) -> None:
    chain = netns_chain(function=None)
    shown = chain.run("nf", ["ip", "-br", "link"]).stdout
    assert {line.split("@")[0].split()[0] for line in shown.splitlines()} == {"lo", "up", "down"}
    assert "master" not in chain.run("nf", ["ip", "link"]).stdout


def test_a_chain_for_the_veth_shim_has_inner_pairs(netns_chain: Callable[..., Chain]) -> None:
    chain = netns_chain(function="forwarder", steering=True)
    for ns, devs in (("nf", {"up", "down", "iup", "idown"}), ("fn", {"fup", "fdown"})):
        shown = chain.run(ns, ["ip", "-br", "link"]).stdout
        assert {line.split("@")[0].split()[0] for line in shown.splitlines()} == {"lo", *devs}
        for dev in devs:
            mask = chain.run(ns, ["cat", f"/sys/class/net/{dev}/queues/rx-0/rps_cpus"]).stdout
            assert int(mask.replace(",", ""), 16) != 0


def test_a_chain_has_a_bpf_file_system_of_its_own(netns_chain: Callable[..., Chain]) -> None:
    chain = netns_chain(function=None)
    shown = chain.run("nf", ["stat", "-f", "-c", "%T", str(chain.bpf)]).stdout
    assert shown.strip() == "bpf_fs"


def test_devices_that_forward_stay_silent(netns_chain: Callable[..., Chain]) -> None:
    chain = netns_chain(function="bridge")
    counters = chain.run("nf", ["cat", "/sys/class/net/br0/statistics/tx_packets"]).stdout
    assert counters.strip() == "0"
    assert "inet6" not in chain.run("nf", ["ip", "addr", "show", "dev", "up"]).stdout


def test_a_failing_command_says_so(netns_pair: Callable[..., Pair]) -> None:
    pair = netns_pair()
    assert pair.run("h1", ["false"], check=False).returncode == 1
    with pytest.raises(FileNotFoundError):
        pair.run("h1", ["no-such-program"])
    with pytest.raises(RuntimeError, match="context manager"):
        Pair().run("h1", ["true"])
