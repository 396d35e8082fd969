"""Whether this machine can run what we run: one check per need, each with its remedy.

The same checks stand behind `make setup`, `flowferry doctor` and every `testbed up`, so that a
missing piece is named in the same line everywhere. A check does the thing where that is cheap
(loads a BPF program, attaches it in a throw-away namespace) and does not read version numbers.
"""

import ctypes
import errno
import importlib
import os
import platform
import shutil
import sys
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from flowferry.testbed import cgroup, namespace
from flowferry.testbed.errors import TestbedError
from flowferry.testbed.switches import SCHEMA

#: bpf(2) by machine; there is no libc function for it.
BPF_SYSCALL = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "ppc64le": 361, "s390x": 351}
BPF_PROG_LOAD = 5
TUN = Path("/dev/net/tun")
BTF = Path("/sys/kernel/btf/vmlinux")
BPF_PROG_TYPE_SCHED_CLS = 3
#: r0 = 0 (TC_ACT_OK); exit
PROGRAM = bytes.fromhex("b7000000000000009500000000000000")
OVS_PROGRAMS = ("ovsdb-server", "ovs-vswitchd", "ovsdb-tool", "ovs-vsctl", "ovs-ofctl")


@dataclass(frozen=True)
class Result:
    """What a check found. `problem` is None if all is well, else it says what is wrong."""

    name: str
    problem: str | None
    remedy: str
    #: Whether nothing works without it.
    needed: bool


def check_all() -> list[Result]:
    """Run every check; later ones that cannot work without root say so themselves."""
    return [
        Result(name, probe(), remedy, needed) for name, (probe, remedy, needed) in CHECKS.items()
    ]


def require(*, without: Collection[str] = ()) -> None:
    """Raise `TestbedError` for the first need that is not met, but for the ones named."""
    for name, (probe, remedy, needed) in CHECKS.items():
        if needed and name not in without and (problem := probe()) is not None:
            raise TestbedError(problem, remedy)


def _root() -> str | None:
    return None if os.geteuid() == 0 else "this needs root"


def _python() -> str | None:
    have = sys.version_info
    return None if have >= (3, 11) else f"Python {have.major}.{have.minor} is too old"


def _tun() -> str | None:
    try:
        os.close(os.open(TUN, os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        return f"there is no {TUN}"
    except OSError as error:
        return f"{TUN} cannot be opened ({error.strerror})"
    return None


def _namespaces() -> str | None:
    try:
        namespace.throwaway(lambda: None)
    except OSError as error:
        return f"network namespaces cannot be made ({error.strerror})"
    return None


def _bpf() -> str | None:
    try:
        os.close(_load_program())
    except OSError as error:
        return f"the bpf() system call is refused ({error.strerror})"
    return None


def _btf() -> str | None:
    return None if BTF.exists() else f"the kernel has no BTF ({BTF})"


def _cls_bpf() -> str | None:
    def attach() -> None:
        with IPRoute() as ipr:
            ipr.tc("add", "clsact", 1)
            program = _load_program()
            try:
                ipr.tc(
                    "add-filter",
                    "bpf",
                    1,
                    fd=program,
                    name="preflight",
                    parent="ffff:fff2",
                    classid=1,
                    direct_action=True,
                )
            finally:
                os.close(program)

    try:
        namespace.throwaway(attach)
    except (OSError, NetlinkError) as error:
        code = getattr(error, "code", None) or getattr(error, "errno", None) or 0
        return f"the kernel cannot attach BPF to a device by cls_bpf ({os.strerror(code)})"
    return None


def _open_vswitch() -> str | None:
    missing = [name for name in OVS_PROGRAMS if shutil.which(name) is None]
    if missing or not SCHEMA.exists():
        return f"Open vSwitch is not installed ({', '.join(missing) or SCHEMA} missing)"
    return None


def _ethtool() -> str | None:
    return None if shutil.which("ethtool") else "ethtool is not installed"


def _native() -> str | None:
    try:
        importlib.import_module("flowferry._native")
    except ImportError as error:
        return f"the native module does not load ({error})"
    return None


def _cpu_groups() -> str | None:
    return None if cgroup.mount_point() else "no control group hierarchy has the cpu controller"


def _load_program() -> int:
    """Load a BPF program that does nothing; return its descriptor. Raises `OSError`."""
    number = BPF_SYSCALL.get(platform.machine())
    if number is None:
        raise OSError(errno.ENOSYS, f"unknown machine {platform.machine()}")
    code = ctypes.create_string_buffer(PROGRAM, len(PROGRAM))
    licence = ctypes.create_string_buffer(b"GPL")

    class Attributes(ctypes.Structure):
        """The part of `union bpf_attr` that BPF_PROG_LOAD cannot do without."""

        _fields_ = (
            ("prog_type", ctypes.c_uint32),
            ("insn_cnt", ctypes.c_uint32),
            ("insns", ctypes.c_uint64),
            ("license", ctypes.c_uint64),
            ("rest", ctypes.c_uint8 * 24),
        )

    attributes = Attributes(
        BPF_PROG_TYPE_SCHED_CLS,
        len(PROGRAM) // 8,
        ctypes.addressof(code),
        ctypes.addressof(licence),
    )
    libc = ctypes.CDLL(None, use_errno=True)
    fd = int(
        libc.syscall(number, BPF_PROG_LOAD, ctypes.byref(attributes), ctypes.sizeof(attributes))
    )
    if fd < 0:
        code_number = ctypes.get_errno()
        raise OSError(code_number, os.strerror(code_number))
    return fd


#: name: (check, remedy, needed)
CHECKS: dict[str, tuple[Callable[[], str | None], str, bool]] = {
    "root": (_root, "run it as root (sudo)", True),
    "Python": (_python, "install Python 3.11 or newer", True),
    "tun": (
        _tun,
        "load the module 'tun', or give the container --device /dev/net/tun",
        True,
    ),
    "namespaces": (_namespaces, "run with CAP_SYS_ADMIN (a privileged container or a VM)", True),
    "bpf": (_bpf, "run with CAP_BPF and CAP_NET_ADMIN (a privileged container or a VM)", True),
    "BTF": (_btf, "use a kernel built with CONFIG_DEBUG_INFO_BTF, such as Debian's", True),
    "cls_bpf": (_cls_bpf, "use a kernel with CONFIG_NET_CLS_BPF and CONFIG_NET_SCH_INGRESS", True),
    "Open vSwitch": (_open_vswitch, "run 'make setup', or install openvswitch-switch", True),
    "ethtool": (_ethtool, "run 'make setup', or install ethtool", True),
    "native module": (_native, "run 'make setup'", True),
    "CPU shares": (
        _cpu_groups,
        "mount cgroup2 at /sys/fs/cgroup; only --cpu-share needs it",
        False,
    ),
}
