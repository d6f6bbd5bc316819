"""The control groups that this process is in: what a container, or whoever started the process, lets it have."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

CGROUPS = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")


def group_folders(controller: str, cgroups: Path, membership: Path) -> Iterator[tuple[bool, Path]]:
    """Where the files of a controller are, of this process's groups and of all groups around them, and whether they are
    those of version 2. Not all of the folders need be there."""
    for line in read(membership).splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        # Inside a container the path may be the host's, and then only the root of what is mounted is ours.
        groups = PurePosixPath(path), *PurePosixPath(path).parents
        for group in (str(group).lstrip("/") for group in groups):
            if not controllers:
                yield True, cgroups / group
            elif controller in controllers.split(","):
                yield False, cgroups / controllers / group


def read(path: Path) -> str:
    """A file's text; "" where there is none: no such group here."""
    try:
        return path.read_text()
    except OSError:
        return ""
