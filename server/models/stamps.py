"""What tells whether a model's files are still the same: paths, sizes and times. Read from disk, compared anywhere.

Hidden files do not count, and neither do files that end in `.md`: a model card says nothing to the server. Links that
lead out of the model's folder are not followed: nothing behind them can be loaded, and there may be a whole disk.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from server.errors import LoadFailed
from server.models.repository import ModelFolder, version_number
from server.models.shortages import is_passing

Stamp = tuple[tuple[str, int, int], ...]
"""Path, size and time of change (ns) of every file of a folder, sorted."""

VersionStamp = tuple[str, Stamp, Stamp]
"""Another one whenever loading a version could give something else: its model's folder, the files beside the versions,
and its own."""

MAX_FILES = 100_000
"""Of a model. They are all looked at whenever it is asked whether something has changed."""

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
    """Look at all files of a model, those of `folder.versions` and those beside them.

    Raises LoadFailed where there are more than `MAX_FILES`, or the machine is short of what it takes to look at them.
    """
    shared: list[tuple[str, int, int]] = []
    versions: dict[int, Stamp] = dict.fromkeys(folder.versions, ())
    room = MAX_FILES
    for entry in _entries(folder.path):
        version = version_number(entry.name)
        if not entry.is_dir() or _leads_out(folder.path, entry):
            shared.append((entry.name, *_size_and_time(entry.path)))
            room -= 1
            continue
        if version is not None and version not in versions:
            continue
        stamp = _stamp(Path(entry.path), room)
        room -= len(stamp)
        if version is not None:
            versions[version] = stamp
        else:
            shared += [(f"{entry.name}/{path}", size, time) for path, size, time in stamp]
        if room < 0:
            break
    if room < 0:
        raise LoadFailed(f"{folder.path}: has more than {MAX_FILES} files; leave what no version needs elsewhere")
    return ModelSnapshot(folder, tuple(sorted(shared)), versions, whole)


def _leads_out(folder: Path, entry: os.DirEntry[str]) -> bool:
    return entry.is_symlink() and not Path(entry.path).resolve().is_relative_to(folder.resolve())


def _stamp(folder: Path, room: int) -> Stamp:
    """The files below a folder; of more than `room`, one more than that at least."""
    found: list[tuple[str, int, int]] = []
    waiting = [folder]
    while waiting and len(found) + len(waiting) <= room:
        for entry in _entries(waiting.pop()):
            if entry.is_dir(follow_symlinks=False):
                waiting.append(Path(entry.path))
            else:
                found.append((os.path.relpath(entry.path, folder), *_size_and_time(entry.path)))
    found += [(os.path.relpath(path, folder), *GONE) for path in waiting]
    return tuple(sorted(found))


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """What counts in a folder, or one entry more than may be; nothing where it cannot be listed: whoever loads from it
    says why. Raises LoadFailed where that is the process's fault: the files may be as they were."""
    try:
        with os.scandir(folder) as entries:
            counting = (entry for entry in entries if not entry.name.startswith(".") and not entry.name.endswith(".md"))
            return list(islice(counting, MAX_FILES + 1))
    except OSError as error:
        if is_passing(error):
            raise LoadFailed(f"{folder}: cannot be listed now: {error.strerror}") from error
        return []


def _size_and_time(path: str) -> tuple[int, int]:
    try:
        status = os.stat(path)
    except OSError:
        return GONE
    return status.st_size, status.st_mtime_ns
