"""Which BPF programs hang where, and which BPF objects of an agent the kernel still has.

Asked of the kernel itself (bpf(2)): the bpftool of Debian 12 does not know links of type TCX.
"""

import ctypes
import errno
import os
import platform
import re
import socket
import struct
from pathlib import Path

from flowferry.testbed import namespace
from flowferry.testbed.bare import Chain
from flowferry.testbed.preflight import BPF_SYSCALL

PROG_QUERY = 16
TCX_INGRESS = 46
#: Kind, as `/proc/PID/fdinfo` has it, to the command that opens one by its id.
OPEN_BY_ID = {"prog": 13, "map": 14, "link": 30}

#: (kind, id); an id is not given twice as long as the machine runs.
Object = tuple[str, int]


def _bpf(command: int, attributes: ctypes.Array[ctypes.c_char]) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    number = BPF_SYSCALL[platform.machine()]
    return int(libc.syscall(number, command, attributes, ctypes.sizeof(attributes)))


def hanging(chain: Chain, dev: str) -> int:
    """How many programs are at the ingress of a device of the instance, links and filters."""

    def links() -> int:
        # target_ifindex, attach_type, query_flags, attach_flags, prog_ids, prog_cnt
        query = struct.pack("=IIIIQI", socket.if_nametoindex(dev), TCX_INGRESS, 0, 0, 0, 0)
        attributes = ctypes.create_string_buffer(query, 64)
        if _bpf(PROG_QUERY, attributes) < 0:
            return 0  # a kernel without such links
        return int(struct.unpack_from("=I", attributes, 24)[0])

    filters = chain.run("nf", ["tc", "filter", "show", "dev", dev, "ingress"]).stdout
    return namespace.call(chain.namespaces["nf"], links) + filters.count("handle 0x821c")


def held_by(pid: int) -> set[Object]:
    """The programs, maps and links that a process has open."""
    found = set()
    for entry in Path(f"/proc/{pid}/fdinfo").iterdir():
        try:
            text = entry.read_text()
        except OSError:  # closed meanwhile
            continue
        for kind in OPEN_BY_ID:
            match = re.search(rf"^{kind}_id:\t(\d+)$", text, re.MULTILINE)
            if match:
                found.add((kind, int(match[1])))
    return found


def alive(objects: set[Object]) -> set[Object]:
    """Those of them that the kernel still has, whoever keeps them."""
    return {one for one in objects if _exists(*one)}


def _exists(kind: str, number: int) -> bool:
    attributes = ctypes.create_string_buffer(struct.pack("=I", number), 64)
    fd = _bpf(OPEN_BY_ID[kind], attributes)
    if fd >= 0:
        os.close(fd)
        return True
    assert ctypes.get_errno() == errno.ENOENT, os.strerror(ctypes.get_errno())
    return False
