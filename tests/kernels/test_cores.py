"""Cores to use: affinity, and the CPU quota of control groups of both versions, in a folder that stands for /."""

from __future__ import annotations

import os

import pytest

from gpupipe.kernels import cores as module
from gpupipe.kernels.cores import Cores, available_cores, cores, cpu_quota

V2_MOUNT = "30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate"
V1_MOUNTS = (
    "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n"
    "32 31 0:29 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory\n"
    "33 31 0:30 {inside} /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct\n"
)


@pytest.fixture
def machine(tmp_path):
    """A function that makes a root folder of files, by their paths."""

    def make(**files: str):
        for name, text in files.items():
            file = tmp_path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        return tmp_path

    return make


def of_version_2(path: str, mounts: str = V2_MOUNT, **quotas: str) -> dict[str, str]:
    """Files of a process in the group `path`; quotas: texts of cpu.max by the group's folder, _ for the root."""
    limits = {f"sys/fs/cgroup/{'' if name == '_' else name}/cpu.max": text for name, text in quotas.items()}
    return {"proc/self/cgroup": f"0::{path}\n", "proc/self/mountinfo": f"{mounts}\n", **limits}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("200000 100000\n", 2.0), ("150000 100000", 1.5), ("50000 100000\n", 0.5), ("30000 10000\n", 3.0),
        ("max 100000\n", None), ("", None), ("200000", None), ("two 100000", None), ("200000 0", None),
        ("-1 100000", None), ("0 100000", None), ("1 2 3", None),
    ],
)  # fmt: skip
def test_quota_of_version_2(text, expected, machine):
    assert cpu_quota(machine(**of_version_2("/", _=text))) == expected


def test_the_smallest_quota_from_the_group_up_to_the_root_counts(machine):
    quotas = {"pod": "200000 100000", "pod/app": "max 100000", "other": "100000 100000", "_": "800000 100000"}
    assert cpu_quota(machine(**of_version_2("/pod/app/inner", **quotas))) == 2.0
    assert cpu_quota(machine(**of_version_2("/other", **quotas))) == 1.0
    assert cpu_quota(machine(**of_version_2("/elsewhere", **quotas))) == 8.0
    other = quotas | {"pod": "max 100000", "pod/app": "300000 100000"}
    assert cpu_quota(machine(**of_version_2("/pod/app", **other))) == 3.0


def test_nothing_outside_of_the_mount_is_read(machine):
    root = machine(**{"sys/fs/cpu.max": "100000 100000"}, **of_version_2("/../../x", _="400000 100000"))
    assert cpu_quota(root) == 4.0


def test_a_mount_of_a_part_of_the_hierarchy(machine):
    """A container's group may be the mount point itself, or lie below it."""
    part = V2_MOUNT.replace(" / ", " /docker/abc ", 1)
    assert cpu_quota(machine(**of_version_2("/docker/abc", part, _="300000 100000"))) == 3.0
    assert cpu_quota(machine(**of_version_2("/docker/abc/a", part, a="200000 100000"))) == 2.0
    assert cpu_quota(machine(**of_version_2("/", part))) == 3.0
    assert cpu_quota(machine(**of_version_2("/docker/abcdef", part))) == 3.0


def of_version_1(path: str, quota: str, period: str, folder: str = "", inside: str = "/") -> dict[str, str]:
    """Files of a process in the group `path`, and the quota of one group's folder."""
    group = f"sys/fs/cgroup/cpu,cpuacct/{folder}"
    return {
        "proc/self/cgroup": f"12:memory:/m\n4:cpu,cpuacct:{path}\n1:name=systemd:/\n",
        "proc/self/mountinfo": V1_MOUNTS.format(inside=inside),
        f"{group}/cpu.cfs_quota_us": f"{quota}\n", f"{group}/cpu.cfs_period_us": f"{period}\n",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("quota", "period", "expected"),
    [("250000", "100000", 2.5), ("-1", "100000", None), ("many", "100000", None), ("100000", "", None)],
)
def test_quota_of_version_1(quota, period, expected, machine):
    assert cpu_quota(machine(**of_version_1("/pod/a", quota, period, "pod"))) == expected


def test_quota_of_version_1_where_a_part_is_mounted(machine):
    assert cpu_quota(machine(**of_version_1("/docker/abc", "400000", "200000", inside="/docker/abc"))) == 2.0


def test_both_versions_at_once_and_mount_points_with_spaces(machine):
    files = of_version_1("/pod", "600000", "100000", "pod")
    files["proc/self/cgroup"] += "0::/pod\n"
    assert cpu_quota(machine(**files)) == 6.0
    mounts = files["proc/self/mountinfo"] + V2_MOUNT.replace("/sys/fs/cgroup", "/my\\040groups")
    files |= {"proc/self/mountinfo": mounts, "my groups/pod/cpu.max": "500000 100000"}
    assert cpu_quota(machine(**files)) == 5.0


@pytest.mark.parametrize("text", ["", "nonsense", "0::", "::::\n7:cpu\n", "\udcff\n"])
def test_systems_without_control_groups_or_with_unreadable_ones_have_no_quota(text, machine, tmp_path):
    assert cpu_quota(tmp_path / "empty") is None
    assert cpu_quota(machine(**{"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/cpu.max": "100000 100000"})) is None
    (tmp_path / "proc/self/mountinfo").write_bytes(text.encode("utf-8", "surrogateescape"))
    assert cpu_quota(tmp_path) is None
    (tmp_path / "proc/self/mountinfo").write_text(V2_MOUNT)
    (tmp_path / "proc/self/cgroup").write_bytes(text.encode("utf-8", "surrogateescape"))
    assert cpu_quota(tmp_path) is None


@pytest.mark.parametrize(
    ("affinity", "quota", "count", "text"),
    [
        (16, None, 16, "16 cores to use (affinity 16, no quota)"),
        (16, 2.0, 2, "2 cores to use (affinity 16, quota 2)"),
        (16, 2.99, 2, "2 cores to use (affinity 16, quota 2.99)"),
        (16, 0.25, 1, "1 core to use (affinity 16, quota 0.25)"),
        (2, 8.0, 2, "2 cores to use (affinity 2, quota 8)"),
    ],
)
def test_the_smaller_of_affinity_and_quota_counts_in_whole_cores(affinity, quota, count, text):
    assert (Cores(affinity, quota).count, str(Cores(affinity, quota))) == (count, text)


def test_affinity_and_quota_of_this_process(machine, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(16)), raising=False)
    assert cores(machine(**of_version_2("/", _="350000 100000"))) == Cores(16, 3.5)
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert cores(machine(**of_version_2("/", _="max 100000"))) == Cores(1, None)
    monkeypatch.setattr(module, "cores", lambda: Cores(16, 3.5))
    assert available_cores() == 3
