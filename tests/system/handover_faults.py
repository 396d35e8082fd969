"""What a handover relies on and may lose: switches, the management network, control frames."""

import itertools
import os
import secrets
import signal
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from handover_cell import RATE, Cell
from handover_rig import witnesses
from hsl_pcap import Tcpdump, until
from new_flow import NewFlow
from openflow_relay import PORT, OpenFlowRelay
from port_relay import PortRelay
from pyroute2 import IPRoute
from relay import Fate, Relay, as_it_comes

from flowferry.testbed import links, namespace
from flowferry.wire import (
    CONTROLLER,
    Command,
    Flags,
    KeyRing,
    Message,
    Reason,
    Report,
    Sealer,
    Side,
    address_of,
)
from handover_missing import WAYS
from handover_rows import DESTINATION, SOURCE

FINAL = 0xFFFF_FFFF
DEVICES = {Side.UPSTREAM: "up", Side.DOWNSTREAM: "down"}


class Trouble:
    """Something that goes wrong; unless it says otherwise, it costs time and not one packet."""

    #: Of the testbed.
    options: Mapping[str, Any] = {"ports": "afxdp-nonpmd"}
    #: Packets each second, and packets that it lasts for.
    rate = RATE
    lasts = RATE // 5
    #: Whether agents must not finish alone meanwhile.
    patient = False

    def __init__(self, folder: Path) -> None:
        """`folder` is there for captures."""
        self._folder = folder

    def prepare(self, cell: Cell, stack: ExitStack) -> None:
        """Nothing."""

    def begin(self, cell: Cell) -> None:
        """Nothing."""

    def end(self, cell: Cell) -> None:
        """Nothing."""

    def judge(self, cell: Cell) -> None:
        """After the traffic has ended."""
        assert cell.counted == 0
        assert cell.unexplained == 0, (cell.missing, cell.dropped)


class SwitchGone(Trouble):
    """A switch is killed and started again, or stops and resumes.

    What it is sent meanwhile is lost. Witnesses at its ports say how much: nothing is lost at the
    other switch, and at the instances what the agents count.
    """

    options: Mapping[str, Any] = {"ports": "system", "apart": True}  # tcpdump sees no AF_XDP port
    #: What gathers meanwhile goes in one burst, of which such a port takes some 200 packets.
    rate = RATE // 20

    def __init__(self, folder: Path, switch: str, how: signal.Signals) -> None:
        super().__init__(folder)
        self._switch, self._how = switch, how
        self.lasts = self.rate // 2 if how is signal.SIGKILL else 5 * self.rate // 2
        self._dumps: dict[str, Tcpdump] = {}

    def prepare(self, cell: Cell, stack: ExitStack) -> None:
        self._dumps = stack.enter_context(witnesses(cell.bed, self._folder, buffer_kib=4 << 10))

    def begin(self, cell: Cell) -> None:
        self._pid = cell.bed.ovs_of(self._switch).vswitchd()
        os.kill(self._pid, self._how)

    def end(self, cell: Cell) -> None:
        if self._how is signal.SIGKILL:
            cell.bed.ovs_of(self._switch).start_vswitchd()
        else:
            os.kill(self._pid, signal.SIGCONT)
        until(lambda: all(s["ready"] for s in cell.client.switches()), "the switches", seconds=20)

    def judge(self, cell: Cell) -> None:
        lost = sum(cell.missing.values())
        vanished = {place: self._vanished(place) for place in ("ingress", "instances", "egress")}
        assert vanished.pop("instances") == cell.counted, cell.counted
        other = "egress" if self._switch == "ingress" else "ingress"
        assert vanished[other] == 0, vanished
        assert lost == vanished[self._switch] + cell.counted, (lost, vanished)

    def _vanished(self, place: str) -> int:
        """Packets that came to a place and did not leave it, both ways."""
        rows = {"ingress": ("h1", "up"), "instances": ("up", "down"), "egress": ("down", "h2")}
        near, far = rows[place]
        return sum(
            self._count(a, way) - self._count(b, way)
            for way, (a, b) in zip(WAYS, ((near, far), (far, near)), strict=True)
        )

    def _count(self, where: str, way: str) -> int:
        names = (
            [where] if where in ("h1", "h2") else [f"{i}-{where}" for i in (SOURCE, DESTINATION)]
        )
        for name in names:
            assert self._dumps[f"{name} {way}"].counts.dropped == 0
        return sum(self._dumps[f"{name} {way}"].counts.captured for name in names)


