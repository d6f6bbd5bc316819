"""IDX files as MNIST and EMNIST publish them: what is read, and what is said of damaged files."""

from __future__ import annotations

import gzip
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from training.data import DATA_SETS
from training.data.idx import read_idx
from training.files import TrainingError

Array = NDArray[np.uint8]


def idx(array: Array) -> bytes:
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes()


def write_sides(folder: Path, prefixes: tuple[str, str], labels: Array, *, packed: bool = False) -> Array:
    """Both sides with the same pictures, drawn from a seed; they are returned as the file has them."""
    images = np.random.default_rng(0).integers(0, 256, (len(labels), 28, 28), np.uint8)
    for prefix in prefixes:
        for name, array in ((f"{prefix}-images-idx3-ubyte", images), (f"{prefix}-labels-idx1-ubyte", labels)):
            if packed:
                (folder / f"{name}.gz").write_bytes(gzip.compress(idx(array)))
            else:
                (folder / name).write_bytes(idx(array))
    return images


def write_mnist(folder: Path, *, packed: bool = False) -> Array:
    return write_sides(folder, ("train", "t10k"), np.arange(20, dtype=np.uint8) % 10, packed=packed)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=4), st.booleans(), st.randoms(use_true_random=False))
def test_any_array_comes_back_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], packed: bool, random: object
) -> None:
    array = np.array([random.randrange(256) for _ in range(math.prod(sizes))], np.uint8).reshape(sizes)  # type: ignore[attr-defined]
    path = tmp_path_factory.mktemp("idx") / ("array.gz" if packed else "array")
    path.write_bytes(gzip.compress(idx(array)) if packed else idx(array))
    read = read_idx(path, len(sizes))
    assert read.shape == array.shape and np.array_equal(read, array)


@given(st.binary(max_size=40))
def test_no_bytes_lead_to_any_other_error(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("idx") / "noise"
    path.write_bytes(content)
    for dimensions in (1, 3):
        try:
            read = read_idx(path, dimensions)
        except TrainingError as error:
            said = str(error)
        else:
            said = str(path) if idx(read) == content else "read as something else"
        assert str(path) in said


@pytest.mark.parametrize("packed", [False, True])
def test_mnist_is_read_as_published(tmp_path: Path, packed: bool) -> None:
    images = write_mnist(tmp_path, packed=packed)
    data = DATA_SETS["mnist"].load(tmp_path)
    assert data.images.shape == (20, 1, 28, 28) and data.images.dtype == torch.float32
    assert np.allclose(data.images[:, 0], images / 255 * 1.275 - 0.1, atol=1e-6)
    assert data.labels.tolist() == [*range(10)] * 2 == data.held_out_labels.tolist()
    assert torch.equal(data.images, data.held_out_images) and data.names == tuple("0123456789") and data.channels == 1


def test_the_row_for_lenet_has_two_pixels_of_paper_all_around(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    plain, wide = DATA_SETS["mnist"].load(tmp_path), DATA_SETS["mnist32"].load(tmp_path)
    assert wide.images.shape == (20, 1, 32, 32)
    assert torch.equal(wide.held_out_images[:, :, 2:-2, 2:-2], plain.held_out_images)
    assert torch.all(wide.images[:, :, :2] == -0.1) and torch.all(wide.images[:, :, :, -2:] == -0.1)


def test_emnist_letters_stand_upright_and_count_from_zero(tmp_path: Path) -> None:
    prefixes = "emnist-letters-train", "emnist-letters-test"
    images = write_sides(tmp_path, prefixes, np.arange(1, 27, dtype=np.uint8))
    data = DATA_SETS["emnist_letters"].load(tmp_path)
    assert np.allclose(data.images[:, 0], images.transpose(0, 2, 1) / 255 * 1.275 - 0.1, atol=1e-6)
    assert data.labels.tolist() == list(range(26)) and data.names[0] == "A" and data.names[-1] == "Z"


def test_the_spelling_with_a_dot_is_read_too(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    for path in list(tmp_path.iterdir()):
        path.rename(path.with_name(path.name.replace("-idx", ".idx")))
    assert len(DATA_SETS["mnist"].load(tmp_path).labels) == 20


def cut(content: bytes) -> bytes:
    return content[:-1]


LABELS = np.arange(20, dtype=np.uint8) % 10


@pytest.mark.parametrize(
    ("name", "damage", "sentence"),
    [
        ("train-images-idx3-ubyte", cut, "20×28×28 = 15680 bytes are promised after the header, and 15679 are there"),
        ("train-images-idx3-ubyte", lambda content: content + b"x", "and 15681 are there"),
        ("train-images-idx3-ubyte", lambda content: content[:9], "is truncated: 9 bytes, and the header alone has 16"),
        ("train-images-idx3-ubyte", lambda _: b"", r"the magic number is 0x\(nothing\), not 0x00000803"),
        ("train-images-idx3-ubyte", lambda _: idx(LABELS), "the magic number is 0x00000801, not 0x00000803"),
        ("t10k-labels-idx1-ubyte", lambda _: b"\x00\x00\x0d\x01", "0x00000d01, not 0x00000801"),
        ("t10k-images-idx3-ubyte", lambda _: idx(np.zeros((20, 8, 8), np.uint8)), "8×8 pixels; 28×28 are expected"),
        ("train-labels-idx1-ubyte", lambda _: idx(LABELS[:10]), "has 20 pictures, and .* 10 labels"),
        ("train-labels-idx1-ubyte", lambda _: idx(LABELS % 9), r"no example of class 9 \(9\); all 10 classes"),
        ("train-labels-idx1-ubyte", lambda _: idx(LABELS + np.uint8(1)), "label 10 was found; labels are 0 to 9"),
    ],
)
def test_what_is_wrong_is_said_with_the_file(
    tmp_path: Path, name: str, damage: Callable[[bytes], bytes], sentence: str
) -> None:
    write_mnist(tmp_path)
    (tmp_path / name).write_bytes(damage((tmp_path / name).read_bytes()))
    with pytest.raises(TrainingError, match=sentence) as refused:
        DATA_SETS["mnist"].load(tmp_path)
    assert str(tmp_path / name) in str(refused.value)


@pytest.mark.parametrize("damage", [cut, lambda content: content[:-12], lambda _: b"<html>not found</html>"])
def test_a_damaged_gz_is_named(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    write_mnist(tmp_path, packed=True)
    path = tmp_path / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(TrainingError, match=r"t10k-images-idx3-ubyte\.gz cannot be read"):
        DATA_SETS["mnist"].load(tmp_path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(TrainingError, match=r"t10k-labels-idx1-ubyte is missing, also as \.gz"):
        DATA_SETS["mnist"].load(tmp_path)
