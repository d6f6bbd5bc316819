"""The committed model, served: the held-out digits through a real connection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import onnxruntime
import pytest
from PIL import Image

from proto import grpc_service_pb2 as pb
from tests.pictures import encoded
from tests.real.clients import Client, answer_of, arrays, infer_request
from tests.real.conftest import MODEL_REPOSITORY, ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.real.conftest import RunningServer

Array = np.ndarray[Any, Any]


@pytest.fixture(scope="module")
def digits() -> tuple[Array, Array]:
    """Pictures as the model's card says they are made, and what they show."""
    with np.load(ROOT / "examples" / "digits_held_out.npz") as file:
        pixels = file["upscale"] @ file["images"].astype(np.float32) @ file["upscale"].T
        return (pixels * file["scale"] + file["offset"])[:, np.newaxis].astype(np.float32), file["labels"]


@pytest.fixture(scope="module")
def alone(digits: tuple[Array, Array]) -> Array:
    """ONNX Runtime's own answers, one picture at a time."""
    path = MODEL_REPOSITORY / "lenet5" / "1" / "model.onnx"
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, {"input": image[np.newaxis]})[0] for image in digits[0]])


@pytest.fixture
def client(shared_server: RunningServer) -> Iterator[Client]:
    with grpc.insecure_channel(shared_server.grpc_address) as channel:
        yield Client(channel)


def test_one_by_one_or_all_at_once_the_answers_are_those_of_onnx_runtime_alone(
    client: Client, digits: tuple[Array, Array], alone: Array
) -> None:
    images, _ = digits
    calls = [client.start_infer("lenet5", {"input": image[np.newaxis]}) for image in images]
    together = np.concatenate([answer_of(call)["probabilities"] for call in calls])
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-5)

    for image, expected in zip(images[:20], alone, strict=False):
        answer = client.infer("lenet5", {"input": image[np.newaxis]})["probabilities"]
        np.testing.assert_allclose(answer[0], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [1, 7, 64])
def test_a_request_of_many_pictures_has_the_same_answers(
    size: int, client: Client, digits: tuple[Array, Array], alone: Array
) -> None:
    answer = client.infer("lenet5", {"input": digits[0][:size]})["probabilities"]

    np.testing.assert_allclose(answer, alone[:size], rtol=0, atol=1e-5)


def test_at_least_98_of_100_held_out_digits_are_right_by_their_labels(
    client: Client, digits: tuple[Array, Array]
) -> None:
    images, labels = digits
    named: list[str] = []
    for start in range(0, len(images), 64):
        request = infer_request("lenet5", {"input": images[start : start + 64]})
        request.outputs.add(name="probabilities").parameters["classification"].int64_param = 1
        response: pb.ModelInferResponse = client.call("ModelInfer", request)
        named += [entry.decode().split(":")[2] for entry in arrays(response)["probabilities"].ravel()]

    assert np.mean(np.array(named) == labels.astype(str)) >= 0.98


def test_digits_in_files_are_read_as_well(client: Client, alone: Array) -> None:
    with np.load(ROOT / "examples" / "digits_held_out.npz") as file:
        ink = file["upscale"] @ file["images"].astype(np.float32) @ file["upscale"].T / 16
    pictures = [Image.fromarray(pixels) for pixels in np.rint(255 * (1 - ink)).astype(np.uint8)]
    files = np.array([encoded(picture) for picture in pictures], object)

    calls = [client.start_infer("lenet5", {"input": files[start : start + 64]}) for start in range(0, len(files), 64)]
    answers = np.concatenate([answer_of(call)["probabilities"] for call in calls])

    assert (answers.argmax(axis=1) == alone.argmax(axis=1)).all()
    np.testing.assert_allclose(answers, alone, rtol=0, atol=0.05)
