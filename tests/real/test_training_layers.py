"""The committed models that show their layers, asked by a client: they answer what the table beside them says."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest
import torch
from torch.nn import functional

from tests.real.clients import Client, read_url
from tests.real.conftest import MODEL_REPOSITORY, ROOT
from training.export.layers import write_layers

if TYPE_CHECKING:
    from tests.real.conftest import RunningServer

INSIDE = ("lenet5", "letters26")


def pictures(count: int, side: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    with np.load(ROOT / "examples" / "digits_held_out.npz") as file:
        pixels = file["upscale"] @ file["images"][:count].astype(np.float32) @ file["upscale"].T
        scaled = (pixels * file["scale"] + file["offset"]).reshape(-1, 1, 32, 32).astype(np.float32)
    margin = (32 - side) // 2
    return np.ascontiguousarray(scaled[:, :, margin : 32 - margin, margin : 32 - margin])


@pytest.mark.parametrize("name", INSIDE)
def test_every_layer_answers_in_the_shape_of_its_formula(name: str, shared_server: RunningServer) -> None:
    card = json.loads(read_url(f"{shared_server.http_url}/v2/models/{name}_layers/card"))
    table = card["layers"]
    x = pictures(1, table["layers"][0]["input_shape"][-1])
    with grpc.insecure_channel(shared_server.grpc_address) as channel:
        client = Client(channel)
        inside = client.infer(f"{name}_layers", {"input": x})
        whole = client.infer(name, {"input": x})["probabilities"]

    assert inside["probabilities"] == pytest.approx(whole, abs=1e-6)
    for layer in table["layers"]:
        assert list(inside[layer["output"]].shape) == [1, *layer["output_shape"]]
        for size, formula in zip(layer["output_shape"][1:], layer["formulas"], strict=bool(layer["formulas"])):
            assert formula.endswith(f" = {size}")
    assert list(inside["filters"].shape) == [1, *table["filters"]["shape"]]


@pytest.mark.parametrize("name", INSIDE)
def test_a_client_is_told_whose_layers_it_shows(name: str, shared_server: RunningServer) -> None:
    config = json.loads(read_url(f"{shared_server.http_url}/v2/models/{name}_layers/config"))

    assert config["parameters"]["layers_of"] == {"string_value": name}


@pytest.mark.parametrize("name", INSIDE)
def test_its_filters_make_its_first_maps_and_its_activation_makes_the_next(
    name: str, shared_server: RunningServer
) -> None:
    layers = json.loads((MODEL_REPOSITORY / f"{name}_layers" / "1" / "layers.json").read_text())["layers"]
    x = pictures(1, layers[0]["input_shape"][-1])
    with grpc.insecure_channel(shared_server.grpc_address) as channel:
        inside = Client(channel).infer(f"{name}_layers", {"input": x})

    made = functional.conv2d(torch.from_numpy(x), torch.from_numpy(inside["filters"][0].copy())).numpy()
    bias = (inside["convolution_1"] - made).mean(axis=(0, 2, 3), keepdims=True)
    assert np.abs(inside["convolution_1"] - made - bias).max() < 1e-4
    assert np.abs(1.7159 * np.tanh(inside["convolution_1"] * 2 / 3) - inside["activation_1"]).max() < 1e-4


@pytest.mark.parametrize("name", ["lenet5_modern", "dbn_digits", "lecture_conv"])
def test_any_network_of_the_repository_can_be_looked_into(name: str, tmp_path: Path) -> None:
    shutil.copytree(MODEL_REPOSITORY / name, tmp_path / name)

    first, second = (write_layers(tmp_path, name, layers_name=f"{name}{index}") for index in (1, 2))

    assert (first / "model.onnx").read_bytes() == (second / "model.onnx").read_bytes()
    table = json.loads((first / "layers.json").read_text())
    assert (table["filters"] is None) == (name == "dbn_digits")
    assert {"dense", "convolution"} & {layer["kind"] for layer in table["layers"]}
