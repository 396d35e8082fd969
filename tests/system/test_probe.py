"""The probe over a real path: what was sent is what is counted, and every ending reports."""

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from flowferry import probe
from flowferry.testbed import Pair

CLI = [sys.executable, "-c", "from flowferry.cli import main; main()", "probe"]
DEADLINE = 30.0


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    with Pair(static_neighbours=True) as one:
        yield one


@contextmanager
def sinking(pair: Pair, **options: Any) -> Iterator["Future[probe.SinkReport]"]:
    """A sink in h2, ready before the block begins; it ends with the block if that fails."""
    control = probe.Control()
    netns = pair.namespaces["h2"]
    with ThreadPoolExecutor() as pool:
        report = pool.submit(probe.sink, netns=netns, control=control, **options)
        try:
            await_ready(control, report)
            yield report
        except BaseException:
            control.stop()
            raise


def await_ready(control: probe.Control, running: "Future[Any]") -> None:
    until = time.monotonic() + DEADLINE
    while not control.ready and not running.done():
        assert time.monotonic() < until
        threading.Event().wait(0.002)


def send(pair: Pair, to: str = "ip4", **options: Any) -> probe.SendReport:
    address = getattr(pair.hosts["h2"], to)
    return probe.send(address, netns=pair.namespaces["h1"], **options)


def wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < until
        threading.Event().wait(0.005)


@pytest.mark.parametrize("to", ["ip4", "ip6"])
@pytest.mark.parametrize(("flows", "count"), [(1, 2000), (100, 50), (5000, 4)])
def test_every_packet_of_every_flow_is_counted(pair: Pair, to: str, flows: int, count: int) -> None:
    with sinking(pair, per_flow="all") as sunk:
        sent = send(pair, to, flows=flows, count=count, rate=20_000)
    got = sunk.result()
    assert sent["sent"] == flows * count
    assert sent["end_acknowledged"] is True
    assert sent["talk_sent"] > 1
    assert got["clean"], got["verdict"]
    assert (got["sent"], got["received"], got["flows"]) == (flows * count, flows * count, flows)
    assert got["run"] == sent["run"]
    assert got["ended_by"] == "end"
    assert [(f["flow"], f["received"]) for f in got["per_flow"]] == [
        (f, count) for f in range(flows)
    ]
    assert all(f["delay_ns"] is not None for f in got["per_flow"])


def test_frames_of_58_bytes_carry_a_probe_packet(pair: Pair) -> None:
    with sinking(pair) as sunk:
        sent = send(pair, frame=58, flows=10, count=20, rate=2000)
    assert (sent["frame_bytes"], sent["payload_bytes"]) == (58, 16)
    assert sunk.result()["clean"]


@pytest.mark.parametrize("to", ["ip4", "ip6"])
def test_echoed_packets_are_counted_on_both_ends(pair: Pair, to: str) -> None:
    with sinking(pair, echo=True) as sunk:
        sent = send(pair, to, flows=300, count=10, rate=10_000, echo=True)
    replies, got = sent["replies"], sunk.result()
    assert replies is not None
    assert replies["clean"]
    assert (replies["received"], replies["sent_known"]) == (3000, "sender")
    assert got["clean"]
    assert got["role"] == "echo"
    there, back = got["delay_ns"], replies["delay_ns"]
    assert there is not None
    assert back is not None
    assert there["min"] < back["min"]


def test_quiet_flows_have_their_own_rate(pair: Pair) -> None:
    with sinking(pair, per_flow="all") as sunk:
        sent = send(pair, flows=10, quiet=0.4, quiet_rate=2.0, flow_rate=50.0, duration=2.0)
    assert sent["sent_per_flow"] == [100] * 6 + [4] * 4
    assert sent["quiet_flows"] == 4
    assert sunk.result()["clean"]


def test_segments_cut_by_the_kernel_are_single_packets_at_the_sink(pair: Pair) -> None:
    with sinking(pair) as sunk:
        send(pair, flows=3, count=160, segments=16, payload=100, rate=5000)
    assert sunk.result()["clean"]
    assert sunk.result()["received"] == 480


