from __future__ import annotations

import os
from pathlib import Path

import pytest

from server.backends.cores import available_cores

GROUPS = {
    "no quota": ({}, "0::/\n", 8),
    "v2 without a limit": ({"cpu.max": "max 100000"}, "0::/\n", 8),
    "v2": ({"cpu.max": "200000 100000"}, "0::/\n", 2),
    "v2, a part of a core is a core": ({"cpu.max": "250000 100000"}, "0::/\n", 3),
    "v2, less than a core": ({"cpu.max": "10000 100000"}, "0::/\n", 1),
    "v2, in a slice": ({"a/b/cpu.max": "300000 100000"}, "0::/a/b\n", 3),
    "v2, a group around it is smaller": ({"a/cpu.max": "100000 100000", "a/b/cpu.max": "max 100000"}, "0::/a/b\n", 1),
    "v2, the path is the host's": ({"cpu.max": "400000 100000"}, "0::/docker/0123\n", 4),
    "v2, another's group": ({"other/cpu.max": "100000 100000"}, "0::/mine\n", 8),
    "v1": ({"cpu,cpuacct/cpu.cfs_quota_us": "500000", "cpu,cpuacct/cpu.cfs_period_us": "100000"},
           "5:memory:/\n4:cpu,cpuacct:/\n", 5),
    "v1 without a limit": ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, "4:cpu:/\n", 8),
    "v1, in a group": ({"cpu/g/cpu.cfs_quota_us": "150000", "cpu/g/cpu.cfs_period_us": "50000"}, "4:cpu:/g\n", 3),
    "v1 of processor sets": ({"cpuset/cpu.cfs_quota_us": "1", "cpuset/cpu.cfs_period_us": "1"}, "4:cpuset:/\n", 8),
    "more than there is": ({"cpu.max": "9900000 100000"}, "0::/\n", 8),
    "nonsense": ({"cpu.max": "many 0"}, "no colons\n", 8),
    "a period of nothing": ({"cpu.max": "1 0"}, "0::/\n", 8),
}  # fmt: skip


@pytest.mark.parametrize(("files", "membership", "cores"), GROUPS.values(), ids=GROUPS)
def test_the_smallest_quota_of_the_groups_around_the_process_decides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], membership: str, cores: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    (tmp_path / "membership").write_text(membership)
    for name, text in files.items():
        (tmp_path / "groups" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "groups" / name).write_text(text + "\n")
    assert available_cores(tmp_path / "groups", tmp_path / "membership") == cores


def test_without_control_groups_affinity_decides(tmp_path: Path) -> None:
    assert available_cores(tmp_path / "none", tmp_path / "none") == len(os.sched_getaffinity(0))
