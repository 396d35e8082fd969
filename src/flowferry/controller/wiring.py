"""The right configuration for the controller of a `Testbed`, and where to find it again.

Everything is in the testbed's run directory: key, journal, configuration, log, URL. The OpenFlow
socket is in the switches' namespace, so that runs do not meet; the REST interface is on loopback.
"""

import secrets
import socket
from pathlib import Path
from typing import Any

from flowferry.controller.client import ControllerError
from flowferry.hsl.agent import KeyFile
from flowferry.hsl.certificates import name_of
from flowferry.testbed import Testbed, links
from flowferry.testbed.certificates import Authority, Certificate
from flowferry.testbed.topology import Instance

CONFIG, JOURNAL, URL, KEY = "controller.yaml", "controller.db", "controller.url", "control.key"
OPENFLOW_PORT = 6653
#: Where an agent of the testbed takes strays, on its address of the management network.
STRAYS_PORT = 7001
KEY_ID = 1
#: Folder of the run's certificates, and the names that are no instance's.
CERTIFICATES, CONTROLLER, SWITCHES = "tls", "controller", "switches"


def key_of(directory: Path) -> KeyFile:
    """The run's key; it is made when it is first asked for."""
    path = directory / KEY
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(secrets.token_hex(32) + "\n")
    return KeyFile(KEY_ID, str(path))


def certificate_of(bed: Testbed, name: str) -> Certificate:
    """The run's certificate for a name; all are made, and their authority closed, at first."""
    folder = bed.owner.directory / CERTIFICATES
    if not folder.exists():
        authority = Authority(folder)
        for one in (CONTROLLER, SWITCHES, *(name_of(each.id) for each in bed.instances)):
            authority.issue(one)
        authority.close()
    return Certificate(
        str(folder / f"{name}.pem"), str(folder / f"{name}.key"), str(folder / "ca.pem")
    )


def config_for(bed: Testbed, **fields: Any) -> dict[str, Any]:
    """What to write into the configuration file of a testbed's controller.

    `fields` are further fields of `flowferry.controller.config.Config`, `settling_ms` for instance.
    """
    directory = bed.owner.directory
    tls = {"tls": vars(certificate_of(bed, CONTROLLER))} if bed.options.tls else {}
    ends = {switch.side: switch for switch in bed.switches.values()}
    key = key_of(directory)
    return {
        "name": bed.name,
        "openflow": {
            "listen": f"{bed.controller_address}:{OPENFLOW_PORT}",
            "netns": bed.namespaces["sw"],
            **tls,
        },
        "rest": {"listen": f"127.0.0.1:{_free_port()}"},
        "journal": str(directory / JOURNAL),
        "keys": [{"id": key.id, "file": key.file}],
        "groups": [
            {
                "name": bed.options.function,
                **{
                    side: {"dpid": ends[side].dpid, "ports": [ends[side].host_port]}
                    for side in ("upstream", "downstream")
                },
                "instances": [
                    {
                        "name": one.name,
                        "id": one.id,
                        "upstream_port": ends["upstream"].ports[f"{one.name}-up"],
                        "downstream_port": ends["downstream"].ports[f"{one.name}-down"],
                        "peer": f"{one.mgmt_ip}:{STRAYS_PORT}",
                        "macs": _macs(one),
                    }
                    for one in bed.instances
                ],
            }
        ],
        **fields,
    }


def _macs(instance: Instance) -> list[str]:
    """Addresses of the devices that a function's traffic goes through, without doubles."""
    inside = instance.function_namespace or instance.namespace
    devices = (
        (instance.namespace, instance.up),
        (instance.namespace, instance.down),
        (inside, instance.function_up),
        (inside, instance.function_down),
    )
    return list(dict.fromkeys(links.mac(ns, dev) for ns, dev in devices))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def url_of(bed: Testbed) -> str:
    """The URL of a running testbed's controller. Raises `ControllerError` if it has none."""
    try:
        return (bed.owner.directory / URL).read_text().strip()
    except FileNotFoundError:
        raise ControllerError(
            f"testbed {bed.name} has no controller; "
            f"take it down and start it without --no-controller, or give --controller URL"
        ) from None
