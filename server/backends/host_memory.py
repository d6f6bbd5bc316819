"""How much memory this process may use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from server.backends.cgroups import CGROUPS, MEMBERSHIP, group_folders, read


def available_memory(cgroups: Path = CGROUPS, membership: Path = MEMBERSHIP) -> int:
    """Bytes: the machine's, lowered to the smallest limit among this process's control groups, v1 and v2."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([machine, *_limits(cgroups, membership)])


def _limits(cgroups: Path, membership: Path) -> Iterator[int]:
    for is_v2, folder in group_folders("memory", cgroups, membership):
        text = read(folder / ("memory.max" if is_v2 else "memory.limit_in_bytes")).strip()
        if text.isdecimal():  # "max" where there is none
            yield int(text)
