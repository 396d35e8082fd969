"""The small pure parts: options, description, control groups, counters, masks."""

import json
from pathlib import Path
from typing import Any

import pytest

from flowferry.testbed import Description, Host, Instance, Options, Switch, TestbedError, cgroup
from flowferry.testbed.links import cpu_mask
from flowferry.testbed.switches import PortCounters, parse_port_counters

V1 = "cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,relatime,cpu,cpuacct 0 0\n"
TMPFS = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"instances": 0}, "ask for 1 to 64"),
        ({"instances": 65}, "ask for 1 to 64"),
        ({"function": "nat"}, "use one of: bridge, forwarder"),
        ({"ports": "dpdk"}, "use one of: system, afxdp, afxdp-nonpmd"),
        ({"mtu": 9001}, "use 1280 to 9000"),
        ({"mtu": 9000, "ports": "afxdp"}, "use up to 1500, or --ports system"),
        (
            {"function": "forwarder", "ports": "afxdp-nonpmd"},
            "use --ports system, or another function",
        ),
        ({"rate": 0.0}, "use at least 0.1"),
        ({"delay": -1.0}, "use 0 or more"),
    ],
)
def test_options_that_cannot_be_built_say_what_can(options: dict[str, Any], message: str) -> None:
    with pytest.raises(TestbedError, match=message):
        Options(**options).check()


def test_a_description_survives_json() -> None:
    instance = Instance(
        "i1", 1, "lab-i1", None, "bridge", "up", "down", "mgmt", "172.31.0.1", None, None,
        "up", "down", 11,
    )  # fmt: skip
    description = Description(
        name="lab",
        namespaces={"h1": "lab-h1", "i1": "lab-i1"},
        hosts={"h1": Host("lab-h1", "eth0", "10.0.0.1", "fd00::1", "02:00:00:00:00:01")},
        switches={"ingress": Switch("ingress", "upstream", 1, {"h1": 1}, 1, "unix:/x")},
        controller=None,
        instances=(instance,),
        options=Options(rate=10.0),
        directory="/run/flowferry/lab",
        bpf="/run/flowferry/lab/bpf",
        ovsdb="unix:/run/flowferry/lab/ovs/db.sock",
    )
    text = json.dumps(description.as_json())
    assert Description.from_json(json.loads(text)) == description
    wanted = {"name", "namespaces", "hosts", "switches", "controller", "instances"}
    assert wanted <= json.loads(text).keys()


def test_version_1_wins_where_it_has_the_cpu_controller() -> None:
    assert cgroup.mount_point(TMPFS + V1) == (1, Path("/sys/fs/cgroup/cpu,cpuacct"))


def test_a_version_2_hierarchy_counts_only_with_the_cpu_controller(tmp_path: Path) -> None:
    mounts = f"cgroup2 {tmp_path} cgroup2 rw 0 0\n"
    assert cgroup.mount_point(mounts) is None
    (tmp_path / "cgroup.controllers").write_text("memory pids\n")
    assert cgroup.mount_point(mounts) is None
    (tmp_path / "cgroup.controllers").write_text("cpuset cpu memory\n")
    assert cgroup.mount_point(mounts) == (2, tmp_path)


def test_no_cpu_controller_is_an_error_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroup, "mount_point", lambda: None)
    with pytest.raises(TestbedError, match="no control group hierarchy offers"):
        cgroup.paths("lab", "i1")


def test_version_1_files(tmp_path: Path) -> None:
    groups = cgroup.paths("lab", "i1", (1, tmp_path))
    cgroup.create(groups, 0.25, version=1)
    assert (groups[-1] / "cpu.cfs_period_us").read_text() == "20000"
    assert (groups[-1] / "cpu.cfs_quota_us").read_text() == "5000"


def test_version_2_files_and_delegation(tmp_path: Path) -> None:
    groups = cgroup.paths("lab", "i1", (2, tmp_path))
    for group in (tmp_path, tmp_path / "flowferry", groups[0]):
        group.mkdir(exist_ok=True)
        (group / "cgroup.subtree_control").write_text("")
    cgroup.create(groups, 1.5, version=2)
    assert (groups[-1] / "cpu.max").read_text() == "30000 20000"
    for group in (tmp_path, tmp_path / "flowferry", groups[0]):
        assert (group / "cgroup.subtree_control").read_text() == "+cpu"


def test_a_share_too_small_to_enforce_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TestbedError, match=r"give at least 0\.05"):
        cgroup.create(cgroup.paths("lab", "i1", (2, tmp_path)), 0.04, version=2)


def test_port_counters_by_number_and_by_name() -> None:
    text = (
        "OFPST_PORT reply (OF1.3) (xid=0x2): 2 ports\n"
        "  port LOCAL: rx pkts=9, bytes=9, drop=9, errs=0, frame=0, over=0, crc=0\n"
        "           tx pkts=9, bytes=9, drop=9, errs=0, coll=0\n"
        "  port 11: rx pkts=1, bytes=2, drop=3, errs=0, frame=0, over=0, crc=0\n"
        "           tx pkts=4, bytes=5, drop=?, errs=0, coll=0\n"
        '  port "h1": rx pkts=6, bytes=7, drop=8, errs=0, frame=0, over=0, crc=0\n'
        "           tx pkts=9, bytes=10, drop=11, errs=0, coll=0\n"
    )
    assert parse_port_counters(text, {1: "h1", 11: "i1-up"}) == {
        "i1-up": PortCounters(1, 2, 3, 4, 5, None),
        "h1": PortCounters(6, 7, 8, 9, 10, 11),
    }


@pytest.mark.parametrize(
    ("cpus", "mask"), [(1, "1"), (2, "3"), (32, "ffffffff"), (34, "3,ffffffff")]
)
def test_cpu_masks(cpus: int, mask: str) -> None:
    assert cpu_mask(cpus) == mask
