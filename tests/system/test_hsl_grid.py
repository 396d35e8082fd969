"""The crash grid of the handover layer: the agent dies, or stops, at each row of its table.

One drive takes an agent through every transition; with a failpoint it dies or stops in the middle.
Afterwards every datagram has arrived, in order and once, or has gone on as a stray, or is counted
as lost, to the packet. The rows come from the table itself, so a new one is tested unasked.
"""

import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hsl_rig import patient
from markers import key_file
from numbered import Traffic, until
from peers import Follower, Taker

from flowferry import _native
from flowferry.hsl import Agent, Client, HslError
from flowferry.testbed.bare import Chain
from soak import STOP_REPEATS

ROWS = [f"{row['from']}+{row['event']}" for row in json.loads(_native.hsl_table())]
#: A stop takes its time to notice; the other rows are for the soak.
STOPPED_FAST = {"held+frame", "releasing+frame", "straying+release"}
TIMEOUT_MS = 300
STRAYS_PORT = 7700
FOLLOWING = 50  # the flow that only followers have


class Drive:
    """An agent, traffic through it, and both ends of its streams."""

    def __init__(
        self, chain: Chain, directory: Path, failpoint: str | None, **options: Any
    ) -> None:
        """Start everything; the failpoint strikes later."""
        chain.run("nf", ["ip", "link", "set", "dev", "lo", "up"])
        file, self.keys = key_file(directory)
        self.chain = chain
        self.config = patient(
            chain,
            **options,
            keys=[file],
            strays_listen=f"127.0.0.1:{STRAYS_PORT}",
            failpoint=failpoint,
        )
        self.agent = Agent(self.config)
        self.taker = Taker(chain, self.keys)
        self.traffic = Traffic(chain, flows=2)
        self.follower = Follower(chain, self.keys, STRAYS_PORT)
        self.followed = 0
        self.suspending = False
        self.lost = 0  # by the agent's own last word

    def close(self) -> None:
        """End everything."""
        self.follower.close()
        self.taker.close()
        self.traffic.__exit__(None, None, None)
        self.agent.__exit__(None, None, None)

    def follow(self, count: int = 3) -> None:
        """Let packets follow a flow to this agent."""
        self.follower.send(FOLLOWING, range(self.followed, self.followed + count))
        self.followed += count

    def at_once(self, client: Client, *commands: dict[str, object]) -> list[dict[str, object]]:
        """Send commands in one piece, so that the agent takes them in one turn of its loop."""
        client._socket.sendall(b"".join(json.dumps(each).encode() + b"\n" for each in commands))
        answers = [client._line("several") for _ in commands]
        assert all(answer["ok"] for answer in answers), answers
        return answers

    def captured(self, client: Client, hold: int, packets: int) -> None:
        """Wait until a hold has captured so many packets."""
        until(
            lambda: any(
                each["id"] == hold
                and each["captured_packets"] + each["followed_packets"] >= packets
                for each in client.holds()
            ),
            f"hold {hold} has {packets} packets",
        )

    def settle(self, client: Client, hold: int) -> None:
        """Wait for a hold's end and note what is lost."""
        client.wait(hold)
        self.lost = client.status()["lost_packets"]

    def everything(self) -> None:
        """Take the agent through every row; raises `HslError` when it dies on the way."""
        with self.agent.client(timeout=10) as client:
            self.turns(client)
            self.releases(client)
            self.arrivals_out_of_turn(client)
            assert self.lost == 0
            self.losses(client)
            self.tally = client.status()["transitions"]

    def turns(self, client: Client) -> None:
        """Keep, send on, and keep again."""
        peer = self.taker.address
        hold = client.hold("udp", sides=["upstream"])
        self.traffic.send(20)
        self.follow()
        self.captured(client, hold, 23)
        client.turn(hold, "capture")
        client.turn(hold, "stray", peer)
        self.traffic.send(20)
        self.follow()
        self.captured(client, hold, 46)
        client.turn(hold, "stray", peer)
        client.turn(hold, "capture")
        self.traffic.send(20)
        self.captured(client, hold, 66)
        client.release(hold)
        self.settle(client, hold)

    def releases(self, client: Client) -> None:
        """Release twice, hold again and send on while releasing."""
        first = client.hold("udp", sides=["upstream"])
        self.traffic.send(20)
        self.captured(client, first, 20)
        second, third, fourth = first + 1, first + 2, first + 3
        h1, h2 = (self.chain.hosts[name].ip4 for name in ("h1", "h2"))
        flow = f"udp,nw_src={h1},nw_dst={h2},tp_src=6000,tp_dst=7000"
        again = {"op": "hold", "match": "udp", "sides": ["upstream"]}
        self.at_once(
            client,
            {"op": "release", "id": first, "flow": flow},
            {"op": "release", "id": first, "flow": flow},
            {"op": "release", "id": first},
            {**again, "id": second},
        )
        self.traffic.send(20)
        self.captured(client, second, 20)
        self.at_once(
            client,
            {"op": "release", "id": second},
            {**again, "id": third, "role": "stray", "peer": self.taker.address},
        )
        self.traffic.send(20)
        self.captured(client, third, 20)
        client.release(third)
        self.settle(client, third)
        hold = client.hold("udp", sides=["upstream"], hold=fourth)
        self.traffic.send(2)
        self.captured(client, hold, 2)
        with self.traffic.keep_sending(5000):
            client.release(hold)
            self.settle(client, hold)

    def arrivals_out_of_turn(self, client: Client) -> None:
        """Packets for flows that nobody holds any more, or that are being released."""
        self.follow()
        until(lambda: self.seen(FOLLOWING) >= 3, "the followers have arrived")
        hold = client.hold("udp", sides=["upstream"])
        for _ in range(50):
            self.follow()
            self.captured(client, hold, 3)
            client._socket.sendall(json.dumps({"op": "release", "id": hold}).encode() + b"\n")
            self.follow()
            assert client._line("release")["ok"]
            self.settle(client, hold)
            done = client.status()["transitions"]["releasing+follow"]
            hold = client.hold("udp", sides=["upstream"])
            if done:
                break
        # More than the agent reads in one turn, the last of them of a flow it does not know: it
        # takes the release before it has seen that one.
        self.suspending = True
        self.agent.suspend()
        for _ in range(1300):
            self.traffic.send_of(0)
        self.traffic.send_of(1)
        client._socket.sendall(json.dumps({"op": "release", "id": hold}).encode() + b"\n")
        self.suspending = False
        self.agent.resume()
        assert client._line("release")["ok"]
        self.settle(client, hold)

    def losses(self, client: Client) -> None:
        """Lose the TAP while packets are kept, sent on, released."""
        for role, peer in (("capture", None), ("stray", self.taker.address)):
            hold = client.hold("udp", role=role, peer=peer, sides=["upstream"])  # type: ignore[arg-type]
            self.traffic.send(10)
            self.captured(client, hold, 10)
            self.remove_tap()
            self.settle(client, hold)
        hold = client.hold("udp", sides=["upstream"])
        self.traffic.send(10)
        self.captured(client, hold, 10)
        # Nothing can be written to an interface that is down: the flow stays in its release.
        self.chain.run("nf", ["ip", "link", "set", "dev", "up", "down"])
        client.release(hold)
        self.remove_tap()
        self.settle(client, hold)
        self.bring_up()

    def bring_up(self) -> None:
        """Set the interface up; the bridge forwards only some time after that."""
        self.chain.run("nf", ["ip", "link", "set", "dev", "up", "up"])
        state = ["cat", "/sys/class/net/up/brport/state"]
        until(lambda: self.chain.run("nf", state).stdout.strip() == "3", "the bridge forwards")

    def remove_tap(self) -> None:
        self.chain.run("nf", ["ip", "link", "del", "dev", "ff1u"])

    def seen(self, flow: int) -> int:
        """Datagrams of a flow that arrived at h2."""
        return len(self.traffic.arrivals.numbers.get(flow, []))

    def check(self, lost: int, *, cut: bool = False) -> None:
        """Everything sent has arrived, gone on, or is counted; in order and once.

        `cut`: the agent was killed or began a new epoch, which cuts off the streams to it (decision
        24). What followed was its own to lose if it had acknowledged it.
        """
        arrivals = self.traffic.arrivals

        def number_in(numbers: dict[int, list[int]]) -> int:
            return sum(len(n) for n in numbers.values())

        def accounted() -> int:
            return number_in(arrivals.numbers) + number_in(self.taker.numbers) + lost

        followed = self.follower.acknowledged() if cut else self.followed
        sent = self.traffic.sent + followed
        until(
            lambda: accounted() >= sent,
            lambda: (
                f"{sent} sent: {arrivals.numbers} {number_in(arrivals.numbers)} arrived, "
                f"{self.taker.numbers} {number_in(self.taker.numbers)} went on, {lost} lost"
            ),
            timeout=10,
        )
        self.traffic._drain()
        # A dead agent may not have heard that its last strays were taken, nor have said that it had
        # taken some: lost is then said of more than was lost, never of less.
        unheard = number_in(self.taker.numbers) + self.followed - followed if cut else 0
        assert sent <= accounted() <= sent + unheard
        assert arrivals.disorder() == []
        for flow, numbers in self.taker.numbers.items():
            assert numbers == sorted(set(numbers)), f"flow {flow} went on in disorder"


