"""What tells the content of a version from any other, on whichever server it is loaded: a hash over its files, or over
its models' where it is an ensemble."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import count
from pathlib import Path

from blake3 import blake3

from server.errors import LoadFailed
from server.models.config import ModelConfig
from server.models.repository import ModelFolder

_PROCESS = os.urandom(16)
_loads = count()


def new_identity(config: ModelConfig, version: int) -> bytes:
    """What tells a load whose content is not known from any other, of this process or another one."""
    return f"{config.name}/{version}#{next(_loads)}".encode() + _PROCESS


def content_identity(config: ModelConfig, folder: ModelFolder, version: int) -> bytes:
    """Name, configuration, labels, and every file of the version and of its operators. Blocks. Raises `LoadFailed`."""
    hasher = _begin(config, version)
    try:
        files = [path for path in sorted((folder.path / str(version)).rglob("*")) if path.is_file()]
        for path in [*files, *(folder.path / name for name in config.load.op_libraries)]:
            _add(hasher, path, folder.path)
    except OSError as error:
        raise LoadFailed(f"{folder.path}: {error}") from error
    return hasher.digest()


def ensemble_identity(config: ModelConfig, version: int, models: Sequence[bytes]) -> bytes:
    """Name, configuration, labels, and the models of the steps, by their own identities."""
    hasher = _begin(config, version)
    for model in models:
        hasher.update(len(model).to_bytes(8, "little") + model)
    return hasher.digest()


def _begin(config: ModelConfig, version: int) -> blake3:
    hasher = blake3()
    for text in (config.name, str(version), repr([(t.name, t.labels) for t in config.outputs])):
        hasher.update(f"{len(text.encode())}:{text}".encode())
    hasher.update(len(config.serialized).to_bytes(8, "little") + config.serialized)
    return hasher


def _add(hasher: blake3, path: Path, root: Path) -> None:
    name = str(path.relative_to(root))
    hasher.update(f"{len(name.encode())}:{name}:{path.stat().st_size}:".encode())
    hasher.update_mmap(path)
