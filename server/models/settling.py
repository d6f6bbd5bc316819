"""What a repository holds, going by scans of it while people write to it. Pure.

A file that is being written is seen half-written, and a folder that is being replaced is seen missing. So what counts
is what two scans in a row agree on, part by part: the files beside the versions, and each version. A part on which they
do not agree counts as what it was before.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TypeVar

from server.models.repository import ModelFolder
from server.models.stamps import ModelSnapshot, Stamp

T = TypeVar("T")

Models = Mapping[str, ModelSnapshot]


def settle(settled: Models, before: Models, now: Models) -> dict[str, ModelSnapshot]:
    """What to go by from now on, where `settled` was gone by until now and two scans found `before` and `now`."""
    models = {
        name: _settle_model(settled.get(name), before.get(name), now.get(name)) for name in settled.keys() | now.keys()
    }
    return {name: model for name, model in models.items() if model is not None}


def _settle_model(
    settled: ModelSnapshot | None, before: ModelSnapshot | None, now: ModelSnapshot | None
) -> ModelSnapshot | None:
    if now is None:
        return settled if before is not None else None
    if now.whole:
        return now
    shared = _agreed(*(model.shared if model else None for model in (settled, before, now)))
    versions = _settle_versions(*(model.versions if model else {} for model in (settled, before, now)))
    if shared is None or (settled is None and not versions and now.versions):
        return None
    path = now.folder.path if settled is None or before == now else settled.folder.path
    folder = ModelFolder(now.folder.name, path, tuple(sorted(versions)))
    return replace(now, folder=folder, shared=shared, versions=versions)


def _settle_versions(
    settled: Mapping[int, Stamp], before: Mapping[int, Stamp], now: Mapping[int, Stamp]
) -> dict[int, Stamp]:
    numbers = settled.keys() | now.keys()
    stamps = {number: _agreed(settled.get(number), before.get(number), now.get(number)) for number in numbers}
    return {number: stamp for number, stamp in stamps.items() if stamp is not None}


def _agreed(settled: T | None, before: T | None, now: T | None) -> T | None:
    """None is something that is not there."""
    return now if before == now else settled