def test_several_threads_send_their_shares(pair: Pair) -> None:
    with sinking(pair, per_flow="all") as sunk:
        sent = send(pair, flows=301, count=10, rate=20_000, threads=2)
    assert sent["sent_per_flow"] == [10] * 301
    assert sunk.result()["clean"], sunk.result()["verdict"]


def test_another_run_is_counted_apart(pair: Pair) -> None:
    with sinking(pair, run=7) as sunk:
        send(pair, run=8, count=50, rate=1000, handshake=None, end=None)
        send(pair, run=7, count=20, rate=1000)
    got = sunk.result()
    assert (got["received"], got["foreign_run"], got["clean"]) == (20, 50, True)


def test_what_the_sink_drops_itself_is_reported_apart(pair: Pair) -> None:
    with sinking(pair, buffer=2304, linger=0.2) as sunk:
        sent = send(pair, count=20_000)
    got = sunk.result()
    assert got["received"] + got["lost"] == sent["sent"]
    # The socket drops greetings and END packets too, which are sent again.
    assert 0 < got["lost"] <= got["sink_dropped"]
    assert "own sockets" in got["verdict"]


def test_sent_counts_from_a_file(pair: Pair, tmp_path: Path) -> None:
    report = tmp_path / "sent.json"
    with sinking(pair):
        probe.write_report(report, send(pair, run=1, flows=7, count=1))  # of an earlier run
    with sinking(pair, sent=report, linger=0.2) as sunk:
        sent = send(pair, run=2, flows=5, count=10, rate=1000, end=None)
        sent["sent_per_flow"][4] += 2
        probe.write_report(report, sent)
    got = sunk.result()
    assert (got["ended_by"], got["sent_known"], got["sent"], got["lost"]) == ("file", "file", 52, 2)


def test_a_timeline_holds_every_packet(pair: Pair, tmp_path: Path) -> None:
    for name in ("packets.csv", "packets.bin"):
        with sinking(pair, timeline=tmp_path / name):
            send(pair, flows=3, count=20, rate=1000)
        rows = list(probe.read_timeline(tmp_path / name))
        assert {(row.flow, row.seq) for row in rows} == {
            (f, s) for f in range(3) for s in range(20)
        }
        assert all(row.arrival == "in order" and row.received_ns >= row.sent_ns for row in rows)


def test_a_timeline_of_milliseconds_adds_up(pair: Pair, tmp_path: Path) -> None:
    path = tmp_path / "ms.csv"
    with sinking(pair, timeline=path, timeline_ms=1.0):
        send(pair, count=200, rate=2000)
    head, *rows = path.read_text().splitlines()
    assert head.split(",")[:2] == ["at_ns", "received"]
    assert sum(int(row.split(",")[1]) for row in rows) == 200


def test_no_sink_is_a_clear_error(pair: Pair) -> None:
    with pytest.raises(probe.ProbeError, match=r"no sink answers at .*probe sink"):
        send(pair, count=1, port=7999, handshake=0.2)


def test_unheard_packets_come_back_as_icmp_errors(pair: Pair) -> None:
    sent = send(pair, count=50, rate=1000, port=7999, handshake=None, end=None)
    assert sent["sent"] == 50
    assert sent["icmp_errors"] > 0


def test_a_frame_beyond_the_mtu_is_refused(pair: Pair) -> None:
    with pytest.raises(probe.ProbeError, match="smaller --frame"):
        send(pair, count=1, frame=1600, handshake=None)


def test_wrong_requests_are_value_errors(pair: Pair) -> None:
    with pytest.raises(ValueError, match="flows"):
        send(pair, flows=0)
    with pytest.raises(ValueError, match="invalid IP address"):
        probe.send("nowhere")
    with pytest.raises(probe.ProbeError, match="ip netns list"):
        probe.sink(netns="ff-there-is-none")


