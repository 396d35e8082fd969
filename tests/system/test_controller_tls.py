"""Switches over TLS: who has the right certificate is let in, who has not is named in the log."""

import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hsl_pcap import until

from flowferry.controller import Platform
from flowferry.testbed import Testbed, namespace
from flowferry.testbed.switches import OpenVSwitch

Pem = dict[str, str]


def authority(folder: Path, name: str) -> Pem:
    """A certificate that has signed itself: authority and end in one; its paths."""
    pem = {kind: str(folder / f"{name}-{kind}.pem") for kind in ("cert", "key")}
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-nodes", "-keyout", pem["key"], "-out", pem["cert"], "-days", "2",
         "-subj", f"/CN={name}", "-addext", "basicConstraints=critical,CA:TRUE"],
        check=True, capture_output=True,
    )  # fmt: skip
    return pem


def use(bed: Testbed, own: Pem, ca: Pem) -> None:
    """The switches' certificate, and whom they believe."""
    words = [own["key"], own["cert"], ca["cert"]]
    bed.owner.run(None, ["ovs-vsctl", f"--db={bed.ovs.database}", "set-ssl", *words])


@pytest.fixture
def over_tls(
    testbed: Callable[..., Testbed], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Platform, Pem]]:
    """A deployment whose switches speak TLS, and the authority of all of it."""
    bed, good = testbed(), authority(tmp_path, "flowferry")
    use(bed, good, good)
    connect = OpenVSwitch.set_controller
    monkeypatch.setattr(
        OpenVSwitch,
        "set_controller",
        lambda self, switches, target: connect(self, switches, target.replace("tcp:", "ssl:")),
    )
    tls = {**good, "ca": good["cert"]}
    listen = {"listen": "127.0.0.1:6653", "netns": bed.namespaces["sw"], "tls": tls}
    with Platform(bed, openflow=listen, strategy="reroute") as up:
        yield up, good


def log_lines(platform: Platform, wanted: str) -> list[str]:
    return [line for line in platform.controller.log.read_text().splitlines() if wanted in line]


def ready(platform: Platform) -> bool:
    return all(switch["ready"] for switch in platform.client.switches())


def test_with_the_right_certificate_all_works(over_tls: tuple[Platform, Pem]) -> None:
    up, _ = over_tls
    assert up.client.move("udp", "i2", wait=True)["state"] == "done"
    assert log_lines(up, "turned away") == []


def test_a_certificate_of_somebody_else_is_refused_and_the_right_one_is_taken(
    over_tls: tuple[Platform, Pem], tmp_path: Path
) -> None:
    up, good = over_tls
    switches = list(up.bed.switches.values())
    up.bed.ovs.set_controller(switches, "tcp:127.0.0.1:9")
    until(lambda: not any(s["connected"] for s in up.client.switches()), "the switches to be away")
    use(up.bed, authority(tmp_path, "mallory"), good)
    up.connect_switches(6653)
    until(lambda: bool(log_lines(up, "turned away")), "the refusal in the log", seconds=20)
    (line, *_) = log_lines(up, "turned away")
    assert "self-signed certificate" in line
    assert "ovs-vsctl set-ssl" in line
    assert not any(switch["connected"] for switch in up.client.switches())
    use(up.bed, good, good)
    until(lambda: ready(up), "the switches", seconds=30)
    assert up.client.move("udp", "i2", wait=True)["state"] == "done"


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("no certificate", "peer did not return a certificate"),
        ("no tls", "wrong version number"),
        ("silence", "longer than"),
    ],
)
def test_others_are_turned_away_with_a_line(
    over_tls: tuple[Platform, Pem], kind: str, said: str
) -> None:
    up, _ = over_tls

    def come() -> None:
        with socket.create_connection(("127.0.0.1", 6653), 5) as end:
            end.settimeout(30)
            if kind == "no certificate":
                context = ssl.create_default_context()
                context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
                end = context.wrap_socket(end)  # with TLS 1.3 the refusal comes behind this
                end.recv(1)
            elif kind == "no tls":
                end.sendall(bytes.fromhex("0400000800000001"))
            while end.recv(4096):
                pass

    with suppress(OSError):
        namespace.call(up.bed.namespaces["sw"], come)
    until(lambda: bool(log_lines(up, "turned away")), "the line in the log")
    (line,) = log_lines(up, "turned away")
    assert said in line.lower().replace("_", " ")
    assert ready(up)
    assert up.client.move("udp", "i2", wait=True)["state"] == "done"
