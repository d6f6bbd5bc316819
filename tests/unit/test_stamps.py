"""What is looked at to tell whether a model has changed, and what is not."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from server.errors import LoadFailed
from server.models import stamps
from server.models.repository import ModelFolder
from server.models.stamps import take


@pytest.fixture
def folder(tmp_path: Path) -> ModelFolder:
    """A model with one version of one file, beside a folder that is not its own."""
    path = tmp_path / "repository" / "digits"
    (path / "1").mkdir(parents=True)
    (path / "1" / "model.onnx").write_bytes(b"onnx")
    (tmp_path / "disk" / "deep").mkdir(parents=True)
    (tmp_path / "disk" / "deep" / "file").touch()
    return ModelFolder("digits", path, (1,))


def names(stamp: stamps.Stamp) -> list[str]:
    return [name for name, _, _ in stamp]


def test_a_link_out_of_the_model_is_not_followed(folder: ModelFolder) -> None:
    disk = folder.path.parent.parent / "disk"
    (folder.path / "extra").symlink_to(disk)
    (folder.path / "1" / "extra").symlink_to(disk)
    snapshot = take(folder)
    assert names(snapshot.shared) == ["extra"]
    assert names(snapshot.versions[1]) == ["extra", "model.onnx"]


def test_a_version_that_is_a_link_out_of_the_model_has_nothing_to_look_at(folder: ModelFolder) -> None:
    (folder.path / "2").symlink_to(folder.path.parent.parent / "disk")
    snapshot = take(ModelFolder("digits", folder.path, (1, 2)))
    assert snapshot.versions[2] == ()


def test_a_link_within_the_model_is_followed(folder: ModelFolder) -> None:
    (folder.path / ".data").mkdir()
    (folder.path / ".data" / "row.bin").touch()
    (folder.path / "warmup").symlink_to(".data")
    assert names(take(folder).shared) == ["warmup/row.bin"]


def test_a_link_to_its_own_folder_is_walked_once(folder: ModelFolder) -> None:
    (folder.path / "again").symlink_to(".")
    assert names(take(folder).shared) == ["again/1/model.onnx", "again/again"]


def test_a_pipe_holds_nobody_up(folder: ModelFolder) -> None:
    os.mkfifo(folder.path / "config.pbtxt")
    assert names(take(folder).shared) == ["config.pbtxt"]


@pytest.mark.parametrize("place", ["", "1", "warmup", "warmup/deep"])
def test_a_model_of_too_many_files_is_refused(folder: ModelFolder, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stamps, "MAX_FILES", 100)
    (folder.path / place).mkdir(parents=True, exist_ok=True)
    for i in range(99):
        (folder.path / place / f"{i}.bin").touch()
    take(folder)
    (folder.path / place / "99.bin").touch()
    with pytest.raises(LoadFailed, match=f"{folder.path}: has more than 100 files"):
        take(folder)


def test_a_model_of_too_many_folders_is_refused(folder: ModelFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stamps, "MAX_FILES", 100)
    for i in range(200):
        (folder.path / "warmup" / str(i)).mkdir(parents=True)
    with pytest.raises(LoadFailed, match="has more than 100 files"):
        take(folder)


@contextmanager
def no_descriptors() -> Iterator[None]:
    """No file can be opened that is not open."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_a_model_is_not_taken_for_an_empty_one_where_no_descriptor_is_left_to_look_at_it(folder: ModelFolder) -> None:
    with no_descriptors(), pytest.raises(LoadFailed, match="digits: cannot be listed now: Too many open files"):
        take(folder)
