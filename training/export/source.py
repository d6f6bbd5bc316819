"""What is exported: a network with its weights, whatever it comes from, and what its clients send to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from training import nets
from training.export.card import DataNote, Training
from training.export.pixels import NUMBERS, Scaling, picture_size
from training.export.repository import OPEN, Interface, Port
from training.export_options import ExportOptions
from training.files import TrainingError


@dataclass(frozen=True, slots=True)
class Examples:
    """Data that belongs to a network."""

    images: Tensor
    """Some of the held-out ones, (N, C, H, W) as the network reads them."""
    held_out: Callable[[int], Iterator[tuple[Tensor, Tensor]]]
    """All of the held-out side in batches of that size: images, and labels (N,). There may be too many for memory."""
    to_learn_from: Callable[[int], Tensor]
    """So many images of the training side at most, (N, C, H, W), the same ones each time."""


@dataclass(frozen=True, slots=True)
class Source:
    """A network with its weights, and what its card says of it."""

    name: str
    """Of the model."""
    network_name: str
    """A row of `training.nets`."""
    network: nn.Module
    shape: tuple[int, int, int]
    """(C, H, W)."""
    classes: int
    labels: tuple[str, ...]
    """The classes' names; empty if nobody knows them."""
    preparation: str
    """How a tensor is made for the network."""
    again: tuple[str, ...]
    """The commands that make it again; the last one exports, and lacks the form's flags."""
    training: Training | None = None
    """The run that made the weights."""
    weights: str = ""
    """Where they are from instead."""
    pictures: Mapping[str, str] = field(default_factory=dict)
    """The server's `image.*` parameters; empty: nobody knows how pictures become inputs."""
    threads: int | None = None
    """That it is worth; None: as many as there are."""
    task: str = ""
    data: DataNote | None = None
    examples: Examples | None = None
    """None: no data came with the weights."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """What the graph reads: tensors as the network reads them, or bytes that its first nodes make such tensors of."""

    scaling: Scaling | None
    """Of bytes; None: tensors."""
    shape: tuple[int, int, int]
    """Of one row."""
    real: Tensor | None
    """Some rows made of held-out data; None: without data."""

    @classmethod
    def of(cls, source: Source, options: ExportOptions) -> Inputs:
        """What the options ask for."""
        depth, height, width = source.shape
        scaling = Scaling.of(source.pictures, depth) if options.input == "pixels" else None
        inputs = cls(scaling, source.shape if scaling is None else (height, width, depth), None)
        if source.examples is None:
            return inputs
        return cls(inputs.scaling, inputs.shape, inputs.prepared(source.examples.images))

    @property
    def dtype(self) -> torch.dtype:
        """Of an input."""
        return torch.float32 if self.scaling is None else torch.uint8

    @property
    def example(self) -> Tensor:
        """Two rows."""
        if self.real is None:
            return torch.zeros(2, *self.shape, dtype=self.dtype)
        return self.real[torch.arange(2) % len(self.real)]

    @property
    def spatial_axes(self) -> tuple[int, int]:
        """Height and width, in a batch."""
        return (2, 3) if self.scaling is None else (1, 2)

    def prepared(self, images: Tensor) -> Tensor:
        """What a client sends of images (N, C, H, W) that the network could read."""
        return images if self.scaling is None else self.scaling.to_bytes(images)

    def held_out(self, examples: Examples, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """What a client sends of all held-out images, and their labels."""
        return ((self.prepared(images), labels) for images, labels in examples.held_out(batch_size))

    def pictures(self, source: Source) -> dict[str, str]:
        """The server's `image.*` parameters. What the graph does to pixels the server must not do as well."""
        return {key: text for key, text in source.pictures.items() if self.scaling is None or key not in NUMBERS}

    def other_shapes(self) -> list[tuple[int, ...]]:
        """Of rows, for a graph whose height and width are open: less high, wider; much smaller; much larger."""
        row, column = (axis - 1 for axis in self.spatial_axes)
        height, width = self.shape[row], self.shape[column]
        shapes = []
        for size in ((height * 3 // 4, width * 5 // 4), (height // 2 + 1, width // 2), (height * 3 // 2, width + 1)):
            shape = list(self.shape)
            shape[row], shape[column] = size
            shapes.append(tuple(shape))
        return shapes

    def interface(self, source: Source, options: ExportOptions) -> Interface:
        """As config.pbtxt declares it."""
        dims = list(self.shape)
        if options.any_size:
            for axis in self.spatial_axes:
                dims[axis - 1] = OPEN
        datatype, layout = ("TYPE_FP32", "FORMAT_NCHW") if self.scaling is None else ("TYPE_UINT8", "FORMAT_NHWC")
        return Interface(
            Port(options.input_name, datatype, tuple(dims), layout if source.pictures else "FORMAT_NONE"),
            Port(options.output_name, "TYPE_FP32", (source.classes,)),
        )


def refuse_impossible(source: Source, options: ExportOptions) -> None:
    """Raise TrainingError for what this source cannot be made into, before any work is done."""
    if source.pictures:
        size, channels = picture_size(source.pictures), Scaling.channels(source.pictures)
        if size != source.shape[1:] or channels not in (None, source.shape[0]):
            raise TrainingError(
                f"{source.network_name} reads {'×'.join(map(str, source.shape))}, and the data set's pictures are "
                f"{channels or source.shape[0]}×{size[0]}×{size[1]}. Choose another data set."
            )
    elif options.input == "pixels":
        raise TrainingError(
            "--input pixels: nobody said how pixels become this network's input. "
            "Name a data set that prepares them as for these weights: --pictures DATA_SET."
        )
    if options.precision == "int8" and source.examples is None:
        raise TrainingError(
            "--int8 needs data to calibrate and to measure on, and none comes with --weights or --random-weights. "
            "Export a run, or use --fp16."
        )
    if options.any_size:
        refuse_fixed_size(source.network_name, source.network)


def refuse_fixed_size(name: str, network: nn.Module) -> None:
    """Raise unless the network's answer keeps its shape whatever the size of the picture."""
    if nets.reads_any_size(network):
        return
    with torch.device("meta"):
        papers = [paper for paper in nets.PAPERS if nets.reads_any_size(paper.build(next(iter(paper.NETWORKS))))]
    those_that_do = [other for paper in papers for other in paper.NETWORKS]
    height, width = nets.find(name).input_shape[1:]
    raise TrainingError(
        f"--any-size: {name} reads {height}×{width} only, as its last layers expect so many places. Networks that take "
        f"the mean of each map read any size: {', '.join(those_that_do)}."
    )
