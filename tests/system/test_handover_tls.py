"""Streams between agents over TLS: nothing to be read on the way, and nobody let in by mistake."""

import os
import secrets
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

import pytest
from control_rig import DESTINATION, HANDOVER, PORT, SOURCE, Pair, plain
from handover_rig import Bed, Echo, adapters, clean
from hsl_pcap import Tcpdump, until
from peers import GREETING, VERSION

from flowferry.controller import Platform
from flowferry.hsl import Agent, HslError, Tls, certificates
from flowferry.hsl.wiring import config_for
from flowferry.testbed import Testbed, namespace
from flowferry.testbed.certificates import Authority, Certificate
from flowferry.wire import Command, Message, Reason, Sealer, Side

SETTLING = 400


def tls(own: Certificate) -> Tls:
    return Tls(own.cert, own.key, own.ca)


@dataclass
class Deployment:
    """An authority, and certificates of all kinds."""

    folder: Path

    def __post_init__(self) -> None:
        self.ours = Authority(self.folder / "ours")

    def good(self, instance: int) -> Tls:
        return tls(self.ours.issue(certificates.name_of(instance)))

    def bad(self, kind: str, instance: int) -> Tls:
        """A certificate of `instance` that is to be refused."""
        name = certificates.name_of(instance)
        if kind == "authority":
            theirs = Authority(self.folder / "theirs").issue(name)
            return Tls(theirs.cert, theirs.key, self.ours.ca)
        if kind == "expired":
            return tls(self.ours.issue(name, file="old", days=-1))
        return tls(self.ours.issue(certificates.name_of(instance + 1), file="other"))


@pytest.fixture
def deployment(tmp_path: Path) -> Deployment:
    return Deployment(tmp_path)


@contextmanager
def sniffed(bed: Testbed, path: Path) -> Iterator[Path]:
    """What goes over the management network, in a file that is whole behind the block."""
    with Tcpdump(bed, "mg", "br0", path, "tcp", snap=0) as dump:
        yield path
    assert dump.counts.dropped == 0


@pytest.mark.parametrize("secured", [True, False])
def test_strays_can_be_read_on_the_way_only_without_tls(
    testbed: Callable[..., Testbed], deployment: Deployment, tmp_path: Path, secured: bool
) -> None:
    bed = testbed(instances=2)
    good = {i: {"tls": deployment.good(i) if secured else None} for i in (SOURCE, DESTINATION)}
    with ExitStack() as stack, sniffed(bed, tmp_path / "mg.pcap") as pcap:
        pair = Pair(stack, bed, tmp_path, good)
        hands = pair.prepared()
        hands.ask(plain(Command.FREEZE, SOURCE, HANDOVER))
        hands.hear(Command.IMPORTED, DESTINATION)
        hands.packet(DESTINATION, 3)
        hands.hear(Command.SEEN, DESTINATION, side=Side.UPSTREAM)
        hands.packet(SOURCE, 2)  # by the old path, and late
        hands.marker(SOURCE, HANDOVER, Side.UPSTREAM, 1)
        hands.hear(Command.FENCED, SOURCE, round=1)
        hands.until(lambda: hands.passed[DESTINATION] == [2, 3], "packets in order")
        assert pair.status(DESTINATION)["streams"]["tls"] is secured
        assert pair.status(DESTINATION)["streams"]["from"] == [SOURCE]
        stack.pop_all().close()
    ends = b"".join(ip_address(bed.hosts[host].ip4).packed for host in ("h1", "h2"))
    assert (ends in pcap.read_bytes()) is not secured


def test_a_move_with_state_over_tls_loses_nothing_and_shows_nothing(
    testbed: Bed, tmp_path: Path
) -> None:
    bed = testbed(instances=2, steering=True, ports="afxdp-nonpmd", tls=True)
    state = b"what nobody else may know; " + os.urandom(2_000_000)
    (tmp_path / "state").write_bytes(state)
    with ExitStack() as stack, sniffed(bed, tmp_path / "mg.pcap") as pcap:
        platform = stack.enter_context(Platform(bed, settling_ms=SETTLING, function_sockets=True))
        take = f'cat > {tmp_path}/got-"$FLOWFERRY_HANDOVER"'
        stack.enter_context(adapters(platform, tmp_path, f"cat {tmp_path}/state", take))
        with Echo(bed, flows=10, rate=2000) as echo:
            for to in ("i2", "i1"):
                done = platform.client.move("udp", to, wait=True)
                assert (done["state"], done["error"]) == ("done", None)
                assert (tmp_path / f"got-{done['id'] << 8 | 1}").read_bytes() == state
        clean(echo)
        for agent in platform.agents.values():
            with agent.client() as client:
                streams = client.status()["streams"]
                assert (streams["tls"], streams["turned_away"]) == (True, 0)
        stack.pop_all().close()
    seen = pcap.read_bytes()
    assert len(seen) > 2 * len(state)  # it did go by here
    assert state[:27] not in seen
    assert not any(state[at : at + 32] in seen for at in range(1000, len(state), 100_000))


