"""A run and a network, exported in each form, served, and asked by tritonclient."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import tritonclient.grpc as triton
from PIL import Image

from tests import tiny_training
from tests.pictures import encoded
from tests.real.conftest import start
from training import nets, runs
from training.data import DATA_SETS
from training.export import ExportOptions, export_run
from training.export.card import Score, read_card
from training.export.card_text import render
from training.export.layers import write_layers
from training.export.pixels import Scaling
from training.export.publish import publish
from training.export.refresh import refresh_card
from training.export.source import Examples, Source
from training.files import TrainingError
from training.recipes import RECIPES
from training.runs import Plan
from training.train import train
from training.weights import export_weights, settle

Array = np.ndarray[Any, Any]

FORMS = {
    "plain": ExportOptions(),
    "pixels": ExportOptions(input="pixels", opset=18),
    "small": ExportOptions(input="pixels", output="logits", precision="int8", opset=23),
}
"""Of the run, by the model's name. `plain` has a second version in float16."""
RECIPE = dataclasses.replace(tiny_training.RECIPE, epochs=20)
RESNET = "resnet20"
SCALING = Scaling.of(tiny_training.DATA_SET.pictures, 1)


@pytest.fixture(scope="module")
def tiny() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch, tiny_training.torch_as_before():
        patch.setitem(DATA_SETS, "tiny", tiny_training.DATA_SET)
        yield


