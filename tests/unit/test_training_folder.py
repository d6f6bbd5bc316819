"""Pictures in folders: which are found, how they are seen, and batches that workers read the same way every time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from training.augmentations import ALEXNET, CIFAR, RESNET, Affine, Augmentation, RandomCrops
from training.data import DATA_SETS, Data, Streamed
from training.data import streams as streams_module
from training.data.folder import central_view, decode, find_pictures, to_pixels
from training.data.sets import IMAGENET
from training.data.streams import Views, seed_of
from training.files import TrainingError

SMALL_CROPS = RandomCrops(side=32, short_side_from=36, short_side_to=64, central_square=False, colour=0.1)


def picture(path: Path, seed: int, width: int = 48, height: int = 40) -> None:
    """A smooth random picture, so that JPEG keeps it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
    Image.fromarray(coarse).resize((width, height)).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes of five pictures to learn from and two held out, in both formats."""
    for side, count in (("train", 5), ("val", 2)):
        for label, name in enumerate(("boat", "plane")):
            for number in range(count):
                suffix = ".png" if number % 2 else ".JPEG"
                picture(tmp_path / "pets" / side / name / f"{number}{suffix}", 100 * len(side) + 10 * label + number)
    return tmp_path / "pets"


def test_sides_and_classes_are_the_folders(folder: Path) -> None:
    (folder / "train" / "boat" / ".DS_Store").write_bytes(b"hidden files are nobody's pictures")
    seen, held_out, names = find_pictures(folder)
    assert names == ("boat", "plane")
    assert seen.labels == (0,) * 5 + (1,) * 5 and held_out.labels == (0, 0, 1, 1)
    assert all(
        path.parts[-3:-1] == ("train", names[label]) for path, label in zip(seen.paths, seen.labels, strict=True)
    )
    assert all(path.parts[-3] == "val" for path in held_out.paths)


def test_without_train_and_val_a_fifth_of_each_class_is_held_out_by_its_name(tmp_path: Path) -> None:
    for where in ("here", "there"):
        for name, count in (("boat", 12), ("plane", 3)):
            for number in range(count):
                picture(tmp_path / where / name / f"{number}.png", number)
    seen, held_out, _ = find_pictures(tmp_path / "here")
    assert (held_out.labels.count(0), held_out.labels.count(1)) == (2, 1)
    assert len(seen.labels) == 12 and not set(seen.paths) & set(held_out.paths)
    elsewhere = find_pictures(tmp_path / "there")[1]
    assert [path.name for path in elsewhere.paths] == [path.name for path in held_out.paths]


def remove(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()


def test_what_is_missing_is_named(folder: Path) -> None:
    for path in (folder / "val" / "boat").iterdir():
        path.unlink()
    with pytest.raises(TrainingError, match=r"val/boat is empty: at least one PNG or JPEG"):
        find_pictures(folder)
    remove(folder / "val" / "boat")
    picture(folder / "val" / "ship" / "1.png", 0)
    with pytest.raises(TrainingError, match=r"val/boat is missing: train/ and val/ must have the same classes"):
        find_pictures(folder)
    remove(folder / "val" / "ship")
    with pytest.raises(TrainingError, match=r"val: plane; at least 2 classes are needed"):
        find_pictures(folder)
    remove(folder / "val" / "plane")
    (folder / "val").rmdir()
    with pytest.raises(TrainingError, match=r"val is missing beside .*train"):
        find_pictures(folder)


def test_a_class_that_only_val_has_is_named(folder: Path) -> None:
    picture(folder / "val" / "ship" / "1.png", 0)
    with pytest.raises(TrainingError, match=r"train/ship is missing"):
        find_pictures(folder)


def test_a_class_of_one_picture_cannot_be_split(tmp_path: Path) -> None:
    for name, count in (("boat", 2), ("plane", 1)):
        for number in range(count):
            picture(tmp_path / name / f"{number}.png", number)
    with pytest.raises(TrainingError, match=r"plane holds one picture: at least 2 are needed"):
        find_pictures(tmp_path)


def test_other_files_among_the_pictures_are_named_not_skipped(folder: Path) -> None:
    (folder / "train" / "boat" / "more.webp").write_bytes(b"RIFF")
    with pytest.raises(TrainingError, match=r"more\.webp is not a PNG or JPEG file"):
        find_pictures(folder)


@pytest.mark.parametrize("kept", [0, 20, 400])
@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_a_truncated_picture_is_named(tmp_path: Path, suffix: str, kept: int) -> None:
    path = tmp_path / f"cut{suffix}"
    picture(path, 0)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(TrainingError, match=rf"cut\{suffix} cannot be read as PNG or JPEG"):
        decode(path)


def test_a_picture_of_16_bits_is_refused_and_a_grey_one_becomes_rgb(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 4), 40_000, np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(TrainingError, match=r"deep\.png: more than 8 bits a channel"):
        decode(tmp_path / "deep.png")
    Image.fromarray(np.full((4, 4), 7, np.uint8)).save(tmp_path / "grey.png")
    assert torch.equal(to_pixels(decode(tmp_path / "grey.png")), torch.full((3, 4, 4), 7, dtype=torch.uint8))


def test_a_photograph_taken_sideways_stands_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter, clockwise
    Image.new("RGB", (8, 4)).save(tmp_path / "sideways.jpg", exif=exif)
    assert decode(tmp_path / "sideways.jpg").size == (4, 8)


def test_evaluation_sees_the_middle_of_the_scaled_picture() -> None:
    pixels = np.zeros((256, 512, 3), np.uint8)
    pixels[16:240, 144:368] = 255
    assert to_pixels(central_view(Image.fromarray(pixels), 224)).min() == 255


@pytest.mark.parametrize("how", [ALEXNET, RESNET, Affine(10, 0.1, 2, 0.1), CIFAR], ids=str)
def test_every_way_of_training_sees_the_side_that_the_network_reads(folder: Path, how: Augmentation) -> None:
    seen, _, _ = find_pictures(folder)
    views = Views(seen, 224, IMAGENET, how, 0.0)
    view, again, other = views[0, 1], views[0, 1], views[0, 2]
    assert isinstance(view, tuple) and isinstance(again, tuple) and isinstance(other, tuple)
    assert view[0].shape == (3, 224, 224) and view[0].dtype == torch.float32 and view[1] == 0
    assert torch.equal(view[0], again[0]) and not torch.equal(view[0], other[0])


def batches_of(stream: Streamed, seed: int, start: int = 0, how: Augmentation = SMALL_CROPS) -> list[torch.Tensor]:
    torch.manual_seed(seed)
    order = torch.randperm(len(stream.labels))[start:]
    return [images for images, _ in stream.batches(order, 3, how, 0.0)]


def test_the_same_seed_is_the_same_epoch_and_another_is_another(folder: Path) -> None:
    stream = Streamed(folder, 32, IMAGENET, workers=0)
    first, again, other = batches_of(stream, 1), batches_of(stream, 1), batches_of(stream, 2)
    assert [len(batch) for batch in first] == [3, 3, 3, 1]
    assert all(torch.equal(one, two) for one, two in zip(first, again, strict=True))
    assert not torch.equal(torch.cat(first), torch.cat(other))


def test_an_epoch_can_be_taken_up_at_any_batch(folder: Path) -> None:
    stream = Streamed(folder, 32, IMAGENET, workers=0)
    whole, rest = batches_of(stream, 1), batches_of(stream, 1, start=6)
    assert all(torch.equal(one, two) for one, two in zip(whole[2:], rest, strict=True))


def test_labels_follow_the_order(folder: Path) -> None:
    stream = Streamed(folder, 32, IMAGENET, workers=0)
    labels = [labels for _, labels in stream.batches(torch.tensor([9, 0, 4, 5]), 3, SMALL_CROPS, 0.0)]
    assert torch.cat(labels).tolist() == [1, 0, 0, 1]


def test_an_epoch_draws_once_from_the_global_generator(folder: Path) -> None:
    stream = Streamed(folder, 32, IMAGENET, workers=0)
    torch.manual_seed(3)
    torch.randint(2**62, ())
    expected = torch.get_rng_state()
    torch.manual_seed(3)
    list(stream.batches(torch.arange(10), 4, SMALL_CROPS, 0.0))
    list(stream.held_out_batches(4))
    assert torch.equal(torch.get_rng_state(), expected)


def test_seeds_of_neighbours_do_not_meet() -> None:
    seeds = {seed_of(seed, index) for seed in range(50) for index in range(50)}
    assert len(seeds) == 2_500 and all(0 <= seed < 2**63 for seed in seeds)


def test_crops_of_another_side_than_the_data_set_are_refused(folder: Path) -> None:
    with pytest.raises(TrainingError, match="The recipe crops 224 pixels, and its data set is 32 wide"):
        batches_of(Streamed(folder, 32, IMAGENET, workers=0), 0, how=ALEXNET)


def test_small_pictures_are_kept_in_memory_as_evaluation_sees_them(folder: Path) -> None:
    row = DATA_SETS["folder32"]
    data = row.open(folder)
    assert isinstance(data, Data) and data.images.shape == (10, 3, 32, 32) and data.names == ("boat", "plane")
    stream = Streamed(folder, 32, IMAGENET, workers=0)
    held_out = torch.cat([images for images, _ in stream.held_out_batches(3)])
    assert torch.equal(data.held_out_images, held_out)


def test_large_pictures_are_streamed(folder: Path) -> None:
    data = DATA_SETS["folder224"].open(folder)
    assert isinstance(data, Streamed)
    assert [images.shape for images, _ in data.held_out_batches(3)] == [(3, 3, 224, 224), (1, 3, 224, 224)]
    assert data.held_out_labels.tolist() == [0, 0, 1, 1] and data.names == ("boat", "plane")


def test_more_than_fits_into_memory_is_refused_before_it_is_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams_module, "MEMORY_LIMIT", 10**5)
    with pytest.raises(TrainingError, match=r"14 pictures of 32×32 take 0\.0 GB"):
        Streamed(folder, 32, IMAGENET, workers=0).in_memory()


def test_workers_change_nothing_over_epochs_and_report_what_they_cannot_read(
    folder: Path,
) -> None:
    with_workers = Streamed(folder, 32, IMAGENET, workers=2)
    alone = Streamed(folder, 32, IMAGENET, workers=0)
    for seed in (1, 2):
        pairs = zip(batches_of(alone, seed), batches_of(with_workers, seed), strict=True)
        assert all(torch.equal(one, two) for one, two in pairs)
    path = folder / "train" / "plane" / "1.png"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(TrainingError, match=r"^.*plane/1\.png cannot be read as PNG or JPEG"):
        batches_of(with_workers, 1)


@pytest.mark.parametrize(
    ("name", "data_dir", "sentence"),
    [
        ("digits", Path("/somewhere"), "digits is built in. Leave out --data-dir /somewhere"),
        ("mnist", None, "mnist is read from a folder: --data-dir DIR, with train-images-idx3-ubyte"),
        ("cifar10", Path("/nowhere"), "--data-dir /nowhere is not a folder. It must hold cifar-10-python"),
    ],
)
def test_a_folder_that_is_missing_or_not_wanted_is_said(name: str, data_dir: Path | None, sentence: str) -> None:
    with pytest.raises(TrainingError, match=sentence):
        DATA_SETS[name].load(data_dir)


@pytest.mark.parametrize("name", ["cifar10", "folder32", "folder224"])
def test_what_the_server_is_told_about_pictures_is_what_training_does(name: str) -> None:
    row = DATA_SETS[name]
    assert row.normalisation is not None
    told = [np.array(row.pictures[f"image.{key}"].split(","), float) for key in ("mean", "std")]
    pixels = torch.randint(0, 256, (3, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    served = (pixels.numpy() / 255 - told[0][:, None, None]) / told[1][:, None, None]
    assert np.allclose(row.normalisation.bytes(pixels), served, atol=1e-6)
