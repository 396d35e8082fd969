"""State goes with its flows: by shell hooks from instance to instance, or not at all."""

import hashlib
import os
import socket
from contextlib import ExitStack
from pathlib import Path

from handover_rig import Bed, Echo, Function, adapters, clean
from hsl_pcap import until

from flowferry.controller import Platform
from flowferry.testbed import Testbed, namespace

SETTLING = 400


def build(testbed: Bed) -> Testbed:
    return testbed(instances=2, steering=True, ports="afxdp-nonpmd")


def test_real_bytes_move_and_packets_wait_for_them(testbed: Bed, tmp_path: Path) -> None:
    bed = build(testbed)
    state = os.urandom(5_000_000)
    (tmp_path / "state").write_bytes(state)
    with Platform(bed, settling_ms=SETTLING, function_sockets=True) as platform:
        take = f'cat > {tmp_path}/got-"$FLOWFERRY_HANDOVER"; cp "$FLOWFERRY_FLOWS" {tmp_path}/flows'
        with adapters(platform, tmp_path, f"cat {tmp_path}/state", take):
            with Echo(bed, flows=10, rate=2000) as echo:
                done = platform.client.move("udp", "i2", wait=True)
            clean(echo)
    assert (done["state"], done["error"]) == ("done", None)
    # 5 MB at 400 Mbit/s take 100 ms at least; so long the flows' packets were kept.
    assert done["transfer_ms"] >= 100
    assert done["captured_packets"] >= 100
    got = tmp_path / f"got-{done['id'] << 8 | 1}"
    assert hashlib.sha256(got.read_bytes()).digest() == hashlib.sha256(state).digest()
    assert len((tmp_path / "flows").read_text().splitlines()) == 10


def test_a_failing_export_takes_everything_back_in_order(testbed: Bed, tmp_path: Path) -> None:
    bed = build(testbed)
    with Platform(bed, settling_ms=SETTLING, function_sockets=True) as platform:
        export = "sleep 0.1; echo the table is locked >&2; exit 1"
        with adapters(platform, tmp_path, export, "cat > /dev/null"):
            with Echo(bed, flows=10, rate=2000) as echo:
                over = platform.client.move("udp", "i2", wait=True)
                assert over["state"] == "aborted", over
                assert "the table is locked" in over["error"]
                so_far = echo.arrived.packets
                until(lambda: echo.arrived.packets > so_far + 500, "traffic at the source")
            clean(echo)
        rules = [rule for rule in platform.client.rules() if rule["priority"]]
    assert not rules


def test_a_failing_import_takes_everything_back_in_order(testbed: Bed, tmp_path: Path) -> None:
    bed = build(testbed)
    with Platform(bed, settling_ms=SETTLING, function_sockets=True) as platform:
        take = "cat > /dev/null; echo no room >&2; exit 1"
        with adapters(platform, tmp_path, "echo state", take):
            with Echo(bed, flows=10, rate=2000) as echo:
                over = platform.client.move("udp", "i2", wait=True)
                assert over["state"] == "aborted", over
                assert "no room" in over["error"]
            clean(echo)


def test_a_function_hears_every_step_in_order(testbed: Bed) -> None:
    bed = build(testbed)
    with Platform(bed, settling_ms=SETTLING, function_sockets=True) as platform:
        ends = [bed.owner.directory / f"fn-{name}.sock" for name in ("i1", "i2")]
        with Function(ends[0]) as source, Function(ends[1]) as taker:
            with Echo(bed, flows=10, rate=2000) as echo:
                done = platform.client.move("udp", "i2", wait=True)
            clean(echo)
            assert done["state"] == "done"
            source.await_event("released")
            taker.await_event("released")
            told = [name for name in source.names() if name != "flows"]
            assert told == ["prepare", "drain", "freeze", "export", "released"]
            assert [name for name in taker.names() if name != "flows"] == [
                "prepare",
                "import",
                "released",
            ]
            exported = next(event for event in source.heard if event["event"] == "export")
            assert len(exported["flows"]) == 10


class Talk:
    """Two UDP flows from h1 to h2, and what has come of them there."""

    def __init__(self, bed: Testbed, stack: ExitStack) -> None:
        """Nothing has been sent."""
        h1, h2 = bed.hosts["h1"], bed.hosts["h2"]
        bed.run("h1", ["ping", "-c1", "-W5", h2.ip4])
        self._to = (h2.ip4, 9000)
        self._sink = stack.enter_context(namespace.call(h2.namespace, lambda: udp(h2.ip4, 9000)))
        names = (b"known", b"new")
        self._ends = {
            name: stack.enter_context(namespace.call(h1.namespace, lambda: udp(h1.ip4, 0)))
            for name in names
        }
        self._sent = dict.fromkeys(names, 0)
        self.got: dict[bytes, list[int]] = {name: [] for name in names}
        port = self._ends[b"new"].getsockname()[1]
        #: The new flow, as agents name it.
        self.new = f"udp,nw_src={h1.ip4},nw_dst={h2.ip4},tp_src={port},tp_dst=9000"

    def send(self, name: bytes, packets: int) -> None:
        """The next packets of a flow."""
        for _ in range(packets):
            self._ends[name].sendto(b"%s %d" % (name, self._sent[name]), self._to)
            self._sent[name] += 1

    def receive(self, packets: int) -> None:
        """So many packets come, of whichever flow."""
        for _ in range(packets):
            name, number = self._sink.recv(100).split()
            self.got[name].append(int(number))

    def in_order(self, name: bytes, packets: int) -> None:
        """All that was sent has come, in order."""
        assert self.got[name] == list(range(packets))


