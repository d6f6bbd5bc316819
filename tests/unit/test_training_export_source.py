"""Pixels, sizes and what cannot be had: decisions of an export that need no graph."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from server.pictures.pixels import Normalization
from server.pictures.preprocessing import ImagePreprocessing
from server.tensors import FP32, UINT8
from tests.unit.test_config import configure
from tests.unit.test_training_folder import picture
from training import nets
from training.data import DATA_SETS, Streamed
from training.data.sets import IMAGENET, INK
from training.export.pixels import Pixels, Scaling, picture_size
from training.export.repository import config
from training.export.run import AT_ONCE, examples_of
from training.export.source import Inputs, Source, refuse_impossible
from training.export_options import ExportOptions
from training.files import TrainingError


def channels_of(data_set: str) -> int:
    return Scaling.channels(DATA_SETS[data_set].pictures) or 1


def source(network: str = "resnet20", data_set: str | None = "cifar10", **fields: Any) -> Source:
    row = nets.NETWORKS[network]
    with torch.device("meta"):
        made = nets.build(network)
    pictures = {} if data_set is None else DATA_SETS[data_set].pictures
    plain = Source("m", network, made, row.input_shape, row.classes, (), "", (), pictures=pictures)
    return dataclasses.replace(plain, **fields)


def served(data_set: str, options: ExportOptions) -> ImagePreprocessing:
    """How the server prepares pictures for a network of that data set, exported in that form."""
    channels, (height, width) = channels_of(data_set), picture_size(DATA_SETS[data_set].pictures)
    network = source(data_set=data_set, shape=(channels, height, width))
    inputs = Inputs.of(network, options)
    settings = config("m", inputs.interface(network, options), 1, inputs.pictures(network), labelled=False)
    preprocessing = configure(settings).preprocessing
    assert preprocessing is not None
    return preprocessing


@pytest.mark.parametrize("name", DATA_SETS)
def test_the_graph_makes_of_pixels_what_the_server_makes_of_them(name: str) -> None:
    tensors, pixels = served(name, ExportOptions()), served(name, ExportOptions(input="pixels"))
    assert (pixels.datatype, tensors.datatype) == (UINT8, FP32)
    assert (pixels.resize, pixels.height, pixels.width) == (tensors.resize, tensors.height, tensors.width)
    image = np.arange(256, dtype=np.uint8).repeat(channels_of(name)).reshape(16, 16, -1)
    expected = np.empty((1, channels_of(name), 16, 16), np.float32)
    Normalization(tensors).write(image.transpose(2, 0, 1), expected[0])
    ours = Pixels(Scaling.of(DATA_SETS[name].pictures, channels_of(name)))(torch.from_numpy(image)[None])
    np.testing.assert_allclose(ours.numpy(), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", DATA_SETS)
def test_bytes_are_what_the_data_set_reads_or_its_negative_and_survive_the_way_back(name: str) -> None:
    row, channels = DATA_SETS[name], channels_of(name)
    image = torch.arange(256, dtype=torch.uint8).repeat_interleave(channels).reshape(1, 16, 16, channels)
    scaling = Scaling.of(row.pictures, channels)
    made = Pixels(scaling)(image)
    assert torch.equal(scaling.to_bytes(made), image)
    if row.normalisation is not None:
        as_published = (255 - image if row.normalisation == INK else image).permute(0, 3, 1, 2)
        torch.testing.assert_close(made, row.normalisation.bytes(as_published), rtol=0, atol=1e-6)


def test_held_out_pictures_are_read_from_their_files_as_they_are_asked_for(tmp_path: Path) -> None:
    for side, count in (("train", 1), ("val", AT_ONCE + 2)):
        for name in ("boat", "plane"):
            for number in range(count if name == "boat" else 1):
                picture(tmp_path / side / name / f"{number}.png", number)
    (tmp_path / "val" / "plane" / "0.png").write_bytes(b"the last one")
    examples = examples_of(Streamed(tmp_path, 32, IMAGENET, workers=0))
    assert len(examples.images) == AT_ONCE
    batches = examples.held_out(AT_ONCE + 1)
    assert len(next(batches)[1]) == AT_ONCE + 1
    with pytest.raises(TrainingError, match=r"plane/0\.png cannot be read"):
        next(batches)


def test_what_cannot_be_a_byte_becomes_the_nearest() -> None:
    scaling = Scaling.of({"image.scale": "1/255", "image.mean": "0.5"}, 1)
    images = torch.tensor([-3.0, -0.5, 0.5, 4.0, 100.4 / 255 - 0.5]).reshape(5, 1, 1, 1)
    assert scaling.to_bytes(images).flatten().tolist() == [0, 0, 255, 255, 100]
    assert str(scaling) == "(pixel × 1/255 − 0.5) ÷ 1"


def test_inputs_of_any_size_declare_it_and_are_tried_at_other_shapes() -> None:
    row = source()
    form = ExportOptions(input="pixels", any_size=True)
    inputs = Inputs.of(row, form)
    assert inputs.interface(row, form).input.dims == (-1, -1, 3)
    assert inputs.other_shapes() == [(24, 40, 3), (17, 16, 3), (48, 33, 3)]
    assert Inputs.of(row, ExportOptions(any_size=True)).interface(row, ExportOptions(any_size=True)).input.dims == (
        3, -1, -1
    )  # fmt: skip


@pytest.mark.parametrize("name", [next(iter(paper.NETWORKS)) for paper in nets.PAPERS])
def test_any_size_is_for_the_networks_whose_answer_has_one_shape_at_any_size(name: str) -> None:
    row = nets.NETWORKS[name]
    depth, height, width = row.input_shape
    with torch.device("meta"):
        network = nets.build(name).eval()

    def answers(*size: int) -> bool:
        with torch.no_grad():
            try:
                return network(torch.zeros(1, depth, *size, device="meta")).shape == (1, row.classes)
            except RuntimeError:
                return False

    assert answers(height, width)
    assert nets.reads_any_size(network) == (answers(height * 2, width) and answers(height, width // 2))


@pytest.mark.parametrize(
    ("network", "data_set", "form", "sentence"),
    [
        ("vgg16", None, ExportOptions(any_size=True), "--any-size: vgg16 reads 224×224 only.*: resnet18, "),
        ("lstm_rows", None, ExportOptions(any_size=True), "--any-size: lstm_rows reads 32×32 only"),
        ("resnet20", None, ExportOptions(input="pixels"), "--input pixels: .* --pictures DATA_SET"),
        ("resnet20", "cifar10", ExportOptions(precision="int8"), "--int8 needs data .* none comes with --weights"),
        ("resnet20", "folder224", ExportOptions(), "resnet20 reads 3×32×32, and .* pictures are 3×224×224"),
        ("lenet5", "cifar10", ExportOptions(), "lenet5 reads 1×32×32, and the data set's pictures are 3×32×32"),
    ],
)
def test_what_cannot_be_made_is_refused_by_name(
    network: str, data_set: str | None, form: ExportOptions, sentence: str
) -> None:
    row = source(network, data_set)
    with pytest.raises(TrainingError, match=sentence):
        refuse_impossible(row, form)
