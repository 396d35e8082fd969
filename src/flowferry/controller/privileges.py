"""Give up what root may do, once sockets and files are open: the controller needs none of it."""

import ctypes
import os
from pathlib import Path

PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 24, 38
VERSION_3 = 0x20080522


class _Header(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]


class _Sets(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint32) for name in ("effective", "permitted", "inheritable")]


def drop() -> None:
    """Leave this process and its children without any capability. Raises `OSError`."""
    libc = ctypes.CDLL(None, use_errno=True)
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    for number in range(last + 1):
        # Without CAP_SETPCAP there is no bounding set to narrow, and nothing to fear from it.
        libc.prctl(PR_CAPBSET_DROP, number, 0, 0, 0)
    header, empty = _Header(VERSION_3, 0), (_Sets * 2)()
    if libc.capset(ctypes.byref(header), ctypes.byref(empty)) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"capabilities cannot be given up: {os.strerror(error)}")
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