class NetworkCut(Trouble):
    """The management network carries nothing: neither strays nor what agents tell each other."""

    rate = RATE // 4
    lasts = 5 * rate // 2

    def begin(self, cell: Cell) -> None:
        self._set(cell, "down")

    def end(self, cell: Cell) -> None:
        self._set(cell, "up")
        # Whoever is being looked up is still said to be unreachable when its time is over.
        for one, other in itertools.permutations(cell.bed.instances, 2):
            until(partial(self._reaches, cell, one.name, other.mgmt_ip), "an answer to a ping")

    @staticmethod
    def _reaches(cell: Cell, name: str, address: str) -> bool:
        ping = ["ping", "-c1", "-W1", address]
        return cell.bed.run(name, ping, check=False).returncode == 0

    def _set(self, cell: Cell, state: str) -> None:
        def work(ipr: IPRoute) -> None:
            ipr.link("set", index=links.index(ipr, SOURCE), state=state)

        namespace.configure(cell.bed.namespaces["mg"], work)

    def judge(self, cell: Cell) -> None:
        found = cell.missing, cell.counted, cell.dropped
        assert cell.unexplained <= cell.counted <= sum(cell.missing.values()), found


#: Rows at which an agent that takes flows sends a marker for each that it has not seen yet.
MARKED = {
    "turning+turned", "freezing+frozen", "moving+imported", "moving+call_off",
    "withdrawing+withdrawn", "reverting+turned_back",
}  # fmt: skip


class Frames(Trouble):
    """Control frames are lost for a while, or all doubled, or every other one late.

    Those of the controller and for it on its connections, those from agent to agent at their ports.
    A flow begins meanwhile, so that there is one of these where there can be.
    """

    patient = True

    def __init__(self, folder: Path, how: str) -> None:
        super().__init__(folder)
        self._how = how
        self._controllers: Relay
        self._agents: Relay

    @property
    def _relays(self) -> tuple[Relay, Relay]:
        return self._controllers, self._agents

    def prepare(self, cell: Cell, stack: ExitStack) -> None:
        self._controllers = stack.enter_context(OpenFlowRelay(cell.bed))
        self._agents = stack.enter_context(PortRelay(cell.bed))
        cell.platform.connect_switches(PORT)
        until(lambda: self._controllers.seen > 0, "a frame by the relay")
        until(lambda: all(s["ready"] for s in cell.client.switches()), "the switches", seconds=20)
        assert replayed(cell) == 0
        self._flow = NewFlow(cell.bed, stack)

    def begin(self, cell: Cell) -> None:
        self._before = [(relay.seen, relay.passed) for relay in self._relays]
        for relay in self._relays:
            relay.fate = self._new_fate()
        self._flow.send(1)
        if cell.row in MARKED:
            until(lambda: self._seen()[1] > 0, "a marker from one agent to the other")

    def _new_fate(self) -> Fate:
        if self._how == "delayed":
            late = itertools.cycle((True, False))
            return lambda _frame: (0.06,) if next(late) else (0.0,)
        return {"lost": lambda _frame: (), "doubled": lambda _frame: (0.0, 0.0)}[self._how]

    def _seen(self) -> list[int]:
        """Frames that have met their fate, of the controller and among agents."""
        return [one.seen - was[0] for one, was in zip(self._relays, self._before, strict=True)]

    def _passed(self) -> list[int]:
        return [one.passed - was[1] for one, was in zip(self._relays, self._before, strict=True)]

    def end(self, cell: Cell) -> None:
        until(lambda: self._seen()[0] > 0, "a control frame")
        for relay in self._relays:
            relay.fate = as_it_comes
            relay.await_quiet()
        seen, passed = self._seen(), self._passed()
        if self._how == "doubled":
            until(lambda: replayed(cell) == sum(seen), f"{seen} frames refused as replayed")
        elif self._how == "delayed":
            assert passed == seen
        self._flow.receive(1)


def rejections(cell: Cell) -> Iterator[Mapping[str, int]]:
    """What the controller and each agent have rejected, by reason."""
    yield cell.client.status()["frames"]["rejected"]
    for agent in cell.platform.agents.values():
        with agent.client() as client:
            yield client.status()["control"]["rejected"]


def replayed(cell: Cell) -> int:
    """Frames that were refused since they had been taken before, everywhere."""
    return sum(one["replayed"] for one in rejections(cell))


