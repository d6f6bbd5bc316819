"""Model repositories on disk, for tests: any shape that a folder can have, right or wrong."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from onnx import ModelProto

Content = ModelProto | bytes | None
"""A model file: an ONNX model, any other bytes, or nothing: the version's folder stays empty."""


def add_model(
    root: Path,
    name: str,
    model: Content = None,
    config: str | None = None,
    *,
    versions: Mapping[int, Content] | None = None,
    files: Mapping[str, str] | None = None,
) -> Path:
    """Write a model's folder below `root` and return it.

    `model` is version 1, unless `versions` says more. Without `config` there is no config.pbtxt. `files` lie beside
    it: labels and the like, by name.
    """
    folder = root / name
    folder.mkdir(parents=True)
    for version, content in ({1: model} if versions is None else versions).items():
        (folder / str(version)).mkdir()
        if content is not None:
            data = content if isinstance(content, bytes) else content.SerializeToString()
            (folder / str(version) / "model.onnx").write_bytes(data)
    if config is not None:
        (folder / "config.pbtxt").write_text(config)
    for filename, text in (files or {}).items():
        (folder / filename).write_text(text)
    return folder
