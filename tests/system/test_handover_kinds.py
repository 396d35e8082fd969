"""Moves of IPv6 and of a VLAN, in one group of a chain, and from sources of which one dies."""

from collections.abc import Sequence
from typing import Any

from handover_rig import Bed, Echo, Function, wait_for
from hsl_pcap import until

from flowferry.controller import Platform, wiring
from flowferry.hsl.agent import Interfaces
from flowferry.testbed import Testbed

SETTLING = 400


def clean(echo: Echo) -> None:
    """Nothing lost, reordered or doubled, there or back."""
    for account in (echo.there, echo.sent["replies"]):
        assert account is not None
        figures = {k: account[k] for k in ("lost", "reordered", "duplicated", "unclassified")}
        assert not any(figures.values()), figures


def well(handover: dict[str, Any], flows: int) -> None:
    """It is done, and nothing was lost or came to the controller."""
    assert (handover["state"], handover["error"], handover["flows"]) == ("done", None, flows)
    assert (handover["lost_packets"], handover["controller_packets"]) == (0, 0), handover
    assert handover["flags"] == []


def served(platform: Platform, instance: str, wanted: str = "") -> int:
    """How many UDP flows, with a text in their names, an instance's function has now."""
    with platform.agents[instance].client() as client:
        flows = client.flows(limit=100_000)
    names = {flow["flow"] for flow in flows if flow["owned"]}  # one on each side
    return sum(name.startswith("udp") and wanted in name for name in names)


def more(echo: Echo, packets: int = 300) -> None:
    so_far = echo.arrived.packets
    until(lambda: echo.arrived.packets >= so_far + packets, "more traffic")


def test_a_rule_of_ipv6_moves_it_and_nothing_else(testbed: Bed) -> None:
    bed = testbed(instances=2, steering=True, ports="afxdp-nonpmd")
    h1, h2 = bed.hosts["h1"], bed.hosts["h2"]
    with Platform(bed, settling_ms=SETTLING) as platform:
        for address in (h2.ip4, h2.ip6):
            bed.run("h1", ["ping", "-c1", "-W5", address])
        client = platform.client
        with (
            Echo(bed, flows=6, rate=1000, to=h2.ip4) as four,
            Echo(bed, flows=5, rate=1000, to=h2.ip6, frame=100) as six,
        ):
            more(six)
            well(client.move(f"udp6,ipv6_src={h1.ip6}", "i2", priority=50, wait=True), 5)
            more(six)
            assert (served(platform, "i1", h2.ip4), served(platform, "i2", h2.ip4)) == (6, 0)
            assert (served(platform, "i1", h2.ip6), served(platform, "i2", h2.ip6)) == (0, 5)
            # A prefix that nobody is in moves nobody; the whole of IPv6 moves them home.
            well(client.move("udp6,ipv6_src=fd01::/16", "i1", priority=60, wait=True), 0)
            well(client.move("ipv6", "i1", priority=70, wait=True), 5)
            more(six)
            more(four)
        clean(four)
        clean(six)


def test_a_rule_of_a_vlan_moves_it_and_nothing_else(testbed: Bed) -> None:
    """The switches tag two of six flows on their way to the instances, and untag them behind."""
    bed = testbed(instances=2, steering=True, ports="afxdp-nonpmd")
    vid = 5
    with Platform(bed, settling_ms=SETTLING) as platform:
        for switch, port in (("ingress", "tp_dst"), ("egress", "tp_src")):
            there = bed.switches[switch]
            tag = f"push_vlan:0x8100,set_field:{0x1000 | vid}->vlan_vid"
            table = platform_table(switch)
            into = f"in_port={there.host_port},udp,{port}=7002/0xfffe,actions={tag}"
            out = f"dl_vlan={vid},actions=pop_vlan,output:{there.host_port}"
            numbers = [number for name, number in there.ports.items() if name.startswith("i")]
            put(bed, switch, [f"{into},goto_table:{table}"])
            put(bed, switch, [f"in_port={number},{out}" for number in numbers])
        client = platform.client
        bed.run("h1", ["ping", "-c1", "-W5", bed.hosts["h2"].ip4])

        def places() -> tuple[int, ...]:
            """Flows at i1 and i2 that are tagged, and others."""
            return tuple(
                served(platform, name, text) for text in ("dl_vlan=5", "") for name in ("i1", "i2")
            )

        with Echo(bed, flows=6, rate=1000, port=7000) as echo:
            more(echo)
            assert places() == (2, 0, 6, 0)
            well(client.move(f"udp,dl_vlan={vid}", "i2", wait=True), 2)
            more(echo)
            assert places() == (0, 2, 4, 2)
            well(client.move(f"udp,dl_vlan={vid + 1}", "i2", wait=True), 0)
            well(client.move(f"udp,dl_vlan={vid}", "i1", wait=True), 2)
            more(echo)
            assert places() == (2, 0, 6, 0)
        clean(echo)


def platform_table(switch: str) -> int:
    """Where the rules of the only group begin: ten unless told otherwise, downstream behind it."""
    return {"ingress": 10, "egress": 11}[switch]


PATCH = 60


def lead_back(bed: Testbed) -> None:
    """Entries of somebody else: what comes out behind the second group goes to h2, and back."""
    egress = bed.switches["egress"]
    ways = (egress.host_port, PATCH), (PATCH, egress.host_port)
    put(bed, "egress", [f"in_port={here},actions=output:{out}" for here, out in ways])


