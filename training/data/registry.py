"""The data sets by name: how to get each, and what its users must know."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from training import digits
from training.data import cifar, folder, idx, letters
from training.data.folder import short_side_of
from training.data.sets import CIFAR10, IMAGENET, INK, Data, Normalisation
from training.data.streams import Streamed
from training.files import TrainingError


@dataclass(frozen=True, slots=True)
class DataSet:
    """One row. What is not built in is read from a folder that the user names."""

    name: str
    read: Callable[[], Data] | None
    """How to make what is built in."""
    read_folder: Callable[[Path], Data | Streamed] | None
    files: str
    """What the folder must hold; empty: built in."""
    labels: tuple[str, ...]
    """The classes' names; empty: the folder's, see `Data.names`."""
    background: float
    """The value of an empty pixel: what an augmentation moves in from outside."""
    normalisation: Normalisation | None
    """From bytes; None: the preprocessing is a text only."""
    task: str
    source: str
    licence: str
    split: str
    preprocessing: str
    pictures: Mapping[str, str]
    """The server's `image.*` parameters that make an input of a picture file."""

    def open(self, data_dir: Path | None = None) -> Data | Streamed:
        """What training reads: in memory, or batch by batch."""
        if self.read is not None:
            if data_dir is not None:
                raise TrainingError(f"The data set {self.name} is built in. Leave out --data-dir {data_dir}.")
            return self.read()
        assert self.read_folder is not None
        if data_dir is None:
            raise TrainingError(f"The data set {self.name} is read from a folder: --data-dir DIR, with {self.files}.")
        if not data_dir.is_dir():
            raise TrainingError(f"--data-dir {data_dir} is not a folder. It must hold {self.files}.")
        return self.read_folder(data_dir)

    def load(self, data_dir: Path | None = None) -> Data:
        """Both sides in memory, pictures from files as evaluation sees them."""
        data = self.open(data_dir)
        return data.in_memory() if isinstance(data, Streamed) else data


def load_digits() -> Data:
    """Scikit-learn's digits: 1,437 to learn from, 360 held out, (N, 1, 32, 32)."""
    seen, unseen = digits.training_digits(), digits.held_out_digits()
    return Data(
        torch.from_numpy(digits.to_input(seen.images)),
        torch.from_numpy(seen.labels.astype(np.int64)),
        torch.from_numpy(digits.to_input(unseen.images)),
        torch.from_numpy(unseen.labels.astype(np.int64)),
        digits.LABELS,
    )


def _dark_on_light(side: int) -> dict[str, str]:
    """One dark sign on light paper: 255 becomes -0.1, and 0 becomes 1.175."""
    return {"image.resize": f"{side}x{side}", "image.scale": "-0.005", "image.mean": "-1.175"}


def _coloured(normalisation: Normalisation) -> dict[str, str]:
    mean, std = (",".join(map(str, numbers)) for numbers in (normalisation.mean, normalisation.std))
    return {"image.scale": "1/255", "image.mean": mean, "image.std": std}


def load_digits16() -> Data:
    """The same digits as 2×2 means, paper 0 and ink 1: (N, 1, 16, 16)."""
    data = load_digits()
    seen, unseen = (
        functional.avg_pool2d((images - digits.BACKGROUND) / (digits.FOREGROUND - digits.BACKGROUND), 2)
        for images in (data.images, data.held_out_images)
    )
    return dataclasses.replace(data, images=seen, held_out_images=unseen)


PAPER = digits.BACKGROUND

