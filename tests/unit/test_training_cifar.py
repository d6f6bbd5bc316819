"""CIFAR-10 as published: both versions, packed and unpacked; damage, and pickles that want more than numbers."""

from __future__ import annotations

import io
import os
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from training.data import DATA_SETS
from training.files import TrainingError

BATCHES = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
IMAGES = np.random.default_rng(0).integers(0, 256, (6, 10, 3072), np.uint8)
LABELS = np.arange(10, dtype=np.uint8)


def binary(batch: int) -> bytes:
    return np.concatenate([LABELS[:, np.newaxis], IMAGES[batch]], axis=1).tobytes()


def pickled(batch: int) -> bytes:
    """As Python 3 writes for Python 2, so that names and content are spelt as in the published files."""
    fields: dict[bytes, Any] = {b"data": IMAGES[batch], b"labels": LABELS.tolist(), b"batch_label": b"a batch"}
    return pickle.dumps(fields, protocol=2)


def unpacked(folder: Path, version: str) -> Path:
    inner = folder / f"cifar-10-batches-{version}"
    inner.mkdir()
    for batch, name in enumerate(BATCHES):
        if version == "py":
            (inner / name).write_bytes(pickled(batch))
        else:
            (inner / f"{name}.bin").write_bytes(binary(batch))
    return inner