@contextlib.contextmanager
def driven(
    chain: Chain, directory: Path, failpoint: str | None = None, **options: Any
) -> Iterator[Drive]:
    drive = Drive(chain, directory, failpoint, **options)
    try:
        yield drive
    finally:
        drive.close()


def test_the_drive_takes_every_row(netns_chain: Callable[..., Chain], tmp_path: Path) -> None:
    with driven(netns_chain(static_neighbours=True), tmp_path) as drive:
        drive.everything()
        assert sorted(drive.tally) == sorted(ROWS)
        assert [row for row, times in drive.tally.items() if times == 0] == []
        drive.check(drive.lost)
        assert drive.taker.broken == []


@pytest.mark.parametrize("row", ROWS)
def test_killed_at(netns_chain: Callable[..., Chain], tmp_path: Path, row: str) -> None:
    with driven(netns_chain(static_neighbours=True), tmp_path, f"{row}:kill") as drive:
        with pytest.raises((HslError, AssertionError)):
            drive.everything()
        drive.agent.process.wait(timeout=10)
        assert drive.agent.process.returncode == -signal.SIGKILL
        drive.bring_up()
        config = patient(drive.chain)
        with Agent(config) as successor, successor.client() as client:
            drive.traffic.send(20)
            counters = client.status()["counters"].values()
            lost = sum(side["lost"] + side["overflowed"] for side in counters)
            drive.check(lost, cut=True)


