"""Why a barrier reply is not a fence: packets on the old path behind a marker, measured.

On a real Open vSwitch an entry is flipped between two instances' ports under load, again and again.
The old instance's agent captures what still arrives, and counts. A marker goes down the old path
*(barrier)* on the barrier reply, or once the first packet has been seen on the new path: from the
controller *(first packet)*, or from the new instance by its port *(destination*; docs/direct.md).
What the agent captures after it has confirmed the marker, behind a flush of every CPU's queue, came
behind the marker: the fence was none.
"""

from __future__ import annotations

import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from flowferry.bench.report import Report
from flowferry.bench.settings import Settings
from flowferry.bench.survey import Figure, Survey
from flowferry.controller.openflow import codec
from flowferry.controller.openflow.oxm import Oxm, of_control, of_match
from flowferry.hsl import Agent, KeyFile
from flowferry.hsl.wiring import config_for
from flowferry.testbed import Testbed, TestbedError, namespace
from flowferry.wire import CONTROLLER, Command, KeyRing, Match, Message, Sealer, Side, address_of

TITLE = "Packets behind a marker on the old path, per flip of an entry"
Mode = Literal["barrier", "first-packet", "destination"]
MODES: tuple[Mode, ...] = ("barrier", "first-packet", "destination")
FIGURES = (
    Figure("flips", "flips"),
    Figure("late_flips", "flips with packets behind"),
    Figure("late_packets", "packets behind"),
    Figure("late_most", "most in a flip"),
    Figure("fence_ms_p50", "reply to fence, ms, median"),
    Figure("unfenced", "behind the first packet", most=0),
)
#: UDP flows whose packets are flipped; the probe's ports.
FLOWS, RATE, FIRST_PORT = 16, 20_000, 7000
#: Of our entries: above the testbed's own, which drops control frames.
PRIORITY, COOKIE = 65_001, 0xF10FE_0F11
#: So long after the reply no packet takes the old path any more, under this load.
SETTLED_S = 0.03
_UDP = Match(family=4, protocol=17)
SOURCE = address_of(CONTROLLER)


@dataclass(frozen=True)
class Flip:
    """One flip; packets as the old instance's agent captured them."""

    #: Behind the confirmed marker.
    late: int
    #: From the barrier reply to the confirmed marker.
    fence_ms: float


class Switch:
    """An OpenFlow connection of our own to one switch, by its management socket."""

    def __init__(self, path: Path) -> None:
        """Connect."""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(5)
        self._socket.connect(str(path))
        self._xid = 1
        self._send(codec.hello(1))
        self._await(codec.HELLO)

    def _send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def _await(self, kind: int) -> None:
        while True:
            _, found, length, xid = codec.HEADER.unpack(self._read(codec.HEADER.size))
            body = self._read(length - codec.HEADER.size)
            if found == kind:
                return
            if found == codec.ECHO_REQUEST:
                self._send(codec.message(codec.ECHO_REPLY, xid, body))
            elif found == codec.ERROR:
                raise TestbedError("the switch refused an entry", "look at its log")

    def _read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            more = self._socket.recv(size - len(data))
            if not more:
                raise TestbedError("the switch closed the connection", "look at its log")
            data += more
        return data

    def send(self, match: Oxm, port: int) -> None:
        """What matches goes out by a port from now on; returns with the barrier reply."""
        entry = codec.Entry(0, PRIORITY, match, COOKIE, (codec.Output(port),))
        self._xid += 2
        self._send(
            codec.flow_mod(self._xid, codec.Change(entry))
            + codec.message(codec.BARRIER_REQUEST, self._xid + 1)
        )
        self._await(codec.BARRIER_REPLY)

    def put_out(self, port: int, frame: bytes) -> None:
        """Send a frame by a port, at once."""
        self._xid += 1
        self._send(codec.packet_out(self._xid, port, frame))

    def close(self) -> None:
        """Disconnect."""
        self._socket.close()


class Instance:
    """One instance's agent, and an eye on its upstream interface."""

    def __init__(self, bed: Testbed, name: str, key: KeyFile, stack: ExitStack) -> None:
        """Start the agent."""
        config = config_for(bed, name, keys=[key])
        self.number = config.instance.id
        self.port = next(one.port for one in bed.instances if one.name == name)
        agent = stack.enter_context(Agent(config))
        self._client = stack.enter_context(agent.client())
        listener = stack.enter_context(agent.client())
        self._events = listener.events()
        self._eye = namespace.call(bed.namespaces[name], _open_eye)
        stack.callback(self._eye.close)
        self._hold: int | None = None

    def capture(self) -> None:
        """Capture UDP from now on."""
        self._hold = self._client.hold("udp")

    def let_go(self) -> None:
        """Let go of it, in order."""
        assert self._hold is not None
        self._client.release(self._hold)
        figures = self._client.wait(self._hold)
        if figures["lost_packets"]:
            raise TestbedError("an agent lost packets", "use a lower rate")

    def await_packet(self) -> None:
        """Return when a UDP packet arrives that had not arrived before."""
        _drain(self._eye)
        self._eye.settimeout(5)
        while True:
            frame, address = self._eye.recvfrom(64)
            if address[2] != socket.PACKET_OUTGOING and frame[12:24:11] == b"\x08\x11":
                return

    def put_in(self, frame: bytes) -> None:
        """Send a frame to the switch, as the agent does."""
        self._eye.send(frame)

    def await_fence(self, number: int) -> int:
        """Return when the marker of that number is confirmed: packets captured by then."""
        for event in self._events:
            if event.get("event") == "fenced" and event.get("handover") == number:
                return int(event["captured"])
        raise TestbedError("the agent's events ended", "look at its log")


