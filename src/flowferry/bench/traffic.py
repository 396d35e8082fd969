"""One measurement of what a chain carries: TCP by iperf3, small UDP packets by the probe.

Who sends runs on the first CPU, a TCP receiver on the last: on a virtual link the whole path to the
receiver's socket is work of the sending CPU, and a scheduler free to put both on one CPU halves the
figure whenever it does. The probe's sink, agents and functions run where the scheduler likes.
"""

import json
import os
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from flowferry import probe
from flowferry.testbed import Chain, TestbedError

SEND_CPU = 0
RECEIVE_CPU = (os.cpu_count() or 1) - 1

#: Bytes of an Ethernet frame without FCS, and of the UDP payload in it.
SMALL_FRAME = 64
SMALL_PAYLOAD = SMALL_FRAME - 14 - 20 - 8

PORT = 5201


@dataclass(frozen=True)
class Stream:
    """A TCP connection's figures."""

    gbits: float
    retransmits: int


@dataclass(frozen=True)
class Packets:
    """What the probe saw; `rate` is received packets a second."""

    rate: float
    sent: int
    received: int
    reordered: int
    duplicated: int
    sink_dropped: int


@contextmanager
def iperf_server(chain: Chain) -> Iterator[None]:
    """An iperf3 server in h2, listening."""
    server = chain.popen(
        "h2",
        ["iperf3", "-s", "-p", str(PORT), "--forceflush"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert server.stdout is not None
        for line in server.stdout:
            if "listening" in line:
                break
        else:
            raise TestbedError("iperf3 does not listen", "look whether 'iperf3 -s' works")
        # Its further words would fill the pipe and stop it.
        threading.Thread(target=server.stdout.read, name="iperf3 log", daemon=True).start()
        yield
    finally:
        server.kill()
        server.wait(timeout=10)


def _iperf(chain: Chain, seconds: float, *options: str) -> dict[str, Any]:
    whole = max(1, round(seconds))  # it knows whole seconds only, and takes 0 for ever
    argv = ["iperf3", "-J", "-c", chain.hosts["h2"].ip4, "-p", str(PORT), "-t", str(whole)]
    argv += ["-A", f"{SEND_CPU},{RECEIVE_CPU}", *options]
    done = chain.run("h1", argv, check=False, timeout=seconds + 30)
    report = json.loads(done.stdout or "{}")
    # A run that its server broke off ends without sums, and with exit status 0.
    if done.returncode != 0 or not {"sum", "sum_received"} & set(report.get("end", {})):
        why = report.get("error", done.stderr.strip() or f"exit status {done.returncode}")
        raise TestbedError(f"iperf3 failed: {why}", "run it by hand in the chain's namespaces")
    end = report["end"]
    assert isinstance(end, dict)
    return end


def tcp(chain: Chain, seconds: float) -> Stream:
    """One TCP connection from h1 to h2 at full speed; needs `iperf_server`."""
    end = _iperf(chain, seconds)
    received, sent = end["sum_received"], end["sum_sent"]
    return Stream(float(received["bits_per_second"]) / 1e9, int(sent.get("retransmits", 0)))


def iperf_udp(chain: Chain, seconds: float) -> float:
    """Small UDP packets by iperf3, received packets a second; needs `iperf_server`."""
    end = _iperf(chain, seconds, "-u", "-b", "0", "-l", str(SMALL_PAYLOAD))
    total = end["sum"]
    return (int(total["packets"]) - int(total["lost_packets"])) / float(total["seconds"])


def udp(chain: Chain, seconds: float, *, rate: float | None = None, flows: int = 1) -> Packets:
    """Small UDP packets by the probe, at `rate` packets a second or as fast as they go."""
    control = probe.Control()
    with TemporaryDirectory() as directory, ThreadPoolExecutor(1) as pool:
        # The sent counts go by file: over the path they could be lost in an overflowing queue, and
        # would then be packets lost that nobody had counted as sent.
        file = Path(directory) / "sent"
        sunk = pool.submit(
            probe.sink,
            netns=chain.namespaces["h2"],
            control=control,
            per_flow="none",
            sent=file,
        )
        sent = probe.send(
            chain.hosts["h2"].ip4,
            netns=chain.namespaces["h1"],
            cpu=SEND_CPU,
            frame=SMALL_FRAME,
            flows=flows,
            rate=rate,
            duration=seconds,
            end=None,
            per_flow="none",
        )
        probe.write_report(file, sent)
        seen = sunk.result()
    return Packets(
        rate=seen["packets_per_second"],
        sent=sent["sent"],
        received=seen["received"],
        reordered=seen["reordered"],
        duplicated=seen["duplicated"],
        sink_dropped=seen["sink_dropped"],
    )
