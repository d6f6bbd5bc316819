"""Pictures over a real connection: files and pixels of any size beside ready tensors, and files that are hostile."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil
import pytest
import tritonclient.grpc as triton
from PIL import Image
from tritonclient.utils import InferenceServerException

from proto import grpc_service_pb2 as pb
from server.pictures.preprocessing import Color
from tests import onnx_models
from tests.pictures import MEAN, ONE_STEP, STD, encoded, photo, png_bomb, png_header, preprocessing, reference
from tests.real.clients import Client, answer_of, arrays, infer_request, refusal_of, wait_for_pending
from tests.real.conftest import ENGINES, ROOT, RunningServer, connect, start
from tests.real.zoo import LONG_US
from tests.repositories import add_model

Array = np.ndarray[Any, Any]

WANTED = preprocessing()
GRAY = preprocessing(
    color=Color.GRAY, channels_first=False, resize=(24, 20), height=24, width=20, scale=1.0, mean=(0.0,), std=(1.0,)
)
MEMORY_MARGIN_BYTES = 64 << 20


def parameters(**values: str) -> str:
    return "".join(f' parameters {{ key: "image.{k}" value {{ string_value: "{v}" }} }}' for k, v in values.items())


def colour(batching: str) -> str:
    tensor = "data_type: TYPE_FP32 dims: [ 3, 28, 28 ]"
    more = {"mean": ",".join(map(str, MEAN)), "std": ",".join(map(str, STD)), "scale": "1/255"}
    return (
        f'max_batch_size: 8 input {{ name: "x" {tensor} format: FORMAT_NCHW }} output {{ name: "y" {tensor} }}'
        f" dynamic_batching {{ {batching} }}{parameters(resize='32', center_crop='28', **more)}"
    )


def write_models(root: Path) -> Path:
    """Models that answer what they were given."""
    rgb, gray = onnx_models.identity("FP32", ("N", 3, 28, 28)), onnx_models.identity("FP32", ("N", 24, 20, 1))
    add_model(root, "colour", rgb, colour(""))
    add_model(root, "held_corrupt", rgb, colour(f"max_queue_delay_microseconds: {LONG_US}"))
    tensor = "data_type: TYPE_FP32 dims: [ 24, 20, 1 ]"
    head = f'max_batch_size: 8 input {{ name: "x" {tensor} format: FORMAT_NHWC }} output {{ name: "y" {tensor} }}'
    add_model(root, "gray", gray, head + parameters(resize="24x20"))
    add_model(root, "other", onnx_models.affine())
    return root


@pytest.fixture(scope="module")
def server(engine: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    root = write_models(tmp_path_factory.mktemp("pictures"))
    server = start(tmp_path_factory.mktemp("server"), *ENGINES[engine], model_repository=root)
    yield server
    assert server.terminate() == 0, server.log.read_text()
    assert "Traceback" not in server.log.read_text(), server.log.read_text()


@pytest.fixture
def client(server: RunningServer) -> Iterator[Client]:
    with connect(server) as channel:
        yield Client(channel)


@pytest.fixture
def tritons(server: RunningServer) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(server.grpc_address) as client:
        yield client


@pytest.fixture(scope="module")
def large_file() -> bytes:
    """20 megapixels."""
    return encoded(photo(500, 400).resize((5000, 4000), Image.Resampling.NEAREST), "JPEG")


def files(*contents: bytes) -> Array:
    array = np.empty(len(contents), object)
    array[:] = contents
    return array


def ask(tritons: triton.InferenceServerClient, model: str, data: Array, datatype: str) -> Array:
    tensor = triton.InferInput("x", list(data.shape), datatype)
    tensor.set_data_from_numpy(data)
    return tritons.infer(model, [tensor]).as_numpy("y")


@pytest.mark.parametrize(("kind", "size"), [("JPEG", (500, 375)), ("PNG", (37, 90)), ("JPEG", (30, 31))])
def test_a_file_is_what_the_model_was_trained_on(
    kind: str, size: tuple[int, int], tritons: triton.InferenceServerClient
) -> None:
    file = encoded(photo(*size), kind)
    with Image.open(io.BytesIO(file)) as image:
        expected = reference(image, WANTED)

    np.testing.assert_allclose(ask(tritons, "colour", files(file), "BYTES")[0], expected, rtol=0, atol=ONE_STEP)


def test_pixels_of_any_size_are_taken(tritons: triton.InferenceServerClient) -> None:
    for size in ((61, 47), (28, 28), (5, 300)):
        image = photo(*size)
        got = ask(tritons, "colour", np.asarray(image)[np.newaxis], "UINT8")
        np.testing.assert_allclose(got[0], reference(image, WANTED), rtol=0, atol=ONE_STEP)


def test_one_request_may_hold_files_of_many_sizes(tritons: triton.InferenceServerClient) -> None:
    images = [photo(20 + 10 * n, 50, seed=n) for n in range(8)]

    got = ask(tritons, "colour", files(*(encoded(image) for image in images)).reshape(8, 1), "BYTES")

    for row, image in zip(got, images, strict=True):
        np.testing.assert_allclose(row, reference(image, WANTED), rtol=0, atol=ONE_STEP)


def test_a_grey_model_with_channels_last_is_given_grey(tritons: triton.InferenceServerClient) -> None:
    image = photo(61, 47)

    got = ask(tritons, "gray", files(encoded(image)), "BYTES")

    np.testing.assert_allclose(got[0], reference(image, GRAY), rtol=0, atol=1.01)


def test_typed_contents_may_be_files(client: Client) -> None:
    image = photo(61, 47)
    request = pb.ModelInferRequest(model_name="colour")
    tensor = request.inputs.add(name="x", datatype="BYTES", shape=[1])
    tensor.contents.bytes_contents.append(encoded(image))

    got = arrays(client.call("ModelInfer", request))["y"]

    np.testing.assert_allclose(got[0], reference(image, WANTED), rtol=0, atol=ONE_STEP)


def test_metadata_and_config_are_what_was_declared(client: Client) -> None:
    (tensor,) = client.call("ModelMetadata", pb.ModelMetadataRequest(name="colour")).inputs
    config = client.call("ModelConfig", pb.ModelConfigRequest(name="colour")).config

    assert (tensor.datatype, list(tensor.shape)) == ("FP32", [-1, 3, 28, 28])
    assert config.parameters["image.center_crop"].string_value == "28"


def test_files_pixels_and_ready_tensors_share_a_batch_and_a_corrupt_file_fails_alone(client: Client) -> None:
    images = [photo(40 + 9 * n, 50, seed=n) for n in range(8)]
    expected = [reference(image, WANTED) for image in images]
    sent: list[Array] = [
        *(files(encoded(image)) for image in images[:2]),
        *(files(encoded(image, "JPEG", quality=100, subsampling=0)) for image in images[2:4]),
        *(np.asarray(image)[np.newaxis] for image in images[4:6]),
        *(ready[np.newaxis] for ready in expected[6:]),
    ]
    truncated = encoded(images[0], "JPEG")[:-200]

    calls = [client.start_infer("held_corrupt", {"x": data}) for data in sent[:-1]]
    corrupt = client.start_infer("held_corrupt", {"x": files(truncated)}, id="bad")
    refusal = refusal_of(corrupt)  # while the others wait for the eighth
    assert not any(call.done() for call in calls)
    calls.append(client.start_infer("held_corrupt", {"x": sent[-1]}))

    for n, call in enumerate(calls):
        near = 8 * ONE_STEP if n in (2, 3) else ONE_STEP  # JPEG is not exact
        np.testing.assert_allclose(answer_of(call)["y"][0], expected[n], rtol=0, atol=near)
    assert client.batches("held_corrupt") == {8: 1}
    assert refusal.status is grpc.StatusCode.INVALID_ARGUMENT
    assert refusal.message.startswith(
        "[request id: bad] image 0 of input 'x' for model 'held_corrupt' cannot be decoded"
    )
    assert client.statistics("held_corrupt").inference_stats.fail.count == 1


def test_a_bomb_is_refused_with_its_reason_and_takes_no_memory(
    server: RunningServer, tritons: triton.InferenceServerClient
) -> None:
    ask(tritons, "colour", files(encoded(photo(60, 40))), "BYTES")
    process = psutil.Process(server.process.pid)
    before = process.memory_info().rss

    for bomb in (png_bomb(20_000), png_header(2**31 - 1, 2**31 - 1)):
        for _ in range(3):
            with pytest.raises(InferenceServerException) as caught:
                ask(tritons, "colour", files(bomb), "BYTES")
            assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"
            assert "this model takes 25000000 (image.max_pixels)" in caught.value.message()
    peak = int(Path(f"/proc/{process.pid}/status").read_text().split("VmHWM:")[1].split()[0]) << 10
    assert peak - before < MEMORY_MARGIN_BYTES


def test_others_are_answered_while_large_pictures_are_decoded(
    server: RunningServer, client: Client, large_file: bytes
) -> None:
    large = client.start_infer("colour", {"x": files(*[large_file] * 4)})
    wait_for_pending(server.metrics_url, "colour", 1)

    answered = 0
    while not large.done():
        assert client.infer("other", {"x": np.array([[answered]], np.int64)})["y"].item() == 3 * answered + 1
        answered += 1

    assert answered >= 10  # of some hundreds
    assert answer_of(large)["y"].shape == (4, 3, 28, 28)


def test_a_deadline_holds_while_pictures_are_decoded(server: RunningServer, client: Client, large_file: bytes) -> None:
    large = client.start_infer("colour", {"x": files(*[large_file] * 4)})
    wait_for_pending(server.metrics_url, "colour", 1)

    request = infer_request("colour", {"x": files(encoded(photo(60, 40)))})
    request.parameters["timeout"].int64_param = 1
    late = client.refusal("ModelInfer", request)

    assert (late.status, late.message) == (grpc.StatusCode.UNAVAILABLE, "Request timeout expired")
    assert not large.done()
    large.cancel()


def test_without_pillow_only_models_that_take_pictures_are_refused(tmp_path: Path) -> None:
    root = write_models(tmp_path / "models")
    program = "import sys; sys.modules['PIL'] = None; from server.__main__ import main; sys.exit(main())"
    server = start(tmp_path, "--strict-readiness=false", model_repository=root, program=(sys.executable, "-c", program))
    try:
        with connect(server) as channel:
            client = Client(channel)
            assert client.infer("other", {"x": np.array([[7]], np.int64)})["y"].item() == 22
            index = client.call("RepositoryIndex", pb.RepositoryIndexRequest()).models
        reasons = {model.name: model.reason for model in index}
        assert "colour/config.pbtxt: the image.* parameters need Pillow" in reasons["colour"]
        assert "pip install pillow" in reasons["colour"]
    finally:
        assert server.terminate() == 0


def test_a_server_of_tensors_does_not_load_pillow() -> None:
    code = "import sys, server.app; sys.exit('PIL' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60).returncode == 0
