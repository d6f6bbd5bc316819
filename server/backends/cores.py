"""How many processor cores this process may really use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from math import ceil
from pathlib import Path

from server.backends.cgroups import CGROUPS, MEMBERSHIP, group_folders, read


def available_cores(cgroups: Path = CGROUPS, membership: Path = MEMBERSHIP) -> int:
    """Cores by affinity, lowered to the smallest processor quota among this process's control groups, v1 and v2."""
    cores = len(os.sched_getaffinity(0))
    return max(1, min([cores, *(ceil(quota) for quota in _quotas(cgroups, membership))]))


def _quotas(cgroups: Path, membership: Path) -> Iterator[float]:
    """The quotas, in cores, of this process's groups and of all groups around them."""
    for is_v2, folder in group_folders("cpu", cgroups, membership):
        if is_v2:  # "<quota> <period>", or "max <period>"
            yield from _quota(read(folder / "cpu.max").split())
        else:  # the quota is -1 where there is none
            yield from _quota([*read(folder / "cpu.cfs_quota_us").split(), *read(folder / "cpu.cfs_period_us").split()])


def _quota(words: list[str]) -> Iterator[float]:
    if len(words) == 2 and all(word.isdecimal() for word in words) and int(words[1]) > 0:
        yield int(words[0]) / int(words[1])
