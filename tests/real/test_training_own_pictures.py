"""A folder of one's own pictures, trained on and served by the commands of docs/training.md."""

from __future__ import annotations

from pathlib import Path

import grpc
import numpy as np
import pytest
import torch

from tests.real.clients import Client, arrays, infer_request
from tests.real.conftest import start
from tests.tiny_training import torch_as_before
from tests.unit.test_training_folder import picture
from training import nets, runs
from training.__main__ import main
from training.data import DATA_SETS
from training.data.folder import find_pictures


def run(*arguments: object) -> None:
    with torch_as_before():
        assert main([*map(str, arguments)]) == 0


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of ten pictures; two of each are held out."""
    folder = tmp_path_factory.mktemp("pictures")
    for label, name in enumerate(("boat", "plane")):
        for number in range(10):
            picture(folder / name / f"{number}{'.png' if number % 2 else '.jpg'}", 10 * label + number)
    return folder


def test_a_served_model_tells_the_classes_of_picture_files_as_evaluation_does(pictures: Path, tmp_path: Path) -> None:
    run_dir, repository = tmp_path / "run", tmp_path / "models"
    run("train", "folder32", "--data-dir", pictures, "--epochs", 2, "--device", "cpu", "--run-dir", run_dir)
    run("evaluate", run_dir)
    run("export", run_dir, "--name", "boats", "--repository", repository)
    network = nets.build("resnet20", 2)
    network.load_state_dict(runs.load(run_dir).network)
    _, held_out, names = find_pictures(pictures)
    with torch.no_grad():
        scores = network.eval()(DATA_SETS["folder32"].load(pictures).held_out_images)
    files = np.array([path.read_bytes() for path in held_out.paths], object)
    server = start(tmp_path, model_repository=repository)
    try:
        with grpc.insecure_channel(server.grpc_address) as channel:
            client = Client(channel)
            answer = client.infer("boats", {"input": files})["probabilities"]
            request = infer_request("boats", {"input": files})
            request.outputs.add(name="probabilities").parameters["classification"].int64_param = 1
            named = arrays(client.call("ModelInfer", request))["probabilities"].ravel()
    finally:
        assert server.terminate() == 0
    # The server shrinks a JPEG a little differently than training does.
    np.testing.assert_allclose(answer, scores.softmax(dim=1).numpy(), atol=0.02)
    assert [entry.decode().split(":")[2] for entry in named] == [names[index] for index in answer.argmax(axis=1)]