def put(bed: Testbed, switch: str, entries: Sequence[str]) -> None:
    """Add entries of somebody else, above the controller's."""
    for entry in entries:
        words = ["add-flow", bed.switches[switch].management, f"cookie=7,priority=65200,{entry}"]
        bed.owner.run(None, ["ovs-ofctl", "-O", "OpenFlow13", *words])


def in_a_chain(bed: Testbed) -> dict[str, Any]:
    """Fields for a `Platform`: i1 and i2 first, then i3 and i4, turned round, back to the ingress.

    Between the same two switches; a patch of both leads from behind the second group to h2.
    """
    ingress, egress = bed.switches["ingress"], bed.switches["egress"]
    words = []
    for own, bridge, peer in (("there", "ingress", "back"), ("back", "egress", "there")):
        words += ["--", "add-port", bridge, own, "--", "set", "Interface", own, "type=patch"]
        words += [f"options:peer={peer}", f"ofport_request={PATCH}"]
    bed.owner.run(None, ["ovs-vsctl", f"--db={bed.ovs.database}", *words[1:]])
    (whole,) = wiring.config_for(bed)["groups"]
    first, second = whole["instances"][:2], whole["instances"][2:]
    for one in second:
        ports = one["upstream_port"], one["downstream_port"]
        one["downstream_port"], one["upstream_port"] = ports
    groups = [
        {
            "name": "one",
            "upstream": {"dpid": ingress.dpid, "ports": [ingress.host_port]},
            "downstream": {"dpid": egress.dpid, "group": "two"},
            "instances": first,
        },
        {
            "name": "two",
            "upstream": {"dpid": egress.dpid, "group": "one"},
            "downstream": {"dpid": ingress.dpid, "ports": [PATCH]},
            "instances": second,
        },
    ]
    turned = {"interfaces": Interfaces("down", "up")}
    return {"groups": groups, "agents": {"i3": turned, "i4": turned}}


def test_a_flow_moves_in_one_group_of_a_chain_while_the_other_carries_it(testbed: Bed) -> None:
    bed = testbed(instances=4, steering=True, ports="afxdp-nonpmd")
    with Platform(bed, settling_ms=SETTLING, **in_a_chain(bed)) as platform:
        client = platform.client
        lead_back(bed)
        bed.run("h1", ["ping", "-c1", "-W5", bed.hosts["h2"].ip4])

        def places() -> tuple[int, ...]:
            return tuple(served(platform, f"i{k}") for k in (1, 2, 3, 4))

        with Echo(bed, flows=12, rate=1500) as echo:
            more(echo)
            assert places() == (12, 0, 12, 0)
            well(client.move("udp", "i2", group="one", wait=True), 12)
            more(echo)
            assert places() == (0, 12, 12, 0)
            well(client.move("udp", "i4", group="two", wait=True), 12)
            more(echo)
            assert places() == (0, 12, 0, 12)
            # Both at once: the same flows, each group its own handover.
            begun = [
                client.move("udp", "i1", group="one"),
                client.move("udp", "i3", group="two"),
            ]
            for each in begun:
                well(client.wait(each["id"]), 12)
            more(echo)
            assert places() == (12, 0, 12, 0)
        clean(echo)


def test_one_dead_source_of_three_fails_its_own_flows_only(testbed: Bed) -> None:
    """It dies with its state not out: its flows go on without state, loudly; the others' do not."""
    bed = testbed(instances=4, steering=True, ports="afxdp-nonpmd")
    names = [one.name for one in bed.instances]
    with Platform(bed, settling_ms=SETTLING, function_sockets=True) as platform:
        client = platform.client
        bed.run("h1", ["ping", "-c1", "-W5", bed.hosts["h2"].ip4])
        for port, name in ((7001, "i2"), (7002, "i3")):
            client.move(f"udp,tp_dst={port}/0xffff", name, priority=10, wait=True)
        sockets = {name: bed.owner.directory / f"fn-{name}.sock" for name in names}
        with (
            Function(sockets["i1"]),
            Function(sockets["i2"], holds=("export",)) as dying,
            Function(sockets["i3"]),
            Function(sockets["i4"]) as taker,
            Echo(bed, flows=3, rate=1500, port=7000) as echo,
        ):
            more(echo)
            begun = client.move("udp", "i4", priority=100)
            dying.await_event("export")
            platform.agents["i2"].kill()
            over = wait_for(client, begun["id"], ("done", "failed", "aborted"))
            more(echo)
            rules = {rule["match"]: rule["to"] for rule in client.rules()}
            assert served(platform, "i4") == 3
            assert taker.names().count("import") == 2
        assert over["state"] == "failed"
        assert over["error"].startswith("state lost: ")
        assert "instance 2" in over["error"]
        assert set(over["flags"]) == {"state_lost", "unfenced"}
        assert over["flows"] == 3
        assert over["controller_packets"] == 0
        assert rules["udp"] == "i4"
        assert {part["source"]: part["state"] for part in over["parts"]} == dict.fromkeys(
            names[:3], "done"
        )
        for account in (echo.there, echo.sent["replies"]):
            assert account is not None
            assert (account["duplicated"], account["reordered"]) == (0, 0)
            lost = {flow["flow"]: flow["lost"] for flow in account["per_flow"]}
            assert (lost[0], lost[2]) == (0, 0), lost  # those of i1 and i3
