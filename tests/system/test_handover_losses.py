"""What a dead destination held is a loss of its handover, known once somebody has counted it."""

import os
import signal
from collections.abc import Callable

from handover_rig import Echo, Function, wait_for
from hsl_pcap import until

from flowferry.controller import Platform
from flowferry.testbed import Testbed


def test_the_next_agent_says_what_a_dead_destination_held(
    testbed: Callable[..., Testbed],
) -> None:
    bed = testbed(instances=2, steering=True, ports="afxdp-nonpmd")
    with Platform(bed, function_sockets=True, settling_ms=400, heartbeat_ms=200) as platform:
        client, agent = platform.client, platform.agents["i2"]
        sockets = [bed.owner.directory / f"fn-{name}.sock" for name in ("i1", "i2")]
        with (
            Function(sockets[0]),
            Function(sockets[1], holds=("import",)) as taker,
            Echo(bed, flows=10, rate=1000) as echo,
        ):
            begun = client.move("udp", "i2")
            taker.await_event("import")

            def held() -> bool:
                with agent.client() as control:
                    (hold,) = [h for h in control.holds() if h["id"] == begun["id"] << 8 | 1]
                return bool(hold["kept_bytes"])

            until(held, "packets at the destination")
            os.kill(agent.pid, signal.SIGKILL)
            over = wait_for(client, begun["id"], ("aborted", "failed"))
            assert over["lost_packets"] == 0  # nobody can know yet
            platform.start_agent("i2")
            with platform.agents["i2"].client() as control:
                lost = control.status()["takeover_lost_packets"]
            assert lost > 0
            until(
                lambda: client.handover(begun["id"])["lost_packets"] > 0,
                "the heartbeat that says what was lost",
            )
            assert client.handover(begun["id"])["lost_packets"] == lost
        back = echo.sent["replies"]
        assert back is not None
        assert (back["reordered"], back["duplicated"]) == (0, 0)
        assert back["lost"] <= lost
