"""What makes the content of a version another one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from server.errors import LoadFailed
from server.models.identity import content_identity
from server.models.repository import ModelFolder
from tests.repositories import add_model
from tests.unit.loaded import Y, batching_config

CONFIG = replace(batching_config(), serialized=b"config")


def written(root: Path) -> ModelFolder:
    folder = add_model(root, "m", b"model")
    (folder / "1" / "weights").mkdir()
    (folder / "1" / "weights" / "w.bin").write_bytes(b"weights")
    return ModelFolder("m", folder, (1,))


def identity(folder: ModelFolder) -> bytes:
    return content_identity(CONFIG, folder, 1)


def test_the_same_files_elsewhere_are_the_same(tmp_path: Path) -> None:
    assert identity(written(tmp_path / "a")) == identity(written(tmp_path / "b"))


CHANGES: dict[str, Callable[[Path], object]] = {
    "model": lambda version: (version / "model.onnx").write_bytes(b"other"),
    "weights": lambda version: (version / "weights" / "w.bin").write_bytes(b"WEIGHTS"),
    "a name": lambda version: (version / "weights" / "w.bin").rename(version / "weights" / "v.bin"),
    "one more": lambda version: (version / "more").write_bytes(b""),
    "one less": lambda version: (version / "weights" / "w.bin").unlink(),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_other_files_are_another_content(tmp_path: Path, change: Callable[[Path], object]) -> None:
    folder = written(tmp_path)
    before = identity(folder)
    change(folder.path / "1")
    assert identity(folder) != before


def test_another_configuration_version_or_label_is_another_content(tmp_path: Path) -> None:
    folder = written(tmp_path)
    (folder.path / "1").rename(folder.path / "2")
    other_version = content_identity(CONFIG, folder, 2)
    (folder.path / "2").rename(folder.path / "1")
    labelled = replace(CONFIG, outputs=(replace(Y, labels=("a", "b")), *CONFIG.outputs[1:]))
    others = {
        other_version,
        content_identity(replace(CONFIG, serialized=b"other"), folder, 1),
        content_identity(replace(CONFIG, name="n"), folder, 1),
        content_identity(labelled, folder, 1),
    }
    assert len(others | {identity(folder)}) == 5


def test_a_file_that_cannot_be_read_is_the_reason_of_a_failed_load(tmp_path: Path) -> None:
    folder = written(tmp_path)
    config = replace(CONFIG, load=replace(CONFIG.load, op_libraries=("missing.so",)))
    with pytest.raises(LoadFailed, match=r"missing\.so"):
        content_identity(config, folder, 1)