DIGITS = DataSet(
    "digits",
    read=load_digits,
    read_folder=None,
    files="",
    labels=digits.LABELS,
    background=PAPER,
    normalisation=None,
    task="One handwritten digit in the middle of the picture → which of 0 to 9 it is.",
    source="scikit-learn's `load_digits`: 1,797 real digits of 13 writers, the test part of UCI's *Optical "
    "Recognition of Handwritten Digits* (E. Alpaydin, C. Kaynak, 1998).",
    licence="CC BY 4.0 (UCI Machine Learning Repository, doi:10.24432/C50P49).",
    split="Fixed and stratified: 1,437 digits to learn from, 360 held out (36 of each class), by "
    "`training/digits.py`. A writer may be on both sides, so the figure speaks of new digits, not of new hands.",
    preprocessing="One channel, 32×32, float32: paper -0.1, ink 1.175, the digit 24 pixels high in the middle. "
    "From 8×8 counts of 0 to 16: `upscale @ image @ upscale.T * scale + offset`, with the arrays of "
    "`examples/digits_held_out.npz` (`upscale` enlarges to 24×24, bilinearly, inside 32×32).\n\n"
    "Or a PNG or JPEG file of any size, as one BYTES element a row: a dark digit on light paper, in the middle "
    "three quarters of the picture.",
    pictures=_dark_on_light(32),
)

DIGITS_16 = dataclasses.replace(
    DIGITS,
    name="digits16",
    read=load_digits16,
    background=0.0,
    preprocessing="One channel, 16×16, float32: paper 0, ink 1, the digit 12 pixels high in the middle. From 8×8 "
    "counts of 0 to 16: the 2×2 means of `upscale @ image @ upscale.T / 16`, with the array of "
    "`examples/digits_held_out.npz` (`upscale` enlarges to 24×24, bilinearly, inside 32×32).\n\n"
    "Or a PNG or JPEG file of any size, as one BYTES element a row: a dark digit on light paper, in the middle "
    "three quarters of the picture.",
    pictures={"image.resize": "16x16", "image.scale": "-1/255", "image.mean": "-1"},
)

LETTERS = DataSet(
    "letters",
    read=letters.load_letters,
    read_folder=None,
    files="",
    labels=letters.NAMES,
    background=PAPER,
    normalisation=INK,
    task="One printed capital letter → which of A to Z it is.",
    source="Rendered by `training/data/letters.py` from 22 fonts that matplotlib ships: DejaVu, STIX and Computer "
    "Modern; randomly turned, scaled, sheared and moved, blurred and noisy.",
    licence="The pictures are free. The fonts have licences of their own (Bitstream Vera and DejaVu, STIX, BaKoMa).",
    split="By family of fonts: DejaVu Sans Mono, STIX General and Computer Modern Sans are held out in all their "
    "weights and slants (9 fonts, 4,680 pictures); 13 fonts, 13,520 pictures to learn from. The figure speaks of new "
    "fonts.",
    preprocessing="One channel, 28×28, float32: paper -0.1, ink 1.175, capitals about 18 pixels high. From bytes, "
    "paper 0 and ink 255: `byte / 255 * 1.275 - 0.1`.",
    pictures=_dark_on_light(28),
)

MNIST = DataSet(
    "mnist",
    read=None,
    read_folder=idx.read_mnist,
    files=idx.MNIST_FILES,
    labels=idx.DIGITS,
    background=PAPER,
    normalisation=INK,
    task="One handwritten digit in the middle of the picture → which of 0 to 9 it is.",
    source="MNIST (Y. LeCun, C. Cortes, C. Burges), from the IDX files of a local folder.",
    licence="CC BY-SA 3.0, as its mirrors say.",
    split="The published one: `train` and `t10k`. The writers of the two differ.",
    preprocessing="One channel, 28×28, float32: paper -0.1, ink 1.175. From bytes, paper 0 and ink 255: "
    "`byte / 255 * 1.275 - 0.1`.",
    pictures=_dark_on_light(28),
)

