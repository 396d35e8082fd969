"""The packet counter of docs/estate.md, three instances of it."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from redis_servers import free_ports

PROGRAM = Path(__file__).parents[2] / "examples/python/packet_counter.py"


@pytest.fixture
def counters() -> Iterator[list[int]]:
    """UDP ports of three counters that know the first."""
    places = [f"127.0.0.1:{port}" for port in free_ports(3)]
    with ExitStack() as stack:
        ports = []
        for number, place in enumerate(places):
            argv = [sys.executable, str(PROGRAM), f"nf{number}", place, *places[:number][:1]]
            process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
            stack.callback(process.wait, timeout=30)
            stack.callback(process.kill)
            assert process.stdout is not None
            stack.callback(process.stdout.close)
            ports.append(int(process.stdout.readline()))
        yield ports


def test_any_of_them_knows_the_total(counters: list[int]) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.settimeout(10)
        for number, port in enumerate(counters):
            for _ in range(number + 1):
                sender.sendto(b"packet", ("127.0.0.1", port))
        totals = []
        for port in counters:
            # What this one was sent before, it has counted before it reads this.
            sender.sendto(b"total?", ("127.0.0.1", port))
            totals.append(int(sender.recv(100)))
    # Six packets and the questions so far; the others' packets are in their queues at the latest.
    assert totals[2] == 6 + 3
    assert totals == sorted(totals)
