"""The split is the same for everybody, and the file for the examples tells the same story as the module."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch

from training import digits
from training.data import DATA_SETS

COMMITTED = Path(__file__).parents[2] / "examples" / "digits_held_out.npz"


def test_the_split_never_changes() -> None:
    held_out, seen = digits.held_out_digits(), digits.training_digits()
    content = held_out.images.tobytes() + held_out.labels.tobytes() + seen.images.tobytes() + seen.labels.tobytes()
    assert hashlib.sha256(content).hexdigest() == "40bbefaf887da48efbdb26822f32afb7a161d0eaf7c9b8ba80031d539fae5f71"


def test_the_split_is_stratified_disjoint_and_whole() -> None:
    held_out, seen = digits.held_out_digits(), digits.training_digits()
    assert np.bincount(held_out.labels).tolist() == [36] * 10
    assert len(seen.labels) == 1_437
    pictures = {image.tobytes() for image in held_out.images} | {image.tobytes() for image in seen.images}
    assert len(pictures) == 1_797


def test_the_split_does_not_depend_on_the_pictures() -> None:
    labels = np.tile(np.arange(10, dtype=np.uint8), 50)
    mask = digits.held_out_mask(labels)
    assert mask.sum() == 360 and np.array_equal(mask, digits.held_out_mask(labels))


def test_input_is_the_digit_three_times_as_large_in_the_middle_of_paper() -> None:
    paper, ink = np.zeros((8, 8), np.uint8), np.full((8, 8), 16, np.uint8)
    blank, full = digits.to_input(np.stack([paper, ink]))
    assert blank.shape == (1, 32, 32) and blank.dtype == np.float32
    assert np.all(blank == np.float32(digits.BACKGROUND))
    assert np.allclose(full[0, 6:26, 6:26], digits.FOREGROUND, atol=1e-6)
    assert np.all(full[0, :3] == np.float32(digits.BACKGROUND))
    assert np.allclose(full, full[:, ::-1, ::-1], atol=1e-6)


def test_the_committed_file_holds_the_held_out_digits_and_all_it_takes_to_read_them() -> None:
    held_out = digits.held_out_digits()
    with np.load(COMMITTED, allow_pickle=False) as file:
        assert sorted(file.files) == ["images", "labels", "offset", "scale", "upscale"]
        images, labels, upscale = file["images"], file["labels"], file["upscale"]
        inputs = (upscale @ images.astype(np.float32) @ upscale.T * file["scale"] + file["offset"]).reshape(
            -1, 1, 32, 32
        )
    assert COMMITTED.stat().st_size < 60_000
    assert np.array_equal(images, held_out.images) and np.array_equal(labels, held_out.labels)
    assert inputs.dtype == np.float32 and np.array_equal(inputs, digits.to_input(held_out.images))


def test_writing_the_file_again_changes_nothing(tmp_path: Path) -> None:
    digits.write_held_out(tmp_path / "again.npz")
    assert [entry.name for entry in tmp_path.iterdir()] == ["again.npz"]
    with np.load(tmp_path / "again.npz") as again, np.load(COMMITTED) as committed:
        assert all(np.array_equal(again[field], committed[field]) for field in committed.files)


def test_the_small_digits_are_the_large_ones_between_paper_0_and_ink_1() -> None:
    small, large = DATA_SETS["digits16"].load(), DATA_SETS["digits"].load()
    assert small.images.shape == (1437, 1, 16, 16) and small.held_out_images.shape == (360, 1, 16, 16)
    assert torch.equal(small.labels, large.labels) and torch.equal(small.held_out_labels, large.held_out_labels)
    assert small.images.min() == 0 and small.images.max() <= 1 and not small.images[:, :, :1].any()
    inked = (large.images[:, 0, 12:14, 14:16].mean(dim=(1, 2)) + 0.1) / 1.275
    torch.testing.assert_close(small.images[:, 0, 6, 7], inked, rtol=0, atol=1e-6)