EMNIST_LETTERS = dataclasses.replace(
    MNIST,
    name="emnist_letters",
    read_folder=idx.read_emnist_letters,
    files=idx.EMNIST_FILES,
    labels=idx.LETTERS,
    task="One handwritten letter, capital or small → which of A to Z it is.",
    source="EMNIST Letters (G. Cohen, S. Afshar, J. Tapson, A. van Schaik, 2017), from NIST's Special Database 19; "
    "from the IDX files of a local folder, transposed so that letters stand upright.",
    licence="NIST Special Database 19: a work of the government of the United States.",
    split="The published one: `train` and `test`.",
)

CIFAR_10 = DataSet(
    "cifar10",
    read=None,
    read_folder=cifar.read_cifar10,
    files=cifar.FILES,
    labels=cifar.NAMES,
    background=0.0,
    normalisation=CIFAR10,
    task="A small photograph → one of ten kinds of animals and vehicles.",
    source="CIFAR-10 (A. Krizhevsky, 2009), from the published files in a local folder.",
    licence="None is stated by its authors; they ask to be cited.",
    split="The published one: five batches to learn from, one held out.",
    preprocessing="RGB, 32×32, float32: `(byte / 255 - mean) / std` with mean 0.4914, 0.4822, 0.4465 and "
    "std 0.2470, 0.2435, 0.2616.",
    pictures={"image.resize": "32x32", **_coloured(CIFAR10)},
)


def _folder(side: int) -> DataSet:
    """Pictures in a folder for each class, at one size. Small ones are kept in memory."""

    def read(data_dir: Path) -> Data | Streamed:
        streamed = Streamed(data_dir, side, IMAGENET)
        return streamed.in_memory() if side == 32 else streamed

    return DataSet(
        f"folder{side}",
        read=None,
        read_folder=read,
        files=folder.FILES,
        labels=(),
        background=0.0,
        normalisation=IMAGENET,
        task="A photograph → the folder that it would lie in.",
        source="Pictures in a local folder, a sub-folder for each class.",
        licence="The pictures' own.",
        split="`train` and `val` as found; without the two, a fifth of each class is held out, by hashed names.",
        preprocessing=f"RGB, {side}×{side}, float32: the short side scaled to {short_side_of(side)}, the square in "
        "the middle, `(byte / 255 - mean) / std` with mean 0.485, 0.456, 0.406 and std 0.229, 0.224, 0.225.",
        pictures={
            "image.resize": str(short_side_of(side)),
            "image.center_crop": str(side),
            **_coloured(IMAGENET),
        },
    )


def _wide(row: DataSet) -> DataSet:
    """The same pictures with two pixels of paper all around: 32×32, as LeNet-5 reads them."""
    read, read_folder = row.read, row.read_folder

    def padded_folder(data_dir: Path) -> Data:
        assert read_folder is not None
        data = read_folder(data_dir)
        assert isinstance(data, Data)
        return data.padded(2, row.background)

    return dataclasses.replace(
        row,
        name=f"{row.name}32",
        read=(lambda: read().padded(2, row.background)) if read else None,
        read_folder=padded_folder if read_folder else None,
        pictures={**row.pictures, "image.resize": "32x32"},
        preprocessing=f"{row.preprocessing} Then two pixels of paper all around: 32×32.",
    )


def _with_files(row: DataSet) -> DataSet:
    """The same row, whose users are told that the server takes picture files too."""
    if "PNG" in row.preprocessing:
        return row
    sign = ", dark on light paper" if row.pictures.get("image.scale", "").startswith("-") else ""
    files = f"Or a PNG or JPEG file of any size{sign}, as one BYTES element a row: the server then does all of this."
    return dataclasses.replace(row, preprocessing=f"{row.preprocessing}\n\n{files}")


DATA_SETS = {
    row.name: _with_files(row)
    for row in (
        DIGITS,
        DIGITS_16,
        LETTERS,
        _wide(LETTERS),
        MNIST,
        _wide(MNIST),
        EMNIST_LETTERS,
        _wide(EMNIST_LETTERS),
        CIFAR_10,
        _folder(32),
        _folder(224),
    )
}