@pytest.fixture(scope="module")
def run(tiny: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    train(Plan(RECIPE, seed=0, epochs=RECIPE.epochs, device="cpu"), folder, resume=False)
    return folder


@pytest.fixture(scope="module")
def repository(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    for name, form in FORMS.items():
        export_run(run, root, name, None, options=form)
    export_run(run, root, "plain", None, options=ExportOptions(precision="float16"))
    any_size = ExportOptions(any_size=True)
    export_weights(
        RESNET, None, seed=0, labels=None, repository=root, name=None, version=None, pictures="cifar10",
        options=any_size,
    )  # fmt: skip
    return root


@pytest.fixture(scope="module")
def client(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[triton.InferenceServerClient]:
    all_versions = "version_policy { all { } }\n"
    with (repository / "plain" / "config.pbtxt").open("a") as config:
        config.write(all_versions)
    server = start(tmp_path_factory.mktemp("server"), model_repository=repository)
    try:
        with triton.InferenceServerClient(server.grpc_address) as client:
            yield client
    finally:
        assert server.terminate() == 0, server.log.read_text()


@pytest.fixture(scope="module")
def held_out() -> tuple[torch.Tensor, Array]:
    """Images as the network reads them, and their labels."""
    data = tiny_training.read()
    return data.held_out_images, data.held_out_labels.numpy()


def ask(
    client: triton.InferenceServerClient, model: str, name: str, data: Array, datatype: str, version: str = ""
) -> Array:
    """The model's only output."""
    tensor = triton.InferInput(name, list(data.shape), datatype)
    tensor.set_data_from_numpy(data)
    answer = client.infer(model, [tensor], version)
    (output,) = answer.get_response().outputs
    return np.asarray(answer.as_numpy(output.name))


def test_pixels_are_answered_as_the_server_answers_when_it_prepares_them(
    client: triton.InferenceServerClient, held_out: tuple[torch.Tensor, Array]
) -> None:
    pixels = SCALING.to_bytes(held_out[0]).numpy()
    in_the_graph = ask(client, "pixels", "pixels", pixels, "UINT8")
    np.testing.assert_allclose(in_the_graph, ask(client, "plain", "input", pixels, "UINT8", "1"), rtol=0, atol=1e-5)
    assert (in_the_graph.argmax(axis=1) == held_out[1]).mean() > 0.9


def test_a_picture_file_is_answered_alike_by_both(
    client: triton.InferenceServerClient, held_out: tuple[torch.Tensor, Array]
) -> None:
    pixels = SCALING.to_bytes(held_out[0][3:4]).numpy()
    large = Image.fromarray(pixels[0, :, :, 0]).resize((96, 80))
    file = np.array([encoded(large, "PNG")], dtype=np.object_)
    answers = [ask(client, "pixels", "pixels", file, "BYTES"), ask(client, "plain", "input", file, "BYTES", "1")]
    np.testing.assert_allclose(*answers, rtol=0, atol=1e-5)
    assert answers[0].argmax() == held_out[1][3]


def test_float16_stands_beside_float32_as_a_version_of_the_same_model(
    client: triton.InferenceServerClient, held_out: tuple[torch.Tensor, Array], repository: Path
) -> None:
    images = held_out[0].numpy()
    full, half = (ask(client, "plain", "input", images, "FP32", version) for version in ("1", "2"))
    assert 0 < np.abs(full - half).max() < 1e-2
    files = [(repository / "plain" / version / "model.onnx").stat().st_size for version in ("1", "2")]
    assert files[1] < 0.6 * files[0]


def test_int8_logits_are_as_right_as_the_card_says(
    client: triton.InferenceServerClient, held_out: tuple[torch.Tensor, Array], repository: Path
) -> None:
    (output,) = client.get_model_metadata("small").outputs
    assert (output.name, output.datatype, list(output.shape)) == ("logits", "FP32", [-1, 10])
    logits = ask(client, "small", "pixels", SCALING.to_bytes(held_out[0]).numpy(), "UINT8")
    assert logits.min() < 0 and not np.allclose(logits.sum(axis=1), 1)
    right = int((logits.argmax(axis=1) == held_out[1]).sum())
    card = (repository / "small" / "README.md").read_text()
    said = re.search(r"held-out accuracy \| [\d.]+% \((\d+) of 20\), .*; [\d.]+% \((\d+) of 20\) in float32", card)
    assert said is not None and int(said[1]) == right
    for words in ("calibration | on 64 pictures", "| int8, ms |", "| batch | 1 | 8 | 32 | 64 |", "--int8", "opset 23"):
        assert words in card


def test_a_versions_card_says_what_its_readme_says_and_keeps_the_truth_when_measured_again(
    run: Path, repository: Path, tmp_path: Path
) -> None:
    shutil.copytree(repository / "small", tmp_path / "small")
    exported = read_card(tmp_path / "small" / "1")
    readme = tmp_path / "small" / "README.md"
    assert render(exported) == readme.read_text()
    assert exported.confusion is not None and exported.accuracy is not None and exported.training is not None
    assert [sum(row) for row in exported.confusion] == [2] * 10
    assert sum(exported.confusion[c][c] for c in range(10)) == exported.accuracy.right
    assert (exported.training.seed, exported.training.epochs, exported.file.precision) == (0, RECIPE.epochs, "int8")

    (tmp_path / "small" / "1" / "card.json").write_bytes(
        dataclasses.replace(exported, accuracy=Score(0, 20), confusion=()).to_json()
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(RECIPES, "tiny", RECIPE)
        again = refresh_card(tmp_path, "small", None)
    assert again == dataclasses.replace(exported, latency=again.latency)
    assert [one.batch for one in again.latency.medians["int8"]] == [1, 8, 32, 64]
    assert readme.read_text() == render(read_card(tmp_path / "small" / "1")) == render(again)


def test_weights_from_elsewhere_have_a_card_and_nothing_to_be_measured_on(repository: Path) -> None:
    card = read_card(repository / RESNET / "1")
    assert (card.accuracy, card.confusion, card.training, card.data) == (None, None, None, None)
    assert card.weights.startswith("random, seed 0")
    with pytest.raises(TrainingError, match="weights are from elsewhere, and no data came with them"):
        refresh_card(repository, RESNET, 1)


def test_pictures_of_any_size_are_answered_as_torch_answers_them(client: triton.InferenceServerClient) -> None:
    (tensor,) = client.get_model_metadata(RESNET).inputs
    assert list(tensor.shape) == [-1, 3, -1, -1]
    torch.manual_seed(0)
    network = nets.build(RESNET)
    settle(network, nets.NETWORKS[RESNET].input_shape)
    network.eval()
    for height, width in ((32, 32), (56, 40), (17, 90)):
        images = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(height))
        with torch.no_grad():
            expected = network(images).softmax(dim=1).numpy()
        np.testing.assert_allclose(ask(client, RESNET, "input", images.numpy(), "FP32"), expected, rtol=0, atol=1e-5)
    picture = Image.fromarray(np.full((50, 60, 3), 200, np.uint8))
    assert ask(client, RESNET, "input", np.array([encoded(picture)], np.object_), "BYTES").shape == (1, 10)


@pytest.mark.parametrize("name", FORMS)
def test_the_operators_are_of_the_opset_that_was_asked_for(name: str, repository: Path) -> None:
    imported = {e.domain: e.version for e in onnx.load(repository / name / "1" / "model.onnx").opset_import}
    assert imported[""] == FORMS[name].opset


def test_a_version_of_another_form_is_refused_and_changes_nothing(run: Path, repository: Path) -> None:
    before = sorted(path for path in repository.rglob("*"))
    with pytest.raises(TrainingError, match=r"plain/config\.pbtxt has the input input TYPE_FP32 .* another --name"):
        export_run(run, repository, "plain", None, options=ExportOptions(input="pixels"))
    assert sorted(path for path in repository.rglob("*")) == before


def test_int8_that_loses_too_much_is_not_written(
    run: Path, held_out: tuple[torch.Tensor, Array], tmp_path: Path
) -> None:
    network = nets.build(RECIPE.network)
    network.load_state_dict(runs.load(run).network)
    labels = torch.from_numpy(held_out[1])
    # Pictures that are all paper tell nothing of the range that strokes have.
    badly_calibrated = Examples(
        held_out[0], lambda size: iter([(held_out[0], labels)]), lambda count: torch.zeros(count, 1, 32, 32)
    )
    source = Source(
        "m", RECIPE.network, network, (1, 32, 32), 10, tuple("0123456789"), "", (),
        examples=badly_calibrated,
    )  # fmt: skip
    with pytest.raises(TrainingError, match=r"m is not exported: .* right in int8, .* in float32\. 1\.00% less"):
        publish(source, tmp_path, None, ExportOptions(precision="int8"))
    assert list(tmp_path.iterdir()) == []


def test_the_layers_of_every_form_are_those_of_the_network(repository: Path, tmp_path: Path) -> None:
    def weighted(name: str, version: int) -> list[tuple[str, list[int], int]]:
        shutil.copytree(repository / name / str(version), tmp_path / name / str(version))
        shutil.copy(repository / name / "config.pbtxt", tmp_path / name)
        folder = write_layers(tmp_path, name, version)
        layers = json.loads((folder / "layers.json").read_text())["layers"]
        kinds = ("convolution", "dense")
        return [
            (layer["kind"], layer["output_shape"], layer["parameters"]) for layer in layers if layer["kind"] in kinds
        ]

    assert weighted("plain", 1) == weighted("plain", 2) == weighted("small", 1) != []
