"""A data set too large for memory: batches decoded from files by worker processes, while the network learns.

Each picture's draws come from a seed of its own, made of the epoch's seed and the picture's index. The same epoch is
the same bits with any number of workers, and from any batch on.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.context import BaseContext
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from training.augmentations import Augmentation, RandomCrops
from training.data.folder import Pictures, evaluation_view, find_pictures, training_view
from training.data.sets import Data, Normalisation
from training.files import TrainingError

MEMORY_LIMIT = 4 * 10**9
"""Bytes of decoded pictures that a command may hold."""
MOST_WORKERS = 8
WORTH_A_WORKER = 500
DECODED_AT_ONCE = 64

Pick = tuple[int, int]
"""A picture's index, and the epoch's seed."""
View = tuple[Tensor, int]
"""A picture as the network reads it, and its label."""


@dataclass(frozen=True, slots=True)
class Views(Dataset[View | TrainingError]):
    """One side, picture by picture. An error is an answer, so that it leaves a worker as the sentence that it is."""

    pictures: Pictures
    side: int
    normalisation: Normalisation
    how: Augmentation | None
    """None: without chance."""
    background: float

    def __getitem__(self, pick: Pick) -> View | TrainingError:
        index, seed = pick
        path, label = self.pictures.paths[index], self.pictures.labels[index]
        try:
            if self.how is None:
                return evaluation_view(path, self.side, self.normalisation), label
            generator = torch.Generator().manual_seed(seed_of(seed, index))
            return training_view(path, self.side, self.how, self.normalisation, self.background, generator), label
        except TrainingError as error:
            return error


class Loader:
    """Batches of one side in any order. The workers start with the first batch, and stay for the next epochs."""

    def __init__(self, views: Views, workers: int, device: str) -> None:
        self._device = device
        self._picks: list[list[Pick]] = []
        self._loader: DataLoader[View | TrainingError] = DataLoader(
            views,
            batch_sampler=_Picks(self._picks),
            num_workers=workers,
            persistent_workers=workers > 0,
            multiprocessing_context=_processes() if workers else None,
            pin_memory=device == "cuda",
            collate_fn=_together,
            # Its own, so that an epoch leaves the global one as it was. Nothing is drawn from it that matters.
            generator=torch.Generator(),
        )

    def batches(self, order: Tensor, batch_size: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Images (N, 3, side, side) and labels (N,) of the pictures with these indices, on the loader's device."""
        self._picks[:] = [[(int(index), seed) for index in chosen] for chosen in torch.split(order, batch_size)]
        for batch in self._loader:
            if isinstance(batch, TrainingError):
                raise batch
            images, labels = batch
            yield images.to(self._device, non_blocking=True), labels.to(self._device, non_blocking=True)


class Streamed:
    """Both sides of a data set as files, with the verbs of `Data` that training needs."""

    def __init__(
        self,
        folder: Path,
        side: int,
        normalisation: Normalisation,
        *,
        device: str = "cpu",
        workers: int | None = None,
    ) -> None:
        self._seen, self._held_out, self.names = find_pictures(folder)
        self._folder, self._side, self._normalisation = folder, side, normalisation
        self._device = device
        self._workers = default_workers(len(self._seen.labels)) if workers is None else workers
        self._loaders: dict[tuple[bool, Augmentation | None, float], Loader] = {}
        self.labels = torch.tensor(self._seen.labels)
        """Of the training side, (N,) int64."""
        self.held_out_labels = torch.tensor(self._held_out.labels)
        """(N,) int64."""

    def to(self, device: str) -> Streamed:
        """The same data, whose batches come to that device; from pinned memory, if it is a GPU."""
        return Streamed(self._folder, self._side, self._normalisation, device=device, workers=self._workers)

    def batches(
        self, order: Tensor, batch_size: int, how: Augmentation, background: float
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Augmented images and labels of the training side, in that order. Draws once from the global generator."""
        if isinstance(how, RandomCrops) and how.side != self._side:
            raise TrainingError(f"The recipe crops {how.side} pixels, and its data set is {self._side} wide.")
        seed = int(torch.randint(2**62, ()))
        return self._loader(how, background, held_out=False).batches(order, batch_size, seed)

    def plain_batches(self, order: Tensor, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Images and labels of the training side without chance, in that order."""
        return self._loader(None, 0.0, held_out=False).batches(order, batch_size, 0)

    def held_out_batches(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The held-out side without chance, from first to last."""
        return self._every(batch_size, held_out=True)

    def in_memory(self) -> Data:
        """Both sides decoded, without chance. Refused beyond `MEMORY_LIMIT`."""
        count = len(self.labels) + len(self.held_out_labels)
        size = count * 3 * self._side * self._side * 4
        if size > MEMORY_LIMIT:
            raise TrainingError(
                f"{self._folder}: {count:,} pictures of {self._side}×{self._side} take {size / 1e9:.1f} GB, and "
                f"{MEMORY_LIMIT / 1e9:.0f} GB are allowed in memory. Use fewer pictures, or a smaller data set."
            )
        seen, held_out = (
            torch.cat([images for images, _ in self._every(DECODED_AT_ONCE, held_out=side)]) for side in (False, True)
        )
        return Data(seen, self.labels, held_out, self.held_out_labels, self.names)

    def _every(self, batch_size: int, *, held_out: bool) -> Iterator[tuple[Tensor, Tensor]]:
        count = len(self.held_out_labels if held_out else self.labels)
        return self._loader(None, 0.0, held_out=held_out).batches(torch.arange(count), batch_size, 0)

    def _loader(self, how: Augmentation | None, background: float, *, held_out: bool) -> Loader:
        key = held_out, how, background
        if key not in self._loaders:
            pictures = self._held_out if held_out else self._seen
            views = Views(pictures, self._side, self._normalisation, how, background)
            self._loaders[key] = Loader(views, self._workers, self._device)
        return self._loaders[key]


def seed_of(seed: int, index: int) -> int:
    """A seed for one picture at one sight: far from its neighbours', whatever the two numbers."""
    return int(np.random.SeedSequence([seed, index]).generate_state(1, np.uint64)[0] >> np.uint64(1))


def default_workers(pictures: int) -> int:
    """A core stays with the network. For few pictures none: processes take longer to start than these to decode."""
    return 0 if pictures < WORTH_A_WORKER else min(MOST_WORKERS, (os.cpu_count() or 1) - 1)


def _processes() -> BaseContext:
    """A fork of this process would copy the locks of torch's threads: fork a clean one, which imports torch once."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


class _Picks:
    """The batches that the next epoch asks for: a sampler whose list its loader replaces."""

    def __init__(self, picks: list[list[Pick]]) -> None:
        self._picks = picks

    def __iter__(self) -> Iterator[list[Pick]]:
        return iter(self._picks)

    def __len__(self) -> int:
        return len(self._picks)


def _together(views: list[View | TrainingError]) -> tuple[Tensor, Tensor] | TrainingError:
    images, labels = [], []
    for view in views:
        if isinstance(view, TrainingError):
            return view
        images.append(view[0])
        labels.append(view[1])
    return torch.stack(images), torch.tensor(labels)