class Forged(Trouble):
    """Strangers send frames: with everything right but the key, from hosts and functions.

    They speak as the controller and as agents, to the controller and to agents. Switches pass on
    what comes from functions, to another instance too, but nothing from hosts.
    """

    patient = True
    lasts = RATE // 10

    def prepare(self, cell: Cell, stack: ExitStack) -> None:
        bed = cell.bed
        names = {"h1": [("h1", "eth0")], "h2": [("h2", "eth0")]}
        for one in (SOURCE, DESTINATION):
            names[f"by {one}"] = [(one, dev) for dev in DEVICES.values()]
            names[f"to {one}"] = [
                (switch.role, f"{one}-{dev}")
                for switch, dev in zip(bed.switches.values(), DEVICES.values(), strict=True)
            ]
        self._sockets = {
            name: [stack.enter_context(packet_socket(bed.namespaces[r], d)) for r, d in places]
            for name, places in names.items()
        }

    def begin(self, cell: Cell) -> None:
        self._sent = 0
        for one, other in itertools.permutations(cell.bed.instances, 2):
            controller, peer = (stranger(sender) for sender in (CONTROLLER, one.id))
            for message in orders(other.id, self._part):
                self._send(f"to {other.name}", controller, message)
                self._send(f"by {one.name}", controller, message)
                self._send_in_vain(controller, message)
            for message in reports(self._part):
                self._send(f"by {one.name}", peer, message)
                self._send_in_vain(peer, message)
            for message in among_agents(other.id, self._part):
                self._send(f"by {one.name}", peer, message)
                self._send_in_vain(peer, message)
                # Back by the port that it came by: no switch does that.
                self._send(f"by {other.name}", peer, message, counts=False)

    _part = 1 << 8 | 1

    def _send_in_vain(self, sealer: Sealer, message: Message) -> None:
        for host in ("h1", "h2"):
            self._send(host, sealer, message, counts=False)

    def _send(self, name: str, sealer: Sealer, message: Message, *, counts: bool = True) -> None:
        for end in self._sockets[name]:
            frame, _ = sealer.seal(message, destination=address_of(message.to), source=bytes(6))
            end.send(frame)
            self._sent += counts

    def end(self, cell: Cell) -> None:
        def rejected() -> int:
            return sum(one["bad_tag"] for one in rejections(cell))

        until(lambda: rejected() >= self._sent, f"{self._sent} frames rejected")
        assert rejected() == self._sent, "switches let a host's control frames in"


def stranger(sender: int) -> Sealer:
    """Somebody who claims to be `sender`, and does not have the key."""
    return Sealer(KeyRing(1, secrets.token_bytes(32)), sender=sender, boot=1 << 62)


def packet_socket(space: str, dev: str) -> socket.socket:
    """A socket that sends frames by a device of a namespace, and receives none."""
    end = namespace.call(space, partial(socket.socket, socket.AF_PACKET, socket.SOCK_RAW, 0))
    end.bind((dev, 0))
    return end


def orders(to: int, part: int) -> Iterator[Message]:
    """What a controller might say that would change something."""
    for flags in (Flags.UNFENCED, Flags.UNFENCED | Flags.STATE_LOST):
        yield Message(command=Command.RELEASE, to=to, handover=part, flags=flags)
    for flags in (Flags.NONE, Flags.TURNED):
        error = Report(Reason.OTHER, "forged")
        yield Message(command=Command.ABORT, to=to, handover=part, flags=flags, error=error)
    yield Message(command=Command.COMMIT, to=to, handover=part)
    yield Message(command=Command.FREEZE, to=to, handover=part, deadline_ms=1)
    for side in DEVICES:
        yield Message(command=Command.MARKER, to=to, handover=part, side=side, round=FINAL)


def reports(part: int) -> Iterator[Message]:
    """What an agent might say that would change something."""
    lost, error = Flags.STATE_LOST, Report(Reason.OTHER, "forged")
    yield Message(command=Command.IMPORTED, handover=part)
    yield Message(command=Command.RELEASED, handover=part, flags=lost, counts={})
    yield Message(command=Command.ABORTED, handover=part, counts={})
    yield Message(command=Command.ABORT, handover=part, error=error)
    yield Message(command=Command.STATUS, epoch=1 << 40, counts={})
    for side in DEVICES:
        yield Message(command=Command.FENCED, handover=part, side=side, round=FINAL)


def among_agents(to: int, part: int) -> Iterator[Message]:
    """What an agent might say to another that would change something."""
    for side in DEVICES:
        for round_ in (1, FINAL):
            yield Message(command=Command.MARKER, to=to, handover=part, side=side, round=round_)
        yield Message(command=Command.FENCED, to=to, handover=part, side=side, round=FINAL)


#: By name; each is given a folder for itself.
FAULTS: dict[str, Callable[[Path], Trouble]] = {
    "ingress-kill": partial(SwitchGone, switch="ingress", how=signal.SIGKILL),
    "ingress-stop": partial(SwitchGone, switch="ingress", how=signal.SIGSTOP),
    "egress-kill": partial(SwitchGone, switch="egress", how=signal.SIGKILL),
    "egress-stop": partial(SwitchGone, switch="egress", how=signal.SIGSTOP),
    "network-cut": NetworkCut,
    "frames-lost": partial(Frames, how="lost"),
    "frames-doubled": partial(Frames, how="doubled"),
    "frames-delayed": partial(Frames, how="delayed"),
    "frames-forged": Forged,
}
