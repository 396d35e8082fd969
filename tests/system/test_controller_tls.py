"""Switches over TLS: who has the right certificate is let in, who has not is named in the log."""

import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from hsl_pcap import until

from flowferry.controller import Client, ControllerError, Platform, wiring
from flowferry.controller.daemon import Daemon
from flowferry.hsl import certificates
from flowferry.testbed import Testbed, namespace
from flowferry.testbed.certificates import Authority, Certificate

OLD = "old"


def use(bed: Testbed, own: Certificate) -> None:
    """The switches' certificate, and whom they believe."""
    bed.ovs.set_certificate(own)


@pytest.fixture
def over_tls(testbed: Callable[..., Testbed]) -> Iterator[Platform]:
    """A deployment whose switches speak TLS; the run's authority has also signed OLD."""
    bed = testbed(tls=True)
    authority = Authority(bed.owner.directory / wiring.CERTIFICATES)
    names = [certificates.name_of(one.id) for one in bed.instances]
    for name in (wiring.CONTROLLER, wiring.SWITCHES, *names):
        authority.issue(name)
    authority.issue(wiring.SWITCHES, file=OLD, days=-1)
    with Platform(bed, strategy="reroute") as up:
        yield up


def log_lines(platform: Platform, wanted: str) -> list[str]:
    return [line for line in platform.controller.log.read_text().splitlines() if wanted in line]


def ready(platform: Platform) -> bool:
    return all(switch["ready"] for switch in platform.client.switches())


def away(platform: Platform) -> None:
    """Have the switches go to where no controller is."""
    platform.bed.ovs.set_controller(list(platform.bed.switches.values()), "tcp:127.0.0.1:9")
    until(lambda: not connected(platform), "the switches to be away")


def connected(platform: Platform) -> bool:
    return any(switch["connected"] for switch in platform.client.switches())


def test_with_the_right_certificate_all_works(over_tls: Platform) -> None:
    assert over_tls.client.move("udp", "i2", wait=True)["state"] == "done"
    assert log_lines(over_tls, "turned away") == []


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("stranger", "unable to get local issuer certificate"),
        ("expired", "certificate has expired"),
        ("distrusts us", "alert unknown ca"),
    ],
)
def test_a_switch_that_is_refused_or_refuses_is_named_and_the_right_one_is_taken(
    over_tls: Platform, tmp_path: Path, kind: str, said: str
) -> None:
    bed = over_tls.bed
    right = wiring.certificate_of(bed, wiring.SWITCHES)
    theirs = Authority(tmp_path / "theirs").issue("switches")
    wrong = {
        "stranger": Certificate(theirs.cert, theirs.key, right.ca),
        "expired": wiring.certificate_of(bed, OLD),
        "distrusts us": replace(right, ca=theirs.ca),
    }[kind]
    away(over_tls)
    use(bed, wrong)
    target = f"ssl:{bed.controller_address}:{wiring.OPENFLOW_PORT}"
    bed.ovs.set_controller(list(bed.switches.values()), target)
    until(lambda: bool(log_lines(over_tls, "turned away")), "the refusal in the log", seconds=20)
    (line, *_) = log_lines(over_tls, "turned away")
    assert said in line.lower().replace("_", " ")
    assert "ovs-vsctl set-ssl" in line
    assert not connected(over_tls)
    over_tls.connect_switches(wiring.OPENFLOW_PORT)
    until(lambda: ready(over_tls), "the switches", seconds=30)
    assert over_tls.client.move("udp", "i2", wait=True)["state"] == "done"


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("no certificate", "peer did not return a certificate"),
        ("no tls", "wrong version number"),
        ("silence", "longer than"),
    ],
)
def test_others_are_turned_away_with_a_line(over_tls: Platform, kind: str, said: str) -> None:
    up = over_tls

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


def test_beyond_loopback_only_a_token_over_tls_is_answered(
    testbed: Callable[..., Testbed], tmp_path: Path
) -> None:
    bed = testbed(instances=2)
    one, other = bed.instances
    own = Authority(tmp_path / "tls").issue(one.mgmt_ip)
    token = tmp_path / "token"
    token.write_text("open sesame\n")
    token.chmod(0o600)
    rest: dict[str, Any] = {"listen": f"{one.mgmt_ip}:6680", "token_file": str(token)}
    rest |= {"tls": {"cert": own.cert, "key": own.key}}
    path = tmp_path / "controller.yaml"
    path.write_text(yaml.safe_dump(wiring.config_for(bed, rest=rest)))
    url = f"https://{rest['listen']}"
    # Where that address is; and asked from another machine, so to say.
    with namespace.call(one.namespace, partial(Daemon, path, url)):

        def ask(url: str, token: str | None, ca: str | None) -> object:
            return namespace.call(other.namespace, Client(url, token, ca=ca).status)["name"]

        assert ask(url, "open sesame", own.ca) == bed.name
        with pytest.raises(ControllerError, match="a token is needed"):
            ask(url, None, own.ca)
        with pytest.raises(ControllerError, match="no controller answers"):
            ask(url, "open sesame", None)  # not believed
        with pytest.raises(ControllerError):
            ask(url.replace("https", "http"), "open sesame", None)
