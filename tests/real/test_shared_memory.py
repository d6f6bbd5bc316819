"""Shared memory with tritonclient's own utilities, over a real connection to real ONNX Runtime, on both engines."""

from __future__ import annotations

import asyncio
import json
import os
import queue
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import ml_dtypes
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
import tritonclient.http as triton_http
from tritonclient.utils import InferenceServerException, serialize_byte_tensor
from tritonclient.utils import shared_memory as shm

from proto import grpc_service_pb2 as pb
from tests import onnx_models
from tests.ensembles import add_ensemble, ensemble, step
from tests.real.clients import Client, infer_request, metric
from tests.real.conftest import ENGINES, RunningServer, connect, start
from tests.real.test_tensors import EXTREMES
from tests.real.waiting import wait_until
from tests.real.zoo import held
from tests.repositories import add_model

REGION_BYTES = 200_000


@pytest.fixture(scope="module")
def server(engine: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server whose clients may have shared memory."""
    root = tmp_path_factory.mktemp("models")
    for datatype in onnx_models.ELEMENT_TYPES:
        add_model(root, f"identity_{datatype.lower()}", onnx_models.identity(datatype))
    add_model(root, "add_sub", onnx_models.add_sub(), "max_batch_size: 8")
    add_model(root, "whole", onnx_models.transpose())
    add_model(root, "doubled", onnx_models.affine(factor=2, offset=0), "max_batch_size: 8")
    add_ensemble(
        root,
        "fourfold",
        ensemble(step("doubled", {"x": "x"}, {"y": "twice"}), step("doubled", {"x": "twice"}, {"y": "y"})),
    )
    state = 'state { input_name: "total_in" output_name: "total_out" data_type: TYPE_FP32 dims: [ 1 ] }'
    sums = f"max_batch_size: 4 sequence_batching {{ direct {{}} {state} }}"
    add_model(root, "sums", onnx_models.accumulator(), sums)
    add_model(root, "held", onnx_models.affine(), _int64(held()))
    server = start(
        tmp_path_factory.mktemp("server"), *ENGINES[engine], "--allow-client-shm=true", model_repository=root
    )
    yield server
    assert server.terminate() == 0, server.log.read_text()
    assert "Traceback" not in server.log.read_text(), server.log.read_text()


def _int64(config: str) -> str:
    tensor = "data_type: TYPE_INT64 dims: [ 1 ]"
    return f'{config} input {{ name: "x" {tensor} }} output {{ name: "y" {tensor} }}'


@pytest.fixture
def client(server: RunningServer) -> Iterator[Client]:
    with connect(server) as channel:
        yield Client(channel)


@pytest.fixture
def user(server: RunningServer) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(server.grpc_address) as client:
        yield client
        client.unregister_system_shared_memory()


class Object:
    """A POSIX object of its own name, made by tritonclient and gone after the test."""

    def __init__(self, byte_size: int = REGION_BYTES) -> None:
        self.key = f"/convoy_test_{os.getpid()}_{uuid4().hex}"
        self.handle = shm.create_shared_memory_region("unused", self.key, byte_size, create_only=True)

    @property
    def path(self) -> Path:
        return Path("/dev/shm") / self.key[1:]

    def put(self, array: np.ndarray[Any, Any], offset: int = 0) -> int:
        """Write a tensor as a user does. Returns its bytes."""
        if array.dtype == np.object_:
            array = serialize_byte_tensor(array)
            shm.set_shared_memory_region(self.handle, [array], offset)
            return len(array.item())
        shm.set_shared_memory_region(self.handle, [array], offset)
        return array.nbytes

    def get(self, dtype: Any, shape: Any, offset: int = 0) -> np.ndarray[Any, Any]:
        return np.array(shm.get_contents_as_numpy(self.handle, dtype, list(shape), offset))


@pytest.fixture
def memory() -> Iterator[Object]:
    memory = Object()
    yield memory
    shm.destroy_shared_memory_region(memory.handle)


@pytest.fixture
def region(user: triton.InferenceServerClient, memory: Object) -> Object:
    """The object, registered as "r"."""
    user.register_system_shared_memory("r", memory.key, REGION_BYTES)
    return memory


def shared_input(name: str, datatype: str, shape: Any, size: int, offset: int = 0, module: Any = triton) -> Any:
    tensor = module.InferInput(name, list(shape), datatype)
    tensor.set_shared_memory("r", size, offset)
    return tensor


def shared_output(name: str, size: int, offset: int = 0, module: Any = triton) -> Any:
    output = module.InferRequestedOutput(name)
    output.set_shared_memory("r", size, offset)
    return output


def is_open(server: RunningServer, path: Path) -> bool:
    """Whether the server has this object open."""
    folder = f"/proc/{server.process.pid}/fd"
    for fd in os.listdir(folder):
        try:
            if os.readlink(f"{folder}/{fd}").removesuffix(" (deleted)") == str(path):
                return True
        except FileNotFoundError:  # closed meanwhile
            continue
    return False


def test_regions_are_registered_shown_and_forgotten(
    server: RunningServer, user: triton.InferenceServerClient, memory: Object
) -> None:
    user.register_system_shared_memory("all", memory.key, REGION_BYTES)
    user.register_system_shared_memory("half", memory.key, 100_000, offset=100_000)

    status = user.get_system_shared_memory_status().regions
    assert {name: (r.name, r.key, r.offset, r.byte_size) for name, r in status.items()} == {
        "all": ("all", memory.key, 0, REGION_BYTES),
        "half": ("half", memory.key, 100_000, 100_000),
    }
    assert set(user.get_system_shared_memory_status("half").regions) == {"half"}
    assert metric(server.metrics_url, "convoy_shared_memory_region_count") == 2
    assert metric(server.metrics_url, "convoy_shared_memory_bytes") == REGION_BYTES + 100_000
    user.unregister_system_shared_memory("all")
    assert set(user.get_system_shared_memory_status().regions) == {"half"}
    user.unregister_system_shared_memory()
    assert not user.get_system_shared_memory_status().regions


def test_the_extension_is_named(user: triton.InferenceServerClient) -> None:
    assert "system_shared_memory" in user.get_server_metadata().extensions


@pytest.mark.parametrize("datatype", EXTREMES)
def test_every_datatype_comes_back_bit_for_bit(
    datatype: str, user: triton.InferenceServerClient, region: Object
) -> None:
    x = EXTREMES[datatype]
    size = region.put(x, 512)
    result = user.infer(
        f"identity_{datatype.lower()}",
        [shared_input("x", datatype, x.shape, size, 512)],
        outputs=[shared_output("y", 75_000, 100_000)],
    )
    output = result.get_output("y")
    assert (output.datatype, tuple(output.shape)) == (datatype, x.shape)
    assert output.parameters["shared_memory_region"].string_param == "r"
    assert output.parameters["shared_memory_offset"].int64_param == 100_000
    assert output.parameters["shared_memory_byte_size"].int64_param == size
    assert list(result.get_response().raw_output_contents) == [b""]
    y = region.get(ml_dtypes.bfloat16 if datatype == "BF16" else x.dtype, x.shape, 100_000)
    assert y.tolist() == x.tolist() if datatype == "BYTES" else y.tobytes() == x.tobytes()


def test_some_tensors_lie_there_and_others_come_along(user: triton.InferenceServerClient, region: Object) -> None:
    a, b = np.array([[1, 2, 3, 4]], np.float32), np.array([[10, 20, 30, 40]], np.float32)
    size = region.put(a)
    plain = triton.InferInput("b", [1, 4], "FP32")
    plain.set_data_from_numpy(b)
    outputs = [triton.InferRequestedOutput("sum"), shared_output("difference", size, 64)]
    result = user.infer("add_sub", [shared_input("a", "FP32", [1, 4], size), plain], outputs=outputs)

    assert result.as_numpy("sum").tolist() == [[11, 22, 33, 44]]
    assert region.get(np.float32, [1, 4], 64).tolist() == [[-9, -18, -27, -36]]
    plain.set_shared_memory("r", size)
    result = user.infer("add_sub", [plain, shared_input("a", "FP32", [1, 4], size)])
    assert result.as_numpy("sum").tolist() == [[2, 4, 6, 8]]


def test_a_model_without_a_batch_axis_takes_them_too(user: triton.InferenceServerClient, region: Object) -> None:
    size = region.put(np.arange(6, dtype=np.float32).reshape(2, 3))
    user.infer("whole", [shared_input("x", "FP32", [2, 3], size)], outputs=[shared_output("y", size, 1000)])
    assert region.get(np.float32, [3, 2], 1000).tolist() == [[0, 3], [1, 4], [2, 5]]


def test_an_empty_tensor_may_lie_there(user: triton.InferenceServerClient, region: Object) -> None:
    result = user.infer("identity_fp32", [shared_input("x", "FP32", [2, 0], 0)], outputs=[shared_output("y", 0, 8)])
    assert tuple(result.get_output("y").shape) == (2, 0)


def test_an_ensemble_takes_and_gives_tensors_there(user: triton.InferenceServerClient, region: Object) -> None:
    size = region.put(np.array([[3], [-5]], np.int64))
    user.infer("fourfold", [shared_input("x", "INT64", [2, 1], size)], outputs=[shared_output("y", size, 64)])
    assert region.get(np.int64, [2], 64).tolist() == [12, -20]


def test_a_sequence_takes_and_gives_tensors_there(user: triton.InferenceServerClient, region: Object) -> None:
    for number, total in ((1, 1.5), (2, 4.0), (3, 7.5)):
        size = region.put(np.array([[number + 0.5]], np.float32))
        user.infer(
            "sums",
            [shared_input("x", "FP32", [1, 1], size)],
            outputs=[shared_output("y", size, 64)],
            sequence_id=7,
            sequence_start=number == 1,
            sequence_end=number == 3,
        )
        assert region.get(np.float32, [1], 64).tolist() == [total]


def test_a_stream_takes_and_gives_tensors_there(user: triton.InferenceServerClient, region: Object) -> None:
    size = region.put(np.arange(4, dtype=np.float32))
    answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
    user.start_stream(lambda result, error: answers.put(error or result))
    inputs = [shared_input(name, "FP32", [1, 4], size) for name in ("a", "b")]
    user.async_stream_infer("add_sub", inputs, outputs=[shared_output("sum", size, 64)])
    user.async_stream_infer("add_sub", inputs, outputs=[shared_output("sum", size - 1, 128)])
    result, error = answers.get(timeout=30), answers.get(timeout=30)
    user.stop_stream()

    assert result.get_output("sum").parameters["shared_memory_byte_size"].int64_param == size
    assert region.get(np.float32, [4], 64).tolist() == [0, 2, 4, 6]
    assert "should be at least 16 bytes to hold the results" in str(error)


def test_the_asyncio_client_has_shared_memory_too(server: RunningServer, memory: Object) -> None:
    async def main() -> list[float]:
        async with triton_aio.InferenceServerClient(server.grpc_address) as client:
            await client.register_system_shared_memory("r", memory.key, REGION_BYTES)
            size = memory.put(np.array([[1.5, 2.5]], np.float32))
            output = shared_output("y", size, 64, triton_aio)
            await client.infer(
                "identity_fp32", [shared_input("x", "FP32", [1, 2], size, module=triton_aio)], outputs=[output]
            )
            assert (await client.get_system_shared_memory_status()).regions["r"].byte_size == REGION_BYTES
            await client.unregister_system_shared_memory("r")
        found: list[float] = memory.get(np.float32, [2], 64).tolist()
        return found

    assert asyncio.run(main()) == [1.5, 2.5]


def test_http_has_shared_memory_too(server: RunningServer, memory: Object) -> None:
    a, b = np.array([[1, 2, 3, 4]], np.float32), np.array([[10, 20, 30, 40]], np.float32)
    size = memory.put(a)
    with triton_http.InferenceServerClient(server.http_url.removeprefix("http://")) as client:
        client.register_system_shared_memory("r", memory.key, REGION_BYTES)
        assert client.get_system_shared_memory_status() == [
            {"name": "r", "key": memory.key, "offset": 0, "byte_size": REGION_BYTES}
        ]
        for binary in (False, True):
            plain = triton_http.InferInput("b", [1, 4], "FP32")
            plain.set_data_from_numpy(b, binary_data=binary)
            outputs = [
                shared_output("difference", size, 64, triton_http),
                triton_http.InferRequestedOutput("sum", binary_data=binary),
            ]
            result = client.infer(
                "add_sub", [shared_input("a", "FP32", [1, 4], size, module=triton_http), plain], outputs=outputs
            )
            assert result.as_numpy("sum").tolist() == [[11, 22, 33, 44]]
            assert result.get_output("difference") == {
                "name": "difference",
                "datatype": "FP32",
                "shape": [1, 4],
                "parameters": {
                    "shared_memory_region": "r",
                    "shared_memory_offset": 64,
                    "shared_memory_byte_size": size,
                },
            }
            assert memory.get(np.float32, [4], 64).tolist() == [-9, -18, -27, -36]
        tensor = triton_http.InferInput("a", [1, 4], "FP32")
        tensor.set_shared_memory("q", size)
        with pytest.raises(InferenceServerException, match="Unable to find shared memory region: 'q'") as caught:
            client.infer("add_sub", [tensor, plain])
        assert caught.value.status() == "404"
        client.unregister_system_shared_memory()
        assert client.get_system_shared_memory_status() == []


def test_data_beside_shared_memory_is_refused_over_http(server: RunningServer) -> None:
    place = {"shared_memory_region": "r", "shared_memory_byte_size": 16}
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 4], "parameters": place, "data": [[1, 2, 3, 4]]}
    body = json.dumps({"inputs": [tensor]}).encode()
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(f"{server.http_url}/v2/models/identity_fp32/infer", data=body, timeout=30)
    with caught.value as refusal:
        assert refusal.code == 400
        assert "input 'x' is in shared memory, and has data in the request as well" in refusal.read().decode()


def test_a_region_is_there_for_requests_in_progress(
    server: RunningServer, client: Client, user: triton.InferenceServerClient, region: Object
) -> None:
    region.put(np.array([[5]], np.int64))
    request = pb.ModelInferRequest(model_name="held")
    request.inputs.add(name="x", datatype="INT64", shape=[1, 1])
    request.outputs.add(name="y")
    for tensor, offset in ((request.inputs[0], 0), (request.outputs[0], 64)):
        tensor.parameters["shared_memory_region"].string_param = "r"
        tensor.parameters["shared_memory_offset"].int64_param = offset
        tensor.parameters["shared_memory_byte_size"].int64_param = 8
    waiting = client.start("ModelInfer", request)
    wait_until(lambda: metric(server.metrics_url, "nv_inference_pending_request_count", model="held") == 1, 30)
    user.unregister_system_shared_memory("r")
    assert client.refusal("ModelInfer", request).status.name == "NOT_FOUND"
    assert is_open(server, region.path)
    others = [client.start_infer("held", {"x": np.array([[i]])}) for i in range(7)]

    answer = pb.ModelInferResponse.FromString(waiting.result())
    assert answer.outputs[0].parameters["shared_memory_region"].string_param == "r"
    assert region.get(np.int64, [1], 64).tolist() == [16]
    assert all(other.result() for other in others)
    wait_until(lambda: not is_open(server, region.path), 30)


def test_an_object_cut_off_while_requests_use_it_harms_nobody(
    client: Client, user: triton.InferenceServerClient, memory: Object
) -> None:
    """A server that maps such an object is ended by SIGBUS here."""
    user.register_system_shared_memory("r", memory.key, REGION_BYTES)
    x = np.ones((1, 40_000), np.float32)
    size = memory.put(x)
    request = infer_request("identity_fp32", {"x": x})
    del request.raw_input_contents[:]
    request.outputs.add(name="y")
    for tensor in (request.inputs[0], request.outputs[0]):
        tensor.parameters["shared_memory_region"].string_param = "r"
        tensor.parameters["shared_memory_byte_size"].int64_param = size
    seen = set()
    for length in (REGION_BYTES, size, size - 1, 4096, 0):
        calls = [client.start("ModelInfer", request) for _ in range(20)]
        os.truncate(memory.path, length)
        for call in calls:
            if call.exception() is not None:
                assert "has become smaller than its region" in call.details()
                seen.add(call.code().name)
    refusal = client.refusal("ModelInfer", request)
    assert (refusal.status.name, seen) == ("INTERNAL", {"INTERNAL"})
    assert refusal.message == (
        f"an input of the request cannot be read: the object '{memory.key}' has become smaller than its region"
    )
    assert client.infer("identity_fp32", {"x": x})["y"].all()


HOSTILE: dict[str, tuple[dict[str, Any], str, str]] = {
    "a folder above": ({"key": "../etc/passwd"}, "INVALID_ARGUMENT", "invalid shared memory key"),
    "no key": ({"key": ""}, "INVALID_ARGUMENT", "invalid shared memory key"),
    "the folder itself": ({"key": "/."}, "INVALID_ARGUMENT", "invalid shared memory key"),
    "an unknown key": ({"key": "/convoy_nowhere"}, "INTERNAL", "Unable to open shared memory region: '/convoy_now"),
    "too large": ({"byte_size": REGION_BYTES * 2}, "INVALID_ARGUMENT", "invalid args"),
    "behind the end": ({"offset": 2**40, "byte_size": 1}, "INVALID_ARGUMENT", "invalid args"),
    "around zero": ({"offset": 2**64 - 1, "byte_size": 2}, "INVALID_ARGUMENT", "invalid args"),
    "empty": ({"byte_size": 0}, "INVALID_ARGUMENT", "its byte_size is 0"),
    "without a name": ({"name": ""}, "INVALID_ARGUMENT", "needs a name"),
    "twice": ({"name": "r"}, "ALREADY_EXISTS", "shared memory region 'r' already in manager"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_what_cannot_be_registered_is_refused(case: str, client: Client, region: Object) -> None:
    fields, status, message = HOSTILE[case]
    request = pb.SystemSharedMemoryRegisterRequest(
        **{"name": "other", "key": region.key, "offset": 0, "byte_size": 8, **fields}
    )
    refusal = client.refusal("SystemSharedMemoryRegister", request)
    assert (refusal.status.name, message in refusal.message) == (status, True), refusal


@pytest.mark.parametrize(
    ("region", "offset", "byte_size", "status", "message"),
    [
        ("q", 0, 8, "NOT_FOUND", "Unable to find shared memory region: 'q'"),
        ("r", REGION_BYTES, 8, "INVALID_ARGUMENT", "Invalid offset for shared memory region: 'r'"),
        ("r", -1, 8, "INVALID_ARGUMENT", "Invalid offset for shared memory region: 'r'"),
        ("r", 2**63 - 1, 2**20, "INVALID_ARGUMENT", "Invalid offset for shared memory region: 'r'"),
        ("r", REGION_BYTES - 7, 8, "INVALID_ARGUMENT", "Invalid offset + byte size for shared memory region: 'r'"),
        ("r", 8, -8, "INVALID_ARGUMENT", "Invalid offset + byte size for shared memory region: 'r'"),
        ("r", 0, 12, "INVALID_ARGUMENT", "input byte size mismatch for input 'x' for model 'identity_fp32'. Expected"),
    ],
)
def test_an_input_that_is_not_there_is_refused(
    region: str,
    offset: int,
    byte_size: int,
    status: str,
    message: str,
    client: Client,
    user: triton.InferenceServerClient,
    memory: Object,
) -> None:
    user.register_system_shared_memory("r", memory.key, REGION_BYTES)
    tensor = triton.InferInput("x", [1, 2], "FP32")
    tensor.set_shared_memory(region, byte_size)
    if offset:
        tensor._input.parameters["shared_memory_offset"].int64_param = offset
    with pytest.raises(InferenceServerException) as caught:
        user.infer("identity_fp32", [tensor])
    assert (caught.value.status(), message in caught.value.message()) == (f"StatusCode.{status}", True), caught.value
    assert client.infer("identity_fp32", {"x": np.ones((1, 2), np.float32)})["y"].all()


@pytest.mark.parametrize(
    ("contents", "count", "message"),
    [
        (b"\xff\xff\xff\xff1234", 2, "element 0 claims 4294967295 bytes, but 4 are left"),
        (b"\1\0\0\0a\1\0\0", 2, "3 bytes are left over where a 4-byte element length is expected"),
        (b"\0\0\0\0\0\0\0\0", 1, "4 bytes follow the last of 1 elements"),
    ],
)
def test_strings_there_are_read_as_far_as_they_go(
    contents: bytes, count: int, message: str, user: triton.InferenceServerClient, region: Object
) -> None:
    region.put(np.frombuffer(contents, np.uint8))
    with pytest.raises(InferenceServerException) as caught:
        user.infer("identity_bytes", [shared_input("x", "BYTES", [1, count], len(contents))])
    assert f"incorrect contents of BYTES input 'x' for model 'identity_bytes': {message}" in caught.value.message()


def test_registrations_have_an_end(client: Client, memory: Object, user: triton.InferenceServerClient) -> None:
    request = pb.SystemSharedMemoryRegisterRequest(key=memory.key, byte_size=8)
    status = None
    for number in range(1025):
        request.name = f"region {number}"
        call = client.start("SystemSharedMemoryRegister", request)
        if call.exception() is not None:
            status = call.code().name
            break
    assert status == "UNAVAILABLE" and "there may be no more" in call.details()
    assert len(user.get_system_shared_memory_status().regions) == number


def test_device_memory_needs_a_device(user: triton.InferenceServerClient) -> None:
    if "cuda_shared_memory" in user.get_server_metadata().extensions:
        pytest.skip("there is a GPU here")
    with pytest.raises(InferenceServerException, match="GPUs not supported") as caught:
        user.register_cuda_shared_memory("r", b"A" * 88, 0, 8)
    assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"
    assert not user.get_cuda_shared_memory_status().regions
    with pytest.raises(InferenceServerException, match="Unable to find cuda shared memory region: 'r'"):
        user.get_cuda_shared_memory_status("r")
    user.unregister_cuda_shared_memory()


def test_without_the_flag_nothing_can_be_registered(zoo: RunningServer) -> None:
    with triton.InferenceServerClient(zoo.grpc_address) as user:
        for call in (
            user.get_system_shared_memory_status,
            user.unregister_system_shared_memory,
            lambda: user.register_system_shared_memory("r", "/key", 8),
            user.get_cuda_shared_memory_status,
            user.unregister_cuda_shared_memory,
            lambda: user.register_cuda_shared_memory("r", b"AAAA", 0, 8),
        ):
            with pytest.raises(InferenceServerException, match="without --allow-client-shm=true") as caught:
                call()
            assert caught.value.status() == "StatusCode.UNIMPLEMENTED"
        assert "system_shared_memory" not in user.get_server_metadata().extensions
