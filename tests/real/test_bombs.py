"""Small things that would make a server take much memory or time: each is refused by name, before it does.

The peak of a real server's memory is read from the kernel, so that what is freed again counts as well.
"""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import grpc
import numpy as np
import pytest
from onnx import TensorProto, helper

from proto import grpc_service_pb2 as pb
from tests import onnx_models
from tests.real.clients import SERVICE, Client, read_url
from tests.real.conftest import RunningServer, connect, start
from tests.repositories import add_model

GIB = 1 << 30
HEADROOM = 160 << 20
"""Bytes that a server may take beside the messages that it reads: libraries that are loaded later, the allocator."""
MESSAGE = 8 << 20
"""The largest message of the server, in bytes."""

XY = 'input { name: "x" data_type: TYPE_FP32 dims: [ %s ] } output { name: "y" data_type: TYPE_FP32 dims: [ -1 ] }'
FREE = XY % "-1"


def peak(server: RunningServer) -> int:
    """The most memory that the server has ever had, in bytes."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) << 10


def of_holes(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(16 * GIB)


def pipe_as_config(folder: Path) -> None:
    os.mkfifo(folder / "config.pbtxt")


def config_of_holes(folder: Path) -> None:
    of_holes(folder / "config.pbtxt")


def labels_of_holes(folder: Path) -> None:
    of_holes(folder / "labels")


def warm_up_of_holes(folder: Path) -> None:
    (folder / "warmup").mkdir()
    of_holes(folder / "warmup" / "row")


def config_elsewhere(folder: Path) -> None:
    (folder / "config.pbtxt").symlink_to("/etc/passwd")


def ensemble_of_what_lies_elsewhere(folder: Path) -> None:
    (folder / "config.pbtxt").write_text(f"""
        platform: "ensemble"
        {FREE}
        ensemble_scheduling {{
            step {{
                model_name: "../{folder.parent.name}/m"
                input_map {{ key: "x" value: "x" }}
                output_map {{ key: "y" value: "y" }}
            }}
        }}
    """)


def warm_up(tensor: str) -> str:
    sample = f'name: "w" batch_size: 1 inputs {{ key: "x" value {{ data_type: TYPE_FP32 {tensor} }} }}'
    return f"max_batch_size: 4 {FREE} model_warmup {{ {sample} }}"


def absent_weights() -> bytes:
    """x plus an initializer that says it has 8 TiB, and has none."""
    nodes = [helper.make_node("Add", ["x", "c"], ["y"])]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ("N", "D")) for name in ("x", "y")]
    weights = TensorProto(name="c", data_type=TensorProto.FLOAT, dims=[1 << 20, 1 << 21])
    graph = helper.make_graph(nodes, "absent", values[:1], values[1:], [weights])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9).SerializeToString()


def context_node() -> bytes:
    """A node that would have an execution provider read a file of its choosing."""
    node = helper.make_node(
        "EPContext", ["x"], ["y"], domain="com.microsoft", embed_mode=0, ep_cache_context="/etc/passwd"
    )
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ("N", "D")) for name in ("x", "y")]
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    graph = helper.make_graph([node], "context", values[:1], values[1:])
    return helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString()


def nested(depth: int) -> bytes:
    """A graph in an attribute of a node of a graph, and so on."""
    data = b""
    for _ in range(depth):
        for tag in (0x32, 0x2A, 0x0A):  # an attribute's graph, in a node's attribute, in a graph's node
            data = bytes([tag]) + length(len(data)) + data
    return b"\x3a" + length(len(data)) + data


def length(value: int) -> bytes:
    low = value & 0x7F
    return bytes([low]) if value < 0x80 else bytes([low | 0x80]) + length(value >> 7)


def parameter(key: str, value: str) -> str:
    return f'{FREE} parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}'


def nothing(folder: Path) -> None:
    """The model as it is."""


Change = Callable[[Path], None]
MODELS: Mapping[str, tuple[str | None, bytes | None, Change, str]] = {
    "a_pipe": (None, None, pipe_as_config, "config.pbtxt: is no regular file"),
    "a_config_of_holes": (None, None, config_of_holes, "has 17179869184 bytes, and 1048576 are read at most"),
    "a_config_elsewhere": (None, None, config_elsewhere, "lies outside of the model's folder"),
    "labels_of_holes": (FREE[:-1] + 'label_filename: "labels" }', None, labels_of_holes, "and 16777216 are read"),
    "labels_up": (FREE[:-1] + 'label_filename: "../a_pipe/labels" }', None, nothing, "outside of the model's folder"),
    "a_zero_byte": (FREE[:-1] + r'label_filename: "l\000x" }', None, nothing, "embedded null"),
    "a_row_of_holes": (warm_up('dims: 3 input_data_file: "row"'), None, warm_up_of_holes, "and 12 are read at most"),
    "giant_zeros": (
        warm_up("dims: 9000000000 zero_data: true"),
        None,
        nothing,
        "no request may have more than",
    ),
    "giant_noise": (
        warm_up("dims: 9000000000 random_data: true"),
        None,
        nothing,
        "no request may have more than",
    ),
    "a_step_up": (None, None, ensemble_of_what_lies_elsewhere, "step[0].model_name' is '../"),
    "many_threads": (parameter("intra_op_thread_count", "2000000000"), None, nothing, "an integer from 0 to 1024"),
    "many_instances": ("instance_group { }" * 50_000, None, nothing, "may have 1024 instances together, not 50000"),
    "many_slots": ("max_batch_size: 2000000000 sequence_batching { direct { } }", None, nothing, "1048576 are allowed"),
    "deep_config": ("parameters { value { " * 10_000, None, nothing, "has no field named"),
    "long_config": ('name: "' + "n" * 900_000 + '"', None, nothing, "characters left out"),
    "any_session_entry": (parameter("session.load_model_format", "ORT"), None, nothing, "is not supported by this"),
    "code": (
        FREE + 'model_operations { op_library_filename: "1/model.onnx" }',
        None,
        nothing,
        "--allow-custom-ops=true",
    ),
    "deep_graph": (None, nested(2000), nothing, "messages deep"),
    "absent_weights": (None, absent_weights(), nothing, "ONNX Runtime cannot load it"),
    "context_node": (None, context_node(), nothing, "EPContext"),
    "weights_elsewhere": (None, onnx_models.external_weights("/etc/passwd").SerializeToString(), nothing, "outside of"),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    root = tmp_path_factory.mktemp("bombs")
    good = onnx_models.identity("FP32", ("N", "D"))
    for name, (config, model, change, _) in MODELS.items():
        change(add_model(root, name, model or good, config))
    add_model(root, "m", good)
    add_model(root, "text", onnx_models.identity("BYTES", ("N", "D")))
    flags = (f"--grpc-max-message-bytes={MESSAGE}", f"--http-max-input-size={MESSAGE}", "--load-model=m")
    server = start(
        tmp_path_factory.mktemp("server"), "--model-control-mode=explicit", "--load-model=text", *flags,
        model_repository=root,
    )  # fmt: skip
    yield server
    assert server.terminate() == 0, server.log.read_text()
    assert "Traceback" not in server.log.read_text(), server.log.read_text()


@pytest.fixture
def client(server: RunningServer) -> Iterator[Client]:
    with connect(server) as channel:
        yield Client(channel)


@pytest.mark.parametrize("name", MODELS)
def test_a_model_that_would_take_the_machine_is_refused_by_name(
    name: str, server: RunningServer, client: Client
) -> None:
    before = peak(server)
    refused = client.refusal("RepositoryModelLoad", pb.RepositoryModelLoadRequest(model_name=name))
    assert refused.status is grpc.StatusCode.INVALID_ARGUMENT
    assert f"load failed for model '{name}'" in refused.message
    assert MODELS[name][-1] in refused.message
    assert len(refused.message) < 4000
    assert peak(server) < before + HEADROOM
    assert client.infer("m", {"x": np.ones((1, 2), "f4")})["y"].tolist() == [[1, 1]]


def request(*shapes: tuple[int, ...], data: bytes = bytes(4)) -> pb.ModelInferRequest:
    made = pb.ModelInferRequest(model_name="m", raw_input_contents=[data] * len(shapes))
    for shape in shapes:
        made.inputs.add(name="x", datatype="FP32", shape=shape)
    return made


def with_parameters(count: int, size: int) -> pb.ModelInferRequest:
    made = request((1, 1))
    for i in range(count):
        made.parameters[f"p{i}"].string_param = "v" * size
    return made


REQUESTS: Mapping[str, tuple[pb.ModelInferRequest, str]] = {
    "elements beyond 64 bits": (request((2**62, 2**62)), "batch-size must be <= 4"),
    "a dimension beyond 64 bits with its batch": (request((4, 2**63 - 1)), "too many elements"),
    "a dimension of the largest size": (request((1, 2**63 - 1)), "too many elements"),
    "the least dimension": (request((1, -(2**63))), "All input dimensions should be specified"),
    "a giant batch": (request((2**63 - 1, 1)), "batch-size must be <= 4"),
    "ten thousand dimensions": (request((1,) * 10_000), "unexpected shape for input 'x'"),
    "a hundred thousand inputs of one name": (request(*[(1, 1)] * 100_000, data=b""), "already exists in request"),
}


@pytest.mark.parametrize("case", REQUESTS)
def test_a_request_that_claims_more_than_it_brings_is_refused(case: str, server: RunningServer, client: Client) -> None:
    before = peak(server)
    message, reason = REQUESTS[case]
    refused = client.refusal("ModelInfer", message)
    assert refused.status is grpc.StatusCode.INVALID_ARGUMENT
    assert reason in refused.message
    assert peak(server) < before + HEADROOM


def test_very_many_parameters_are_a_request(server: RunningServer, client: Client) -> None:
    before = peak(server)
    assert client.call("ModelInfer", with_parameters(100_000, 20)).model_name == "m"
    assert peak(server) < before + HEADROOM


def test_a_compressed_message_is_no_larger_inflated(server: RunningServer) -> None:
    before = peak(server)
    with connect(server) as channel:
        call = channel.unary_unary(f"{SERVICE}/ModelInfer").future(
            bytes(16 * MESSAGE), timeout=60, compression=grpc.Compression.Gzip
        )
        assert call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert peak(server) < before + HEADROOM


def test_a_file_larger_than_a_message_does_not_come_with_a_load(server: RunningServer, client: Client) -> None:
    before = peak(server)
    load = pb.RepositoryModelLoadRequest(model_name="m")
    load.parameters["config"].string_param = "{}"
    load.parameters["file:1/model.onnx"].bytes_param = bytes(4 * MESSAGE)
    assert client.refusal("RepositoryModelLoad", load).status is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert peak(server) < before + HEADROOM


def tensor(data: object, **more: object) -> bytes:
    inputs = [{"name": "x", "datatype": "FP32", "shape": [1, 1], "data": data} | more]
    return json.dumps({"inputs": inputs}).encode()


def post(body: bytes, *headers: str, path: str = "/v2/models/m/infer") -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: h", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


NUMBERS = b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,1],"data":[' + b"0," * (3 << 20) + b"0]}]}"
HTTP: Mapping[str, tuple[bytes, int]] = {
    "millions of numbers for one": (post(NUMBERS), 400),
    "lists of lists of nothing": (post(b'{"inputs":[' + b"[]," * (2 << 20) + b"[]]}"), 400),
    "a shape of many dimensions": (post(tensor([1], shape=[1] * 100_000)), 400),
    "a shape beyond 64 bits": (post(tensor([1], shape=[2**62, 2**62])), 400),
    "a string as long as a message": (post(tensor(["s" * (MESSAGE - 1000)])), 400),
    "a length of JSON with a sign": (post(tensor([1]), "Inference-Header-Content-Length: +5"), 400),
    "a length of JSON beyond 64 bits": (post(tensor([1]), "Inference-Header-Content-Length: " + "9" * 60), 400),
    "a request line of a megabyte": (b"GET /" + b"a" * (1 << 20) + b" HTTP/1.1\r\nHost: h\r\n\r\n", 431),
    "very many headers": (b"GET /v2 HTTP/1.1\r\nHost: h\r\n" + b"A: b\r\n" * 200_000 + b"\r\n", 431),
    "two lengths": (post(b"", "Transfer-Encoding: chunked") + b"0\r\n\r\n", 400),
    "a model's name that leads up": (post(b"{}", path="/v2/repository/models/..%2F..%2Fetc/load"), 400),
}


@pytest.mark.parametrize("case", HTTP)
def test_an_http_request_that_would_take_much_is_refused(case: str, server: RunningServer) -> None:
    before = peak(server)
    wire, status = HTTP[case]
    with socket.create_connection(("127.0.0.1", server.ports["http"]), timeout=60) as peer:
        try:
            peer.sendall(wire)
            told = peer.recv(100)
        except ConnectionError:  # whoever goes on sending for long after the refusal is hung up on
            assert status == 431
        else:
            assert told.startswith(f"HTTP/1.1 {status} ".encode())
    assert peak(server) < before + HEADROOM
    assert read_url(f"{server.http_url}/v2/health/live") == ""