def _open_eye() -> socket.socket:
    every = 3  # ETH_P_ALL: a bridge takes its ports' packets before sockets of one EtherType
    eye = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(every))
    eye.bind(("up", every))
    return eye


def _drain(eye: socket.socket) -> None:
    eye.setblocking(False)
    try:
        while eye.recv(64):
            pass
    except BlockingIOError:
        eye.setblocking(True)


class Bench:
    """A testbed under load whose entry is flipped."""

    def __init__(self, bed: Testbed, stack: ExitStack) -> None:
        """Start agents and traffic."""
        secret = secrets.token_bytes(32)
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="flowferry-")))
        path = directory / "key"
        path.touch(mode=0o600)
        path.write_text(secret.hex())
        key = KeyFile(1, str(path))
        self._sealer = Sealer(KeyRing(1, secret), sender=0, boot=time.time_ns())
        self._instances = [Instance(bed, one.name, key, stack) for one in bed.instances[:2]]
        self._switch = Switch(bed.ovs.directory / "ingress.mgmt")
        stack.callback(self._switch.close)
        self._number = 0
        self._at = 0
        for one in self._instances:
            self._switch.send(of_control(to=one.number), one.port)
        self._switch.send(of_match(_UDP), self._instances[0].port)
        stack.enter_context(_traffic(bed))
        self._instances[0].await_packet()

    def flip(self, mode: Mode) -> Flip:
        """Turn the entry to the other instance, and fence the old one in one way or the other."""
        old, new = self._instances[self._at], self._instances[1 - self._at]
        self._at = 1 - self._at
        old.capture()
        first, last = self._marker(old), self._marker(old)
        self._switch.send(of_match(_UDP), new.port)
        replied = time.monotonic()
        if mode != "barrier":
            new.await_packet()
        if mode == "destination":
            new.put_in(first[1])
        else:
            self._switch.put_out(old.port, first[1])
        at_fence = old.await_fence(first[0])
        fence_ms = (time.monotonic() - replied) * 1e3
        while time.monotonic() < replied + SETTLED_S:
            new.await_packet()
        self._switch.put_out(old.port, last[1])
        late = old.await_fence(last[0]) - at_fence
        old.let_go()
        return Flip(late, fence_ms)

    def _marker(self, to: Instance) -> tuple[int, bytes]:
        self._number += 1
        message = Message(
            command=Command.MARKER,
            to=to.number,
            handover=self._number,
            side=Side.UPSTREAM,
            round=1,
        )
        frame, _ = self._sealer.seal(message, destination=address_of(to.number), source=SOURCE)
        return self._number, frame


@contextmanager
def _traffic(bed: Testbed) -> Iterator[None]:
    program = Path(sys.executable).with_name("flowferry")
    argv = [str(program), "probe", "send", bed.hosts["h2"].ip4, "--flows", str(FLOWS)]
    argv += ["--rate", str(RATE), "--duration", "3600", "--no-handshake", "--no-end", "--json"]
    sender = bed.popen("h1", argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        sender.kill()
        sender.wait(timeout=10)


@contextmanager
def bench(name: str, **options: Any) -> Iterator[Bench]:
    """A testbed with load; `options` as of `Testbed`."""
    with ExitStack() as stack:
        bed = stack.enter_context(Testbed(name, instances=2, function="bridge", **options))
        yield Bench(bed, stack)


def run(settings: Settings) -> Report:
    """Every kind of port, steering on and off, each fence; ten flips a pass."""
    flips = settings.passes * 10
    told = {**settings.to_dict(), "flips": flips, "flows": FLOWS, "packets_per_second": RATE}
    drawn = (("fence_ms_p50", "reply to fence, median"),)
    survey = Survey("fence", TITLE, told, figures=FIGURES, drawn=drawn)
    for ports in ("system", "afxdp-nonpmd"):
        for steering in (False, True):
            wanted = [mode for mode in MODES if settings.wants(_name(ports, steering, mode))]
            if not wanted:
                continue
            with bench("bench-fence", ports=ports, steering=steering) as bed:
                for mode in wanted:
                    found = [bed.flip(mode) for _ in range(flips)]
                    title = f"{ports} ports, steering {'on' if steering else 'off'}, {mode}"
                    survey.add(_name(ports, steering, mode), title, _values(found, mode))
    return survey


def _name(ports: str, steering: bool, mode: str) -> str:
    return f"{ports}-{'steered' if steering else 'plain'}-{mode}"


def _values(found: list[Flip], mode: Mode) -> dict[str, Any]:
    late = [flip.late for flip in found]
    return {
        "flips": len(found),
        "late_flips": sum(count > 0 for count in late),
        "late_packets": sum(late),
        "late_most": max(late),
        "fence_ms_p50": sorted(flip.fence_ms for flip in found)[len(found) // 2],
        # A barrier reply is not expected to be a fence.
        "unfenced": None if mode == "barrier" else sum(late),
    }
