"""The right `Config` for an instance of a `Testbed` or for the function of a `Chain`.

A function that the kernel forwards gets the kernel shim on the instance's own interfaces; one that
lives behind inner veth pairs gets the veth shim in front of them (docs/design.md §4). One that
taps the instance's own interfaces (`forwarder-direct`) fits neither: packet sockets see a packet
before the kernel shim does, and would see a captured one twice.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flowferry.hsl.agent import Config, Instance, Interfaces, default_socket
from flowferry.hsl.client import HslError
from flowferry.testbed import Chain, Testbed

#: Functions that tap the instance's own interfaces: no shim can stand in front of them there.
TAPPING = frozenset({"forwarder-direct"})


def config_for(where: Testbed | Chain, instance: str | None = None, **fields: Any) -> Config:
    """What to tell the agent of an instance; `Agent(config_for(chain))` starts it.

    where      a testbed or chain that is up, here or (`Testbed.attach`) made by another process
    instance   which one; it may be left out when there is only one. A chain's is called `nf`.
    fields     further fields of `Config`, for instance `buffer_bytes=1 << 20`

    The agent listens on `hsl-<instance>.sock` in the run directory and pins its maps on the run's
    own BPF file system, so that everything goes when the testbed does. Raises `HslError`.
    """
    wiring = (
        _of_testbed(where, instance) if isinstance(where, Testbed) else _of_chain(where, instance)
    )
    name = wiring["instance"].name
    directory = where.owner.directory
    settings: dict[str, Any] = {
        **wiring,
        "pins": str(directory / "bpf" / f"hsl-{name}"),
        "socket": str(socket_of(directory, name)),
        **fields,
    }
    return Config(**settings)


def socket_of(directory: Path, instance: str) -> Path:
    """Where the agent of an instance listens, below a run directory."""
    return default_socket(directory, instance)


def sockets_in(directory: Path) -> dict[str, Path]:
    """The sockets of a run's agents, by instance."""
    found = directory.glob("hsl-*.sock")
    return {path.stem.removeprefix("hsl-"): path for path in sorted(found)}


def _of_testbed(where: Testbed, instance: str | None) -> Mapping[str, Any]:
    names = [one.name for one in where.instances]
    if instance is None and len(names) > 1:
        raise HslError(
            f"testbed {where.name} has several instances; choose one of {', '.join(names)}"
        )
    for one in where.instances:
        if instance in (one.name, None):
            break
    else:
        raise HslError(
            f"testbed {where.name} has no instance {instance!r}; it has {', '.join(names)}"
        )
    _refuse_tapping(one.function)
    return {
        "instance": Instance(one.name, one.id),
        "shim": "kernel" if one.inner_up is None else "veth",
        "interfaces": Interfaces(one.up, one.down, one.inner_up, one.inner_down),
        "netns": one.namespace,
    }


def _of_chain(where: Chain, instance: str | None) -> Mapping[str, Any]:
    if instance not in ("nf", None):
        raise HslError(f"a chain has no instance {instance!r}; its only one is nf")
    if not where.bpffs:
        raise HslError(
            "this chain has no BPF file system for the agent's pins; make it with bpffs=True"
        )
    function = where.function
    if function is not None:
        _refuse_tapping(function.name)
    behind = function is not None and function.behind_veth
    inner = ("iup", "idown") if behind else (None, None)
    return {
        "instance": Instance("nf", 1),
        "shim": "veth" if behind else "kernel",
        "interfaces": Interfaces("up", "down", *inner),
        "netns": where.namespaces["nf"],
    }


def _refuse_tapping(function: str) -> None:
    if function in TAPPING:
        raise HslError(
            f"{function} taps the instance's own interfaces, where it would see captured packets "
            "twice; use 'forwarder', which lives behind inner veth pairs"
        )
