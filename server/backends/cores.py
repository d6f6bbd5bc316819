"""How many processor cores this process may really use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from math import ceil
from pathlib import Path, PurePosixPath

CGROUPS = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")


def available_cores(cgroups: Path = CGROUPS, membership: Path = MEMBERSHIP) -> int:
    """Cores by affinity, lowered to the smallest processor quota among this process's control groups, v1 and v2."""
    cores = len(os.sched_getaffinity(0))
    return max(1, min([cores, *(ceil(quota) for quota in _quotas(cgroups, membership))]))


def _quotas(cgroups: Path, membership: Path) -> Iterator[float]:
    """The quotas, in cores, of this process's groups and of all groups around them."""
    for line in _read(membership).splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        # Inside a container the path may be the host's, and then only the root of what is mounted is ours.
        groups = PurePosixPath(path), *PurePosixPath(path).parents
        for group in (str(group).lstrip("/") for group in groups):
            if not controllers:  # v2: "<quota> <period>", or "max <period>"
                yield from _quota(_read(cgroups / group / "cpu.max").split())
            elif "cpu" in controllers.split(","):  # v1: the quota is -1 where there is none
                folder = cgroups / controllers / group
                yield from _quota(
                    [*_read(folder / "cpu.cfs_quota_us").split(), *_read(folder / "cpu.cfs_period_us").split()]
                )


def _quota(words: list[str]) -> Iterator[float]:
    if len(words) == 2 and all(word.isdecimal() for word in words) and int(words[1]) > 0:
        yield int(words[0]) / int(words[1])


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""  # no such group here
