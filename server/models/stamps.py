"""What tells whether a model's files are still the same: paths, sizes and times. Read from disk, compared anywhere.

Hidden files do not count, and neither do files that end in `.md`: a model card says nothing to the server.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from server.models.repository import ModelFolder, version_number

Stamp = tuple[tuple[str, int, int], ...]
"""Path, size and time of change (ns) of every file of a folder, sorted."""

VersionStamp = tuple[str, Stamp, Stamp]
"""Another one whenever loading a version could give something else: its model's folder, the files beside the versions,
and its own."""

GONE = (-1, -1)
"""Size and time of a file that cannot be looked at: a link to nowhere, or removed a moment ago."""


@dataclass(frozen=True, slots=True)
class ModelSnapshot:
    """One model as a scan found it."""

    folder: ModelFolder
    shared: Stamp
    """The files that are not a version's: the configuration, labels, inputs for the warm-up."""
    versions: Mapping[int, Stamp]
    whole: bool = False
    """Whether its files only ever change all at once, so that one look is enough."""

    def stamp(self, version: int) -> VersionStamp:
        return str(self.folder.path), self.shared, self.versions[version]


def take(folder: ModelFolder, *, whole: bool = False) -> ModelSnapshot:
    """Look at all files of a model, those of `folder.versions` and those beside them."""
    shared: list[tuple[str, int, int]] = []
    versions: dict[int, Stamp] = dict.fromkeys(folder.versions, ())
    for entry in _entries(folder.path):
        if not entry.is_dir():
            shared.append((entry.name, *_size_and_time(entry.path)))
        elif (version := version_number(entry.name)) is not None:
            if version in versions:
                versions[version] = _stamp(Path(entry.path))
        else:
            shared += [(f"{entry.name}/{path}", size, time) for path, size, time in _stamp(Path(entry.path))]
    return ModelSnapshot(folder, tuple(sorted(shared)), versions, whole)


def _stamp(folder: Path) -> Stamp:
    found: list[tuple[str, int, int]] = []
    waiting = [folder]
    while waiting:
        for entry in _entries(waiting.pop()):
            if entry.is_dir(follow_symlinks=False):
                waiting.append(Path(entry.path))
            else:
                found.append((os.path.relpath(entry.path, folder), *_size_and_time(entry.path)))
    return tuple(sorted(found))


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """What counts in a folder; nothing where it cannot be listed: whoever loads from it says why."""
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not entry.name.startswith(".") and not entry.name.endswith(".md")]
    except OSError:
        return []


def _size_and_time(path: str) -> tuple[int, int]:
    try:
        status = os.stat(path)
    except OSError:
        return GONE
    return status.st_size, status.st_mtime_ns