class Impostor:
    """Listens where an instance's agent should, and greets as that instance."""

    def __init__(self, bed: Testbed, instance: int, own: Tls | None) -> None:
        """`own`: what it shows; without, it speaks no TLS."""
        one = next(each for each in bed.instances if each.id == instance)
        self._greeting = GREETING.pack(VERSION, instance, secrets.randbits(64))
        self._context = None
        if own is not None:
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._context.load_cert_chain(own.cert, own.key)
        self._listener = namespace.call(
            one.namespace, lambda: socket.create_server((one.mgmt_ip, PORT))
        )
        self._thread = threading.Thread(target=self._serve, name="impostor")

    def _serve(self) -> None:
        while True:
            try:
                end, _ = self._listener.accept()
            except OSError:
                return
            end.settimeout(20)
            with suppress(OSError):
                if self._context is not None:
                    end = self._context.wrap_socket(end, server_side=True)
                end.sendall(self._greeting)
                while end.recv(4096):
                    pass
            end.close()

    def __enter__(self) -> "Impostor":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(30)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("authority", "its certificate is not believed"),
        ("expired", "expired"),
        ("name", "does not stand for instance-2"),
        ("plain", "does not speak TLS"),
    ],
)
def test_who_is_not_the_peer_gets_no_stream_and_nothing_has_changed(
    testbed: Callable[..., Testbed], deployment: Deployment, tmp_path: Path, kind: str, said: str
) -> None:
    own = None if kind == "plain" else deployment.bad(kind, DESTINATION)
    fields = {SOURCE: {"tls": deployment.good(SOURCE)}, DESTINATION: None}
    with ExitStack() as stack:
        pair = Pair(stack, testbed(instances=2), tmp_path, fields)
        stack.enter_context(Impostor(pair.bed, DESTINATION, own))
        hands = pair.hands
        hands.send(hands.prepare(SOURCE, HANDOVER))
        nack = hands.hear(Command.NACK, SOURCE)
        assert nack.error is not None
        assert nack.error.reason is Reason.PEER_UNREACHABLE
        assert said in nack.error.text
        hands.packet(SOURCE, 1)
        hands.until(lambda: hands.passed[SOURCE] == [1], "the packet through the source")


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("authority", "its certificate is not believed"),
        ("expired", "expired"),
        (
            "name",
            "instance 2, and its certificate does not stand for instance-2",
        ),
        ("plain", "no TLS came"),
        ("none", "it shows no certificate"),
    ],
)
def test_who_comes_with_a_certificate_of_another_is_turned_away_with_a_line(
    testbed: Callable[..., Testbed], deployment: Deployment, tmp_path: Path, kind: str, said: str
) -> None:
    fields = {SOURCE: {"tls": deployment.good(SOURCE)}, DESTINATION: None}
    with ExitStack() as stack:
        pair = Pair(stack, testbed(instances=2), tmp_path, fields)
        one, other = pair.bed.instances

        def come() -> None:
            """Dial as instance 2, and prove to have the deployment's key."""
            own = None if kind in ("plain", "none") else deployment.bad(kind, DESTINATION)
            with suppress(OSError), socket.create_connection((one.mgmt_ip, PORT), 20) as end:
                if kind != "plain":
                    context = ssl.create_default_context(cafile=deployment.ours.ca)
                    context.check_hostname = False
                    if own is not None:
                        context.load_cert_chain(own.cert, own.key)
                    end = context.wrap_socket(end)
                greeting = end.recv(GREETING.size)
                if len(greeting) == GREETING.size:
                    _, to, number = GREETING.unpack(greeting)
                    sealer = Sealer(pair.keys, sender=DESTINATION, boot=1)
                    message = Message(command=Command.QUERY, to=to, handover=number)
                    proof, _ = sealer.seal_payload(message)
                    end.sendall(len(proof).to_bytes(2, "big") + proof)
                while end.recv(4096):
                    pass

        namespace.call(other.namespace, come)
        agent = pair.agents[SOURCE]
        until(lambda: said in agent.said(), "the line in the log")
        assert f"a stream from {other.mgmt_ip}:" in agent.said()
        streams = pair.status(SOURCE)["streams"]
        assert (streams["turned_away"], streams["from"]) == (1, [])
        assert said in streams["turned_away_last"]


def test_a_move_between_agents_of_two_authorities_is_called_off_with_the_reason(
    testbed: Bed, tmp_path: Path
) -> None:
    bed = testbed(instances=2, steering=True, ports="afxdp-nonpmd", tls=True)
    theirs = tls(Authority(tmp_path / "theirs").issue(certificates.name_of(DESTINATION)))
    fields = {"i2": {"tls": theirs}}
    with Platform(bed, settling_ms=SETTLING, agents=fields) as platform:
        with Echo(bed, flows=4, rate=500) as echo:
            done = platform.client.move("udp", "i2", wait=True)
        clean(echo)
    assert done["state"] == "aborted"
    assert "certificate" in done["error"]
    assert done["lost_packets"] == 0


def test_an_agent_does_not_start_with_what_others_would_refuse(
    testbed: Callable[..., Testbed], deployment: Deployment
) -> None:
    config = config_for(testbed(instances=1), tls=deployment.bad("expired", 1))
    with pytest.raises(HslError, match=r"old\.pem cannot be used: it has expired"), Agent(config):
        pass
