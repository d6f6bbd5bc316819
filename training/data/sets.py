"""A data set in memory, and what all readers share: how bytes become an input, and which labels are in order."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from training.augmentations import Augmentation
from training.data.augment import augment
from training.files import TrainingError


@dataclass(frozen=True, slots=True)
class Normalisation:
    """Bytes → a network's input: (byte/255 - mean)/std, each channel by itself."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def scaled(self, image: Tensor) -> Tensor:
        """(..., C, H, W) on a scale of 0 to 1 → the network's."""
        return (image - torch.tensor(self.mean)[:, None, None]) / torch.tensor(self.std)[:, None, None]

    def bytes(self, pixels: Tensor) -> Tensor:
        """(..., C, H, W) uint8 → float32."""
        return self.scaled(pixels.float().div_(255))


# Byte 0, paper, becomes -0.1, and 255, ink, 1.175: what LeNet-5 reads (LeCun et al. 1998, section III.A).
INK = Normalisation(mean=(0.1 / 1.275,), std=(1 / 1.275,))
# Of the 50,000 training pictures.
CIFAR10 = Normalisation(mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616))
# What the published weights of AlexNet, VGG and ResNet expect.
IMAGENET = Normalisation(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


@dataclass(frozen=True, slots=True)
class Data:
    """Both sides of a data set in memory: images (N, C, H, W) float32 as the network reads them, labels (N,) int64."""

    images: Tensor
    labels: Tensor
    held_out_images: Tensor
    held_out_labels: Tensor
    names: tuple[str, ...]
    """Of the classes, in the order of the labels."""

    @property
    def channels(self) -> int:
        """1 is grey, 3 is RGB."""
        return int(self.images.shape[1])

    def to(self, device: str) -> Data:
        """The same data on that device."""
        tensors = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name != "names"}
        return Data(**{name: tensor.to(device) for name, tensor in tensors.items()}, names=self.names)

    def batches(
        self, order: Tensor, batch_size: int, how: Augmentation, background: float
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Augmented images and labels of the training side, in that order. Draws from the global generator."""
        for chosen in torch.split(order, batch_size):
            yield augment(self.images[chosen], how, background), self.labels[chosen]

    def plain_batches(self, order: Tensor, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Images and labels of the training side as they are, in that order."""
        for chosen in torch.split(order, batch_size):
            yield self.images[chosen], self.labels[chosen]

    def held_out_batches(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The held-out side as it is, from first to last."""
        yield from zip(
            torch.split(self.held_out_images, batch_size), torch.split(self.held_out_labels, batch_size), strict=True
        )

    def padded(self, pixels: int, background: float) -> Data:
        """Background all around each image: (N, C, H, W) → (N, C, H + 2·pixels, W + 2·pixels)."""
        seen, held_out = (
            functional.pad(images, [pixels] * 4, value=background) for images in (self.images, self.held_out_images)
        )
        return dataclasses.replace(self, images=seen, held_out_images=held_out)


def to_data(
    seen: tuple[NDArray[np.uint8], NDArray[np.uint8]],
    held_out: tuple[NDArray[np.uint8], NDArray[np.uint8]],
    names: Sequence[str],
    normalisation: Normalisation,
) -> Data:
    """Two pairs of images (N, C, H, W) and labels (N,), both bytes, as a network reads them."""
    (images, labels), (held_out_images, held_out_labels) = seen, held_out
    return Data(
        normalisation.bytes(torch.tensor(images)),
        torch.from_numpy(labels.astype(np.int64)),
        normalisation.bytes(torch.tensor(held_out_images)),
        torch.from_numpy(held_out_labels.astype(np.int64)),
        tuple(names),
    )


def refuse_wrong_labels(where: Path | str, labels: NDArray[np.uint8], names: Sequence[str], first: int = 0) -> None:
    """Raise unless the labels are `first` to `first + len(names) - 1`, each of them at least once."""
    last = first + len(names) - 1
    present = set(np.unique(labels).tolist())
    strange = sorted(present - set(range(first, last + 1)))
    if strange:
        raise TrainingError(f"{where}: label {strange[0]} was found; labels are {first} to {last}.")
    missing = [f"{label} ({names[label - first]})" for label in range(first, last + 1) if label not in present]
    if missing:
        raise TrainingError(
            f"{where}: no example of class {', '.join(missing)}; all {len(names)} classes are expected. "
            "Is it the whole file?"
        )
