"""Each check on a machine that lacks what it looks for: one line, with the remedy."""

import os
import platform
from collections.abc import Callable
from pathlib import Path

import pytest

from flowferry.testbed import TestbedError, cgroup, preflight

Patch = Callable[[pytest.MonkeyPatch, Path], None]

LACKS: dict[str, tuple[Patch, str]] = {
    "root": (lambda patch, _: patch.setattr(os, "geteuid", lambda: 1000), "this needs root"),
    "tun": (
        lambda patch, empty: patch.setattr(preflight, "TUN", empty / "tun"),
        "there is no .*/tun",
    ),
    "bpf": (
        # A number that no kernel has: what a kernel without the call, or a filter, answers.
        lambda patch, _: patch.setitem(preflight.BPF_SYSCALL, platform.machine(), 100_000),
        r"the bpf\(\) system call is refused \(Function not implemented\)",
    ),
    "BTF": (
        lambda patch, empty: patch.setattr(preflight, "BTF", empty / "vmlinux"),
        "the kernel has no BTF",
    ),
    "Open vSwitch": (
        lambda patch, empty: patch.setenv("PATH", str(empty)),
        r"Open vSwitch is not installed \(ovsdb-server, .* missing\)",
    ),
    "ethtool": (
        lambda patch, empty: patch.setenv("PATH", str(empty)),
        "ethtool is not installed",
    ),
    "CPU shares": (
        lambda patch, _: patch.setattr(cgroup, "mount_point", lambda: None),
        "no control group hierarchy has the cpu controller",
    ),
}


@pytest.mark.parametrize("name", LACKS)
def test_what_is_missing_is_named(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lack, says = LACKS[name]
    lack(monkeypatch, tmp_path)
    others = [other for other in preflight.CHECKS if other != name]
    if not preflight.CHECKS[name][2]:
        found = {result.name: result.problem for result in preflight.check_all()}
        assert found[name] == says
        preflight.require(without=others)
        return
    with pytest.raises(TestbedError, match=says) as error:
        preflight.require(without=others)
    assert error.value.remedy == preflight.CHECKS[name][1]
    assert "\n" not in str(error.value)


def test_an_old_python_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Version(tuple[int, ...]):
        major, minor = 3, 9

    monkeypatch.setattr("sys.version_info", Version((3, 9, 2)))
    with pytest.raises(TestbedError, match=r"Python 3\.9 is too old; install Python 3\.11"):
        preflight.require(without=[name for name in preflight.CHECKS if name != "Python"])