def test_a_stopped_sink_reports_what_it_has(pair: Pair) -> None:
    control = probe.Control()
    with sinking(pair) as sunk, ThreadPoolExecutor() as pool:
        running = pool.submit(send, pair, flows=10, rate=5000, duration=60, control=control)
        wait_for(lambda: control.packets > 100)
        control.stop()
        sent = running.result()
    assert sent["ended_by"] == "stopped"
    assert sent["sent"] == sunk.result()["received"] > 100
    assert sunk.result()["clean"]


def test_the_longest_delay_is_told_once(pair: Pair) -> None:
    control = probe.Control()
    with ThreadPoolExecutor() as pool:
        report = pool.submit(probe.sink, netns=pair.namespaces["h2"], control=control)
        try:
            await_ready(control, report)
            send(pair, count=200, rate=5000)
            delays = report.result(DEADLINE)["delay_ns"]
        finally:
            control.stop()
    assert delays is not None
    assert control.take_slowest() == delays["max"] > 0
    assert control.take_slowest() == 0


class TestCommand:
    """What the command line adds: JSON, tables, exit status, signals."""

    def start(self, pair: Pair, *words: str) -> "subprocess.Popen[str]":
        role = "h1" if words[0] == "send" else "h2"
        return subprocess.Popen(
            [*CLI, *words, "--netns", pair.namespaces[role]],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def test_json_is_one_object_and_the_table_ends_with_the_verdict(self, pair: Pair) -> None:
        sink = self.start(pair, "sink", "--json", "--expect-clean")
        send = self.start(pair, "send", pair.hosts["h2"].ip4, "--count", "100", "--rate", "2000")
        table, _ = send.communicate(timeout=DEADLINE)
        out, err = sink.communicate(timeout=DEADLINE)
        assert (send.returncode, sink.returncode, err) == (0, 0, "")
        assert json.loads(out)["clean"] is True
        assert table.splitlines()[-1] == "sent 100 packets on 1 flows"

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_a_signal_ends_both_in_order(self, pair: Pair, number: signal.Signals) -> None:
        before = packets_received(pair)
        echo = self.start(pair, "echo", "--json")
        address = pair.hosts["h2"].ip6
        send = self.start(pair, "send", address, "--rate", "2000", "--duration", "60", "--json")
        wait_for(lambda: packets_received(pair) > before + 200)
        send.send_signal(number)
        sent = json.loads(send.communicate(timeout=DEADLINE)[0])
        got = json.loads(echo.communicate(timeout=DEADLINE)[0])
        assert (send.returncode, echo.returncode) == (0, 0)
        assert (sent["ended_by"], got["ended_by"]) == ("stopped", "end")
        assert sent["sent"] == got["received"] == got["replied"] - ends(got)
        assert got["clean"]

    def test_a_port_in_use_is_one_line_and_status_1(self, pair: Pair) -> None:
        with sinking(pair, wait=None, ports=1) as sunk:
            second = self.start(pair, "sink", "--ports", "1")
            _, err = second.communicate(timeout=DEADLINE)
            send(pair, count=1)
        assert sunk.result()["received"] == 1
        assert second.returncode == 1
        assert len(err.splitlines()) == 1
        assert "another port" in err

    def test_nothing_received_is_status_1(self, pair: Pair) -> None:
        sink = self.start(pair, "sink", "--wait", "0.1", "--json")
        out, err = sink.communicate(timeout=DEADLINE)
        assert sink.returncode == 1
        assert json.loads(out)["ended_by"] == "nothing"
        assert "nothing arrived" in err


def packets_received(pair: Pair) -> int:
    """UDP datagrams that h2 has delivered, over IPv6."""
    text = subprocess.run(
        ["ip", "netns", "exec", pair.namespaces["h2"], "cat", "/proc/net/snmp6"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return int(text.split("Udp6InDatagrams")[1].split()[0])


def ends(report: probe.SinkReport) -> int:
    """Answers of an echo that are not replies to data: the greeting and END."""
    return report["replied"] - report["received"]