def test_a_flow_on_no_list_does_not_wait_for_the_state_of_others(testbed: Bed) -> None:
    """It begins when the source is frozen and has said which flows it gives away."""
    bed = build(testbed)
    with ExitStack() as stack:
        platform = stack.enter_context(Platform(bed, settling_ms=SETTLING, function_sockets=True))
        talk = Talk(bed, stack)
        talk.send(b"known", 1)
        talk.receive(1)
        ends = [bed.owner.directory / f"fn-{name}.sock" for name in ("i1", "i2")]
        source = Function(ends[0], holds=["export"], new_flows=True)
        stack.enter_context(source)
        taker = stack.enter_context(Function(ends[1], new_flows=True))
        begun = platform.client.move("udp", "i2")
        source.await_event("export")
        talk.send(b"known", 20)
        talk.send(b"new", 20)
        talk.receive(20)  # nothing of the flow whose state is on its way
        talk.in_order(b"new", 20)
        assert "import" not in taker.names()
        talk.send(b"new", 20)
        source.go()
        talk.receive(40)
        talk.in_order(b"new", 40)
        talk.in_order(b"known", 21)
        done = platform.client.wait(begun["id"])
        assert (done["state"], done["lost_packets"]) == ("done", 0)
        exported = next(event for event in source.heard if event["event"] == "export")
        assert len(exported["flows"]) == 1
        taker.await_event("released")
        with platform.agents["i2"].client() as agent:
            owned = {one["flow"] for one in agent.flows(limit=100) if one["owned"]}
        assert talk.new in owned


def test_called_off_the_state_of_a_new_flow_goes_back_with_it(testbed: Bed, tmp_path: Path) -> None:
    """Real bytes: what the function at the destination has made of the new flow meanwhile."""
    bed = build(testbed)
    with ExitStack() as stack:
        platform = stack.enter_context(Platform(bed, settling_ms=SETTLING, function_sockets=True))
        talk = Talk(bed, stack)
        talk.send(b"known", 1)
        talk.receive(1)
        slow = f'case "$FLOWFERRY_PEER" in {bed.instances[1].mgmt_ip}:*) sleep 60;; esac'
        export = f'cat "$FLOWFERRY_FLOWS"; touch {tmp_path}/begun; {slow}'
        take = f'cat > {tmp_path}/got; cp "$FLOWFERRY_FLOWS" {tmp_path}/flows'
        stack.enter_context(adapters(platform, tmp_path, export, take))
        begun = platform.client.move("udp", "i2")
        until((tmp_path / "begun").exists, "the export")
        talk.send(b"known", 20)
        talk.send(b"new", 20)
        talk.receive(20)
        talk.in_order(b"new", 20)
        platform.client.abort(begun["id"])
        talk.send(b"new", 20)
        talk.receive(40)
        over = platform.client.wait(begun["id"])
        assert (over["state"], over["lost_packets"], over["flags"]) == ("aborted", 0, [])
        talk.in_order(b"new", 40)
        talk.in_order(b"known", 21)
        assert (tmp_path / "got").read_text() == (tmp_path / "flows").read_text() == talk.new + "\n"
        with platform.agents["i1"].client() as agent:
            owned = {one["flow"] for one in agent.flows(limit=100) if one["owned"]}
        assert talk.new in owned


def udp(address: str, port: int) -> socket.socket:
    end = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    end.bind((address, port))
    end.settimeout(20)
    return end


def test_called_off_while_the_state_is_on_its_way(testbed: Bed) -> None:
    bed = build(testbed)
    with Platform(bed, settling_ms=SETTLING, function_sockets=True) as platform:
        ends = [bed.owner.directory / f"fn-{name}.sock" for name in ("i1", "i2")]
        with Function(ends[0], holds=["export"]) as source, Function(ends[1]) as taker:
            with Echo(bed, flows=10, rate=2000) as echo:
                begun = platform.client.move("udp", "i2")
                source.await_event("export")
                so_far = echo.arrived.packets
                platform.client.abort(begun["id"])
                over = platform.client.wait(begun["id"])
                assert over["state"] == "aborted", over
                assert over["lost_packets"] == 0
                until(lambda: echo.arrived.packets > so_far + 500, "traffic at the source")
            clean(echo)
            source.await_event("aborted")
            taker.await_event("aborted")
            assert "import" not in taker.names()


def test_a_buffer_that_is_half_full_takes_everything_back_in_order(testbed: Bed) -> None:
    """The state does not come, and packets gather; the other half has to last for the way back."""
    bed = build(testbed)
    room = 400_000  # of some 1,000 small packets each second
    with Platform(
        bed, settling_ms=SETTLING, function_sockets=True, agent={"buffer_bytes": room}
    ) as platform:
        ends = [bed.owner.directory / f"fn-{name}.sock" for name in ("i1", "i2")]
        with Function(ends[0]), Function(ends[1], holds=["import"]) as taker:
            with Echo(bed, flows=10, rate=500) as echo:
                over = platform.client.move("udp", "i2", wait=True)
                assert over["state"] == "aborted", over
                assert "the buffer is half full" in over["error"]
                assert over["lost_packets"] == 0
                assert room / 2 <= over["captured_bytes_peak"] < room
                so_far = echo.arrived.packets
                until(lambda: echo.arrived.packets > so_far + 200, "traffic at the source")
            clean(echo)
            taker.await_event("aborted")