@pytest.mark.parametrize(
    ("row", "repeat"),
    [
        pytest.param(row, repeat, marks=() if fast else pytest.mark.soak)
        for repeat in range(STOP_REPEATS)
        for row in ROWS
        for fast in [row in STOPPED_FAST and not repeat]
    ],
)
def test_stopped_at(
    netns_chain: Callable[..., Chain], tmp_path: Path, row: str, repeat: int
) -> None:
    chain, options = netns_chain(static_neighbours=True), {"heartbeat_timeout_ms": TIMEOUT_MS}
    with driven(chain, tmp_path, f"{row}:stop", **options) as drive:
        ended = threading.Event()
        stopped = threading.Event()

        def resume() -> None:
            while not ended.is_set():
                state = Path(f"/proc/{drive.agent.pid}/stat").read_text().split()[2]
                if state == "T" and not drive.suspending:
                    stopped.set()
                    time.sleep(1.5 * TIMEOUT_MS / 1e3)  # the fault: longer than the time-out
                    os.kill(drive.agent.pid, signal.SIGCONT)
                ended.wait(0.01)

        watcher = threading.Thread(target=resume, daemon=True)
        watcher.start()
        with contextlib.suppress(HslError, AssertionError):
            drive.everything()  # holds may be gone when it wakes
        until(stopped.is_set, "the agent stopped")
        ended.set()
        watcher.join()
        drive.bring_up()
        with drive.agent.client() as client:
            for hold in client.holds():
                if hold["state"] == "holding":
                    client.release(hold["id"])
                client.wait(hold["id"])
            drive.traffic.send(20)
            drive.check(client.status()["lost_packets"], cut=True)
