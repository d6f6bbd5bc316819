"""How many processor cores this process may really use."""

from __future__ import annotations

import os
from math import ceil
from pathlib import Path

CGROUP_CPU_MAX = Path("/sys/fs/cgroup/cpu.max")


def available_cores(cpu_max: Path = CGROUP_CPU_MAX) -> int:
    """Cores by affinity, lowered to the cgroup v2 quota ("<quota> <period>" or "max <period>") where there is one."""
    cores = len(os.sched_getaffinity(0))
    try:
        quota, period = cpu_max.read_text().split()
        if quota != "max":
            cores = min(cores, ceil(int(quota) / int(period)))
    except (OSError, ValueError):
        pass  # no cgroup v2 here: affinity alone decides
    return max(1, cores)
