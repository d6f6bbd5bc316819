"""Every way to ask wrongly: status and wording as Triton has them, over a real connection, and the server goes on."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest

from proto import grpc_service_pb2 as pb
from tests import onnx_models
from tests.real.clients import Client, infer_request, metric
from tests.repositories import add_model

if TYPE_CHECKING:
    from tests.real.conftest import RunningServer, StartServer

Change = Callable[[pb.ModelInferRequest], None]

A = np.arange(4, dtype=np.float32).reshape(1, 4)


def add_sub(**changes: np.ndarray[Any, Any]) -> pb.ModelInferRequest:
    return infer_request("add_sub", {"a": A, "b": A} | changes)


def changed(change: Change, **arrays: np.ndarray[Any, Any]) -> pb.ModelInferRequest:
    request = add_sub(**arrays)
    change(request)
    return request


def with_parameter(name: str, **value: Any) -> pb.ModelInferRequest:
    return changed(lambda request: request.parameters[name].MergeFrom(pb.InferParameter(**value)))


def of_shape(*shape: int) -> pb.ModelInferRequest:
    return changed(lambda request: request.inputs[1].ClearField("shape") or request.inputs[1].shape.extend(shape))


def classified(**value: Any) -> pb.ModelInferRequest:
    request = infer_request("scores", {"x": A})
    request.outputs.add(name="y").parameters["classification"].MergeFrom(pb.InferParameter(**value))
    return request


def bytes_request(raw: bytes, *shape: int) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name="identity_bytes", raw_input_contents=[raw])
    request.inputs.add(name="x", datatype="BYTES", shape=shape)
    return request


def typed_and_raw(request: pb.ModelInferRequest) -> None:
    request.inputs[0].contents.fp32_contents.append(1)


VERSION = "failed to get model version from specified version"
ID = "[request id: <id_unknown>] "

INVALID: dict[str, tuple[pb.ModelInferRequest, str]] = {
    "bad version": (
        changed(lambda r: setattr(r, "model_version", "x")),
        f"{VERSION} string 'x' (details: not a number), version should be an integral value > 0",
    ),
    "version zero": (
        changed(lambda r: setattr(r, "model_version", "0")),
        f"{VERSION} string '0' (details: out of range), version should be an integral value > 0",
    ),
    "negative version": (
        changed(lambda r: setattr(r, "model_version", "-1")),
        f"{VERSION} string '-1'*",
    ),
    "enormous version": (
        changed(lambda r: setattr(r, "model_version", "9" * 40)),
        f"{VERSION} string '9999*(details: out of range)*",
    ),
    "datatype": (
        add_sub(b=A.astype(np.float64)),
        ID + "inference input 'b' data-type is 'FP64', but model 'add_sub' expects 'FP32'",
    ),
    "datatype of no protocol": (
        changed(lambda r: setattr(r.inputs[0], "datatype", "FLOAT")),
        ID + "inference input 'a' data-type is 'FLOAT', but model 'add_sub' expects 'FP32'",
    ),
    "shape": (
        add_sub(b=np.zeros((1, 5), np.float32)),
        ID + "unexpected shape for input 'b' for model 'add_sub'. Expected [-1,4], got [1,5]. "
        "NOTE: Setting a non-zero max_batch_size*",
    ),
    "rank": (
        of_shape(1, 2, 2),
        ID + "unexpected shape for input 'b' for model 'add_sub'. Expected [-1,4], got [1,2,2]*",
    ),
    "shape without a batch axis": (
        infer_request("whole", {"x": np.zeros((3, 2), np.float32)}),
        ID + "unexpected shape for input 'x' for model 'whole'. Expected [2,3], got [3,2].",
    ),
    "free dimension": (
        of_shape(1, -1),
        ID + "All input dimensions should be specified for input 'b' for model 'add_sub'*",
    ),
    "byte size": (
        changed(lambda r: r.raw_input_contents.__setitem__(1, b"12345678")),
        ID + "input byte size mismatch for input 'b' for model 'add_sub'. Expected 16, got 8",
    ),
    "no bytes": (
        changed(lambda r: r.raw_input_contents.__setitem__(1, b"")),
        ID + "input byte size mismatch for input 'b' for model 'add_sub'. Expected 16, got 0",
    ),
    "batch too big": (
        add_sub(a=np.zeros((9, 4), np.float32), b=np.zeros((9, 4), np.float32)),
        ID + "inference request batch-size must be <= 8 for 'add_sub'",
    ),
    "empty batch": (
        add_sub(a=np.zeros((0, 4), np.float32), b=np.zeros((0, 4), np.float32)),
        ID + "inference request batch-size must be >= 1 for 'add_sub'",
    ),
    "unequal batch": (
        add_sub(b=np.zeros((2, 4), np.float32)),
        ID + "input 'b' batch size does not match other inputs for 'add_sub'",
    ),
    "no batch axis": (of_shape(), ID + "input 'b' has no shape but model requires batch dimension for 'add_sub'"),
    "missing input": (
        infer_request("add_sub", {"a": A}),
        ID
        + "expected 2 inputs but got 1 inputs for model 'add_sub'. Got input(s) ['a'], but missing required input(s) "
        "['b']. Please provide all required input(s).",
    ),
    "no inputs": (
        infer_request("add_sub", {}),
        ID + "expected 2 inputs but got 0 inputs for model 'add_sub'. Got input(s) [], but missing required input(s) "
        "['a','b']. Please provide all required input(s).",
    ),
    "unknown input": (add_sub(c=A), "unexpected inference input 'c' for model 'add_sub'"),
    "unknown output": (
        changed(lambda r: r.outputs.add(name="product")),
        "unexpected inference output 'product' for model 'add_sub'",
    ),
    "output asked twice": (
        changed(lambda r: r.outputs.extend([pb.ModelInferRequest.InferRequestedOutputTensor(name="sum")] * 2)),
        "output 'sum' is requested twice for model 'add_sub'",
    ),
    "duplicate input": (
        changed(lambda r: setattr(r.inputs[1], "name", "a")),
        ID + "input 'a' already exists in request",
    ),
    "no data": (
        changed(lambda r: r.raw_input_contents.pop()),
        "unable to find data for input tensor 'b' for model 'add_sub' in request.",
    ),
    "more data than inputs": (
        changed(lambda r: r.raw_input_contents.append(b"")),
        "*has 2 inputs, but raw_input_contents for 3",
    ),
    "typed and raw": (
        changed(typed_and_raw),
        "unexpected explicit tensor data for input tensor 'a' for model 'add_sub', binary data was already supplied.",
    ),
    "type of timeout": (
        with_parameter("timeout", string_param="soon"),
        "invalid value type for 'timeout' parameter, expected int64_param.",
    ),
    "negative timeout": (
        with_parameter("timeout", int64_param=-1),
        "invalid value for 'timeout' parameter, expected >= 0, got -1.",
    ),
    "type of priority": (
        with_parameter("priority", bool_param=True),
        "invalid value type for 'priority' parameter, expected int64_param or uint64_param.",
    ),
    "reserved parameter": (
        with_parameter("triton_mine", bool_param=True),
        "parameter keys starting with 'triton_' are reserved for Triton usage. *; got 'triton_mine'",
    ),
    "type of classification": (
        classified(string_param="3"),
        "invalid value type for 'classification' parameter of output 'y', expected int64_param",
    ),
    "no classes": (
        classified(int64_param=0),
        "invalid value for 'classification' parameter of output 'y', expected >= 1",
    ),
    "element longer than the tensor": (
        bytes_request(b"\xff\xff\xff\xffabc", 1, 1),
        ID + "incorrect contents of BYTES input 'x' for model 'identity_bytes': element 0 claims 4294967295 bytes*",
    ),
    "too few elements": (
        bytes_request(b"\x01\0\0\0a", 1, 2),
        ID + "incorrect contents of BYTES input 'x' for model 'identity_bytes': expected 2 elements, got 1",
    ),
    "too many elements": (
        bytes_request(b"\x01\0\0\0a" * 2, 1, 1),
        ID + "incorrect contents of BYTES input 'x' for model 'identity_bytes': 5 bytes follow the last of 1 elements",
    ),
    "half a length": (bytes_request(b"\x01\0", 1, 1), ID + "incorrect contents of BYTES input 'x'*"),
    "text that is no UTF-8": (
        bytes_request(b"\x01\0\0\0\xff", 1, 1),
        ID + "input 'x' for model 'identity_bytes' holds bytes that are not UTF-8 text*",
    ),
    "a shape beyond all memory": (
        bytes_request(b"", 1, 2**62),
        ID + "*has too many elements: [[]1,4611686018427387904]",
    ),
    "a shape that claims a terabyte": (bytes_request(b"", 1, 2**40), ID + "*expected 1099511627776 elements, got 0"),
}


def matches(message: str, pattern: str) -> bool:
    """Whether the message is the pattern, in which an asterisk stands for anything."""
    return re.fullmatch(re.escape(pattern).replace(r"\*", ".*").replace(r"\[\[\]", r"\["), message) is not None


def assert_goes_on(client: Client) -> None:
    answer = client.infer("add_sub", {"a": A, "b": A})
    assert answer["sum"].tolist() == (A + A).tolist()


@pytest.mark.parametrize("case", INVALID)
def test_a_wrong_request_is_told_what_is_wrong_with_it(case: str, client: Client) -> None:
    request, pattern = INVALID[case]
    refusal = client.refusal("ModelInfer", request)

    assert refusal.status is grpc.StatusCode.INVALID_ARGUMENT, refusal
    assert matches(refusal.message, pattern), refusal.message
    assert_goes_on(client)


def test_a_refusal_names_the_request_that_it_refuses(client: Client) -> None:
    refusal = client.refusal("ModelInfer", infer_request("add_sub", {"a": A}, id="mine-7"))

    assert refusal.message.startswith("[request id: mine-7] expected 2 inputs but got 1 inputs")


@pytest.mark.parametrize(
    ("method", "request_type"),
    [
        ("ModelReady", pb.ModelReadyRequest),
        ("ModelMetadata", pb.ModelMetadataRequest),
        ("ModelConfig", pb.ModelConfigRequest),
        ("ModelStatistics", pb.ModelStatisticsRequest),
        ("ModelInfer", pb.ModelInferRequest),
    ],
)
def test_an_unknown_model_or_version_is_not_found(method: str, request_type: type[Any], client: Client) -> None:
    name, version = ("model_name", "model_version") if method == "ModelInfer" else ("name", "version")
    for fields, message in (
        ({name: "nowhere"}, "Request for unknown model: 'nowhere' is not found"),
        ({name: "nowhere", version: "1"}, "Request for unknown model: 'nowhere' is not found"),
        ({name: "add_sub", version: "7"}, "Request for unknown model: 'add_sub' version 7 is not found"),
    ):
        refusal = client.refusal(method, request_type(**fields))
        assert (refusal.status, refusal.message) == (grpc.StatusCode.NOT_FOUND, message)


@pytest.mark.parametrize("where", ["inputs", "outputs"])
def test_shared_memory_is_not_offered(where: str, client: Client) -> None:
    request = add_sub()
    request.outputs.add(name="sum")
    parameters = getattr(request, where)[0].parameters
    parameters["shared_memory_region"].string_param = "r"
    parameters["shared_memory_byte_size"].int64_param = 16
    if where == "inputs":
        del request.raw_input_contents[0]
    refusal = client.refusal("ModelInfer", request)

    assert refusal.status is grpc.StatusCode.UNIMPLEMENTED
    assert refusal.message.endswith("without --allow-client-shm=true")


@pytest.mark.parametrize(
    "method",
    [
        "ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata", "ModelInfer", "ModelConfig",
        "ModelStatistics", "RepositoryIndex",
    ],
)  # fmt: skip
def test_bytes_that_are_no_message_are_refused(method: str, client: Client) -> None:
    for garbage in (b"\xff\xff\xff", b"\x0a\xff", b"GET / HTTP/1.1\r\n\r\n"):
        refusal = client.refusal(method, garbage)

        assert refusal.status is grpc.StatusCode.INVALID_ARGUMENT, garbage
        assert f"the message is not a {method}Request" in refusal.message
    assert_goes_on(client)


def test_bytes_that_are_no_http2_close_that_connection_only(zoo: RunningServer, client: Client) -> None:
    with socket.create_connection(("127.0.0.1", zoo.ports["grpc"]), timeout=10) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" + b"\0" * 4096)
        while connection.recv(65536):
            pass  # until the server hangs up
    assert_goes_on(client)


def test_a_run_that_fails_is_an_internal_error_and_the_model_goes_on(zoo: RunningServer, client: Client) -> None:
    for _ in range(3):
        refusal = client.refusal("ModelInfer", infer_request("lookup", {"x": np.array([[99]])}))

        assert refusal.status is grpc.StatusCode.INTERNAL
        assert refusal.message.startswith("model 'lookup' version 1 failed to run: ")
        assert "indices element out of data bounds" in refusal.message
        assert client.infer("lookup", {"x": np.array([[2], [3]])})["y"].tolist() == [[20], [30]]
    assert metric(zoo.metrics_url, "nv_inference_request_failure", model="lookup", reason="BACKEND") == 3


def test_a_model_that_returns_other_rows_than_it_was_given_answers_nobody(client: Client) -> None:
    refusal = client.refusal("ModelInfer", infer_request("doubled_rows", {"x": np.ones((2, 2), np.float32)}))

    assert refusal.status is grpc.StatusCode.INTERNAL
    assert "returned shape [4, 2] for output 'y' of a batch of 2 rows" in refusal.message


def test_a_size_of_zero_beside_a_giant_one_harms_nobody(client: Client) -> None:
    request = infer_request("wildcards", {"x": np.empty((1, 0, 1), np.float32)})
    request.inputs[0].shape[2] = 2**62
    refusal = client.refusal("ModelInfer", request)

    assert refusal.status in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.INTERNAL)
    assert_goes_on(client)


def test_a_message_beyond_the_limit_is_refused_and_one_below_is_not(start_engine: StartServer, tmp_path: Any) -> None:
    add_model(tmp_path, "identity", onnx_models.identity("UINT8"))
    server = start_engine("--grpc-max-message-bytes=10000", model_repository=tmp_path)
    with grpc.insecure_channel(server.grpc_address) as channel:
        client = Client(channel)
        refusal = client.refusal("ModelInfer", infer_request("identity", {"x": np.zeros((1, 10_000), np.uint8)}))
        assert refusal.status is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert client.infer("identity", {"x": np.ones((1, 9_900), np.uint8)})["y"].all()


def test_an_answer_may_be_larger_than_any_default_limit(zoo: RunningServer) -> None:
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(zoo.grpc_address, options=options) as channel:
        x = np.arange(6_000_000, dtype=np.uint8).reshape(1, -1)  # above gRPC's usual 4 MiB
        np.testing.assert_array_equal(Client(channel).infer("identity_uint8", {"x": x})["y"], x)
