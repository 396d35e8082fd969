"""A CPU that others keep from its receive queue is late, and nothing in that queue is lost."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from markers import Bursts, key_file
from numbered import until
from softnet import room

from flowferry.hsl import Agent, Client
from flowferry.hsl.wiring import config_for
from flowferry.testbed import Chain

#: Bursts a hold. All that they hold fits into a CPU's queue.
BURSTS, ROOM = 100, 100_000
HOLDS = 5
#: Seconds: longer than a count may stand still unasked, shorter than it is waited for.
BUSY = 0.6
#: Real-time priority, above whoever empties the queue.
HOG = """
import os, sys, time
os.sched_setaffinity(0, {int(sys.argv[1])})
os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(90))
print("busy", flush=True)
end = time.monotonic() + float(sys.argv[2])
while time.monotonic() < end:
    pass
"""


@contextlib.contextmanager
def kept_busy(cpu: int) -> Iterator[None]:
    """One CPU does nothing else for `BUSY` seconds; waits until it is free again."""
    argv = [sys.executable, "-c", HOG, str(cpu), str(BUSY)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as hog:
        assert hog.stdout is not None
        assert hog.stdout.readline() == "busy\n"
        yield


def captured(client: Client, source: Bursts) -> int:
    """A hold of all that is sent, when so many bursts of it are captured."""
    hold, before = client.hold("udp"), source.sent
    for _ in range(BURSTS):
        source.burst()
    until(lambda: client.holds()[-1]["captured_packets"] == source.sent - before, "all is captured")
    return hold


@pytest.fixture
def anywhere() -> Iterator[None]:
    """This thread may move, and goes back."""
    everywhere = os.sched_getaffinity(0)
    yield
    os.sched_setaffinity(0, everywhere)


@pytest.mark.parametrize("function", ["bridge", "forwarder"])
def test_released_packets_that_wait_for_a_busy_cpu_are_not_given_up(
    netns_chain: Callable[..., Chain], tmp_path: Path, anywhere: None, function: str
) -> None:
    with room(ROOM):
        chain = netns_chain(function=function, steering=True, static_neighbours=True)
        file, keys = key_file(tmp_path)
        # An agent that others starve fails open: not what this is about.
        config = config_for(chain, keys=[file], heartbeat_timeout_ms=60_000)
        with Agent(config) as agent, agent.client() as client:
            source = Bursts(chain, keys, apart=True)
            others = set(range(os.cpu_count() or 1)) - os.sched_getaffinity(0)
            for _ in range(HOLDS):
                hold = captured(client, source)
                with contextlib.ExitStack() as stack:
                    for cpu in others:
                        stack.enter_context(kept_busy(cpu))
                    client.release(hold)
                    ended = client.wait(hold)
                    assert (ended["lost_packets"], ended["state"]) == (0, "done"), ended
                    assert ended["released_packets"] == ended["captured_packets"]
            # A forwarder that has not got that CPU itself often keeps what waits there short.
            audits = client.status()["audits"]
            assert audits or function == "forwarder", "nothing had to wait for long"
            source.close()
