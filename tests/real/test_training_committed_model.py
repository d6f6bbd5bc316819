"""The models that `make serve` serves do what their cards say, asked over gRPC about what training did not see."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import matplotlib as mpl
import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from tests.real.clients import Client, http_status, read_url
from tests.real.conftest import MODEL_REPOSITORY, ROOT
from training.data import letters as printed
from training.export.card import read_card
from training.export.card_text import render

if TYPE_CHECKING:
    from tests.real.conftest import RunningServer

Examples = tuple[NDArray[np.float32], NDArray[Any]]
"""Inputs, and the label of each as labels.txt spells it."""

PROMISES = {"lenet5": 98.5, "lenet5_modern": 98.5, "dbn_digits": 97.0, "letters26": 97.0}
"""% of the held-out examples."""
PARAMETERS = {"lenet5": 60_000, "lenet5_modern": 61_706, "dbn_digits": 133_810, "letters26": 6_366}
AT_ONCE = 64


@pytest.fixture(scope="module")
def digits() -> Examples:
    with np.load(ROOT / "examples" / "digits_held_out.npz") as file:
        pixels = file["upscale"] @ file["images"].astype(np.float32) @ file["upscale"].T
        return (pixels * file["scale"] + file["offset"]).reshape(-1, 1, 32, 32), file["labels"].astype(str)


@pytest.fixture(scope="module")
def letters() -> Examples:
    """As the card says they are prepared: from bytes, `byte / 255 * 1.275 - 0.1`."""
    fonts = [font for font in printed.find_fonts(Path(mpl.get_data_path()) / "fonts" / "ttf") if font.held_out]
    images, labels = printed.render(fonts, printed.HELD_OUT_PER_GLYPH, printed.SEED + 1)
    return (images / 255 * 1.275 - 0.1).astype(np.float32), np.array([chr(ord("A") + label) for label in labels])


@pytest.mark.parametrize("name", PROMISES)
def test_the_card_tells_the_truth_and_it_is_good_enough(
    name: str, request: pytest.FixtureRequest, shared_server: RunningServer
) -> None:
    inputs, truth = request.getfixturevalue("letters" if name == "letters26" else "digits")
    with grpc.insecure_channel(shared_server.grpc_address) as channel:
        client = Client(channel)
        parts = [inputs[start : start + AT_ONCE] for start in range(0, len(inputs), AT_ONCE)]
        answers = np.concatenate([client.infer(name, {"input": part})["probabilities"] for part in parts])
    session = onnxruntime.InferenceSession(
        MODEL_REPOSITORY / name / "1" / "model.onnx", providers=["CPUExecutionProvider"]
    )
    alone = session.run(None, {"input": inputs[:AT_ONCE]})[0]
    np.testing.assert_allclose(answers[:AT_ONCE], alone, rtol=0, atol=1e-5)

    named = np.array((MODEL_REPOSITORY / name / "labels.txt").read_text().split())[answers.argmax(axis=1)]
    card = json.loads(read_url(f"{shared_server.http_url}/v2/models/{name}/card"))
    labels = card["labels"]
    confusion = np.zeros((len(labels), len(labels)), np.int64)
    np.add.at(confusion, tuple([labels.index(label) for label in side] for side in (truth, named)), 1)
    assert card["confusion"] == confusion.tolist()
    assert card["accuracy"] == {"right": int((named == truth).sum()), "of": len(truth)}
    assert 100 * card["accuracy"]["right"] / len(truth) >= PROMISES[name]
    assert card["parameters"] == PARAMETERS[name]


@pytest.mark.parametrize("name", PROMISES)
def test_the_readme_is_the_card_for_people(name: str) -> None:
    model = MODEL_REPOSITORY / name
    assert (model / "README.md").read_text() == render(read_card(model / "1"))


def test_the_lectures_layer_was_never_evaluated_and_has_no_card(shared_server: RunningServer) -> None:
    assert http_status(f"{shared_server.http_url}/v2/models/lecture_conv/card") == 404


def test_the_repository_holds_these_models_and_what_a_server_needs_of_each() -> None:
    def files(model: Path) -> list[str]:
        return sorted(str(path.relative_to(model)) for path in model.rglob("*") if path.is_file())

    needed = ["1/model.onnx", "README.md", "config.pbtxt"]
    trained = ["1/card.json", *needed, "labels.txt"]
    inside = ["1/layers.json", *needed, "labels.txt"]
    expected = dict.fromkeys(PROMISES, trained) | {"lecture_conv": needed}
    expected |= dict.fromkeys(("lenet5_layers", "letters26_layers"), inside)
    assert {model.name: files(model) for model in MODEL_REPOSITORY.iterdir()} == expected


def test_the_repository_is_small_enough_to_be_committed() -> None:
    assert sum(path.stat().st_size for path in MODEL_REPOSITORY.rglob("*") if path.is_file()) <= 2_000_000