def packed(folder: Path, version: str) -> Path:
    archive = folder / f"cifar-10-{'python' if version == 'py' else 'binary'}.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        for batch, name in enumerate(BATCHES):
            content = pickled(batch) if version == "py" else binary(batch)
            member = tarfile.TarInfo(f"cifar-10-batches-{version}/{name}{'' if version == 'py' else '.bin'}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return archive


def load(folder: Path) -> Any:
    return DATA_SETS["cifar10"].load(folder)


def expected(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    mean, std = np.array([0.4914, 0.4822, 0.4465]), np.array([0.2470, 0.2435, 0.2616])
    images: NDArray[np.float64] = pixels.reshape(-1, 3, 32, 32) / 255
    return (images - mean[:, None, None]) / std[:, None, None]


@pytest.mark.parametrize("version", ["py", "bin"])
@pytest.mark.parametrize("pack", [packed, unpacked])
def test_each_published_form_is_read(tmp_path: Path, version: str, pack: Any) -> None:
    pack(tmp_path, version)
    data = load(tmp_path)
    assert np.allclose(data.images, expected(IMAGES[:5]), atol=1e-5)
    assert np.allclose(data.held_out_images, expected(IMAGES[5]), atol=1e-5)
    assert data.labels.tolist() == [*range(10)] * 5 and data.held_out_labels.tolist() == [*range(10)]
    assert data.names[0] == "airplane" and data.channels == 3 and data.images.dtype == torch.float32


@pytest.mark.parametrize("version", ["py", "bin"])
def test_the_inner_folder_may_be_named_itself(tmp_path: Path, version: str) -> None:
    assert len(load(unpacked(tmp_path, version)).labels) == 50


def test_a_pickle_of_python_2_is_read(tmp_path: Path) -> None:
    """Byte strings where Python 3 writes encoded text, numpy's old module, columns first."""
    for batch, name in enumerate(BATCHES):
        raw = np.asfortranarray(IMAGES[batch]).tobytes(order="F")
        array = (
            b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tU\x01btR(K\x01(K\x0aM\x00\x0ct"
            b"cnumpy\ndtype\n(U\x02u1K\x00K\x01tR(K\x03U\x01|NNN"
            b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x88T" + len(raw).to_bytes(4, "little") + raw + b"tb"
        )
        labels = b"(" + b"".join(b"K" + bytes([label]) for label in LABELS.tolist()) + b"l"
        (tmp_path / name).write_bytes(b"\x80\x02(U\x04data" + array + b"U\x06labels" + labels + b"d.")
    assert np.allclose(load(tmp_path).images, expected(IMAGES[:5]), atol=1e-5)


class Command:
    """Would run when unpickled by the library's own unpickler."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("reached",)


@pytest.mark.parametrize("wanted", [Command(), np.int64(1), np.array([object()])])
def test_a_pickle_that_asks_for_more_is_refused_and_reaches_nothing(
    tmp_path: Path, wanted: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = unpacked(tmp_path, "py")
    monkeypatch.chdir(tmp_path)
    (inner / "data_batch_3").write_bytes(pickle.dumps({b"data": wanted, b"labels": [1]}, protocol=2))
    with pytest.raises(TrainingError, match=r"data_batch_3.*(asks for|cannot be read as a pickle)"):
        load(tmp_path)
    assert not (tmp_path / "reached").exists()


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({b"labels": [1]}, "a dictionary with `data`"),
        ({b"data": np.zeros((2, 3072), np.uint8), b"labels": [1]}, "2 pictures and 1 labels"),
        ({b"data": np.zeros((1, 3071), np.uint8), b"labels": [1]}, "`data` of 3072 bytes a row"),
        ({b"data": np.zeros((1, 3072), np.float32), b"labels": [1]}, "numbers of type f4, not bytes"),
        ({b"data": np.zeros((1, 3072), np.uint8), b"labels": [300]}, "a dictionary with `data`"),
        ({b"data": b"text", b"labels": [1]}, "a dictionary with `data`"),
        ([1, 2], "a dictionary with `data`"),
    ],
)
def test_a_pickle_of_something_else_is_named(tmp_path: Path, fields: object, sentence: str) -> None:
    inner = unpacked(tmp_path, "py")
    (inner / "test_batch").write_bytes(pickle.dumps(fields, protocol=2))
    with pytest.raises(TrainingError, match=f"test_batch.*{sentence}"):
        load(tmp_path)


@pytest.mark.parametrize("kept", [0, 1, 100, 20_000])
def test_a_truncated_batch_is_named(tmp_path: Path, kept: int) -> None:
    for version, suffix in (("py", ""), ("bin", ".bin")):
        folder = tmp_path / version
        folder.mkdir()
        path = unpacked(folder, version) / f"data_batch_2{suffix}"
        path.write_bytes(path.read_bytes()[:kept])
        with pytest.raises(TrainingError, match=f"data_batch_2{suffix}"):
            load(folder)


def test_a_batch_cut_at_a_record_is_noticed(tmp_path: Path) -> None:
    path = unpacked(tmp_path, "bin") / "data_batch_4.bin"
    path.write_bytes(path.read_bytes()[: 9 * 3073])
    with pytest.raises(TrainingError, match=r"batches of one size are expected.*data_batch_4\.bin 9"):
        load(tmp_path)


@pytest.mark.parametrize("kept", [0, 10, 5_000, 60_000])
def test_a_truncated_archive_is_named(tmp_path: Path, kept: int) -> None:
    archive = packed(tmp_path, "bin")
    archive.write_bytes(archive.read_bytes()[:kept])
    with pytest.raises(TrainingError, match=r"cifar-10-binary\.tar\.gz"):
        load(tmp_path)


def test_a_missing_batch_is_named(tmp_path: Path) -> None:
    (unpacked(tmp_path, "bin") / "data_batch_5.bin").unlink()
    with pytest.raises(TrainingError, match=r"data_batch_5\.bin is missing"):
        load(tmp_path)


def test_a_class_without_pictures_is_named(tmp_path: Path) -> None:
    path = unpacked(tmp_path, "bin") / "test_batch.bin"
    path.write_bytes(path.read_bytes()[:-3073])
    with pytest.raises(TrainingError, match=r"test_batch\.bin: no example of class 9 \(truck\)"):
        load(tmp_path)


def test_an_empty_folder_is_told_what_it_lacks(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"holds no CIFAR-10: cifar-10-python\.tar\.gz or cifar-10-binary"):
        load(tmp_path)
