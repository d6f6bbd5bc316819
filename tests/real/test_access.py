"""Restricted APIs and forwarded headers on both protocols, by tritonclient wherever it has a word for it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any
from urllib.request import Request, urlopen

import grpc
import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.grpc.aio
import tritonclient.http
import tritonclient.http.aio
from tritonclient.utils import InferenceServerException

from proto import grpc_service_pb2 as pb
from tests import onnx_models
from tests.real.clients import SERVICE, WAIT_SECONDS, infer_request, read_url
from tests.real.conftest import ENGINES, RunningServer, start
from tests.real.conftest import connect as connect_grpc
from tests.real.waiting import wait_until
from tests.repositories import add_model

FLAGS = (
    "--grpc-restricted-protocol=inference,health:Key=s3cret",
    "--grpc-restricted-protocol=model-repository,model-config:admin=root",
    "--http-restricted-api=inference,health:Key=s3cret",
    "--http-restricted-api=model-repository,model-config:admin=root",
    "--grpc-header-forward-pattern=^x-|timeout|^triton_",
    "--http-header-forward-pattern=^x-|timeout|^triton_",
    "--access-log=true",
    "--log-format=json",
)
GRPC_KEY, HTTP_KEY = {"triton-grpc-protocol-key": "s3cret"}, {"Key": "s3cret"}
X = np.array([[1]], np.int64)


@pytest.fixture(scope="module")
def server(engine: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    root = tmp_path_factory.mktemp("models")
    add_model(root, "affine", onnx_models.affine())
    server = start(tmp_path_factory.mktemp("server"), *ENGINES[engine], *FLAGS, model_repository=root)
    yield server
    assert server.terminate() == 0, server.log.read_text()
    assert "Traceback" not in server.log.read_text(), server.log.read_text()


@pytest.fixture
def channel(server: RunningServer) -> Iterator[grpc.Channel]:
    with connect_grpc(server) as channel:
        yield channel


def ask(channel: grpc.Channel, path: str, message: bytes = b"", **metadata: str) -> tuple[str, str]:
    """How a call ends: its status, and what it says."""
    pairs = [(name.replace("_", "-"), value) for name, value in metadata.items()]
    call = channel.unary_unary(path).future(message, timeout=30, metadata=pairs)
    return (call.code().name, call.details() or "") if call.exception() else ("OK", "")


REFUSED = ("UNAVAILABLE", "This protocol is restricted, expecting header 'triton-grpc-protocol-Key'")


@pytest.mark.parametrize("path", [f"{SERVICE}/ServerLive", f"{SERVICE}/ServerReady", "/grpc.health.v1.Health/Check"])
def test_health_needs_its_secret(channel: grpc.Channel, path: str) -> None:
    assert ask(channel, path) == REFUSED
    assert ask(channel, path, triton_grpc_protocol_key="other") == REFUSED
    assert ask(channel, path, triton_grpc_protocol_key="s3cret") == ("OK", "")


def test_every_category_has_its_own_secret(channel: grpc.Channel) -> None:
    index = f"{SERVICE}/RepositoryIndex"
    status, message = ask(channel, index, triton_grpc_protocol_key="s3cret")
    assert (status, message) == (REFUSED[0], REFUSED[1].replace("Key", "admin"))
    assert ask(channel, index, triton_grpc_protocol_admin="root") == ("OK", "")
    assert ask(channel, f"{SERVICE}/ServerMetadata") == ("OK", "")


@pytest.mark.parametrize("method", ["/grpc.health.v1.Health/Watch", f"{SERVICE}/ModelStreamInfer"])
def test_a_stream_without_the_secret_ends_before_it_answers(channel: grpc.Channel, method: str) -> None:
    message = infer_request("affine", {"x": X}).SerializeToString() if "Infer" in method else b""
    answers = channel.stream_stream(method)(iter([message] * 3), timeout=30)
    with pytest.raises(grpc.RpcError):
        next(answers)
    assert (answers.code().name, answers.details()) == REFUSED


def test_tritonclients_stream_is_answered_with_the_secret(server: RunningServer) -> None:
    results: list[Any] = []
    with tritonclient.grpc.InferenceServerClient(server.grpc_address) as client:
        client.start_stream(lambda result, error: results.append(error or result), headers=GRPC_KEY)
        client.async_stream_infer("affine", [tensor(tritonclient.grpc)])
        client.stop_stream()
    (result,) = results
    assert result.as_numpy("y").item() == 4


def tensor(module: Any) -> Any:
    tensor = module.InferInput("x", [1, 1], "INT64")
    tensor.set_data_from_numpy(X)
    return tensor


def infer_four_ways(
    server: RunningServer, grpc_headers: Mapping[str, str], http_headers: Mapping[str, str]
) -> list[Any]:
    """The answer, or the status of the refusal, by each of tritonclient's clients."""
    http_address = server.http_url.removeprefix("http://")

    async def over(module: Any, address: str, headers: Mapping[str, str]) -> Any:
        async with module.InferenceServerClient(address) as client:
            return await client.infer("affine", [tensor(module)], headers=dict(headers))

    def wait(module: Any, address: str, headers: Mapping[str, str]) -> Any:
        with module.InferenceServerClient(address) as client:
            return client.infer("affine", [tensor(module)], headers=dict(headers))

    answers: list[Any] = []
    for module, address, headers in (
        (tritonclient.grpc, server.grpc_address, grpc_headers),
        (tritonclient.grpc.aio, server.grpc_address, grpc_headers),
        (tritonclient.http, http_address, http_headers),
        (tritonclient.http.aio, http_address, http_headers),
    ):
        try:
            result = (
                asyncio.run(over(module, address, headers))
                if module.__name__.endswith("aio")
                else wait(module, address, headers)
            )
            answers.append(result.as_numpy("y").item())
        except InferenceServerException as error:
            answers.append((error.status(), error.message()))
    return answers


def test_tritonclients_four_clients_are_answered_with_the_secret(server: RunningServer) -> None:
    assert infer_four_ways(server, GRPC_KEY, HTTP_KEY) == [4, 4, 4, 4]


def test_and_told_what_is_missing_without_it(server: RunningServer) -> None:
    grpc_refusal = ("StatusCode.UNAVAILABLE", REFUSED[1])
    http_refusal = ("403", "This API is restricted, expecting header 'Key'")
    assert infer_four_ways(server, {}, {}) == [grpc_refusal, grpc_refusal, http_refusal, http_refusal]


def logged(server: RunningServer, request_id: str) -> dict[str, Any]:
    """The line of the access log about a request, once it is there."""

    def lines() -> list[str]:
        return [line for line in server.log.read_text().splitlines() if f'"request_id": "{request_id}"' in line]

    wait_until(lambda: bool(lines()), WAIT_SECONDS)
    (line,) = map(json.loads, lines())
    return dict(line)


def metadata(**more: str) -> list[tuple[str, str]]:
    return [*GRPC_KEY.items(), *((name.replace("_", "-"), value) for name, value in more.items())]


def test_headers_that_match_show_in_the_access_log(server: RunningServer, channel: grpc.Channel, engine: str) -> None:
    message = infer_request("affine", {"x": X}, id=f"unary {engine}").SerializeToString()
    pairs = metadata(x_tenant="a", other="b", x_second="c d")
    channel.unary_unary(f"{SERVICE}/ModelInfer")(message, timeout=30, metadata=pairs)
    assert logged(server, f"unary {engine}")["headers"] == {"x-tenant": "a", "x-second": "c d"}


def test_headers_of_a_stream_are_those_of_each_of_its_requests(server: RunningServer, channel: grpc.Channel) -> None:
    messages = [infer_request("affine", {"x": X}, id=f"stream {n}").SerializeToString() for n in range(2)]
    answers = channel.stream_stream(f"{SERVICE}/ModelStreamInfer")(
        iter(messages), timeout=30, metadata=metadata(x_tenant="a")
    )
    assert len(list(answers)) == 2
    assert [logged(server, f"stream {n}")["headers"] for n in range(2)] == [{"x-tenant": "a"}] * 2


@pytest.mark.parametrize("path", ["infer", "generate"])
def test_headers_of_http_show_likewise(server: RunningServer, path: str) -> None:
    inputs = [{"name": "x", "datatype": "INT64", "shape": [1, 1], "data": [1]}]
    body = json.dumps({"id": path} | ({"inputs": inputs} if path == "infer" else {"x": 1})).encode()
    url = f"{server.http_url}/v2/models/affine/{path}"
    with urlopen(Request(url, body, HTTP_KEY | {"X-Tenant": "a"}), timeout=30) as answer:
        assert answer.status == 200
    assert logged(server, path)["headers"] == {"x-tenant": "a"}


@pytest.mark.parametrize("name", ["timeout", "triton_final_response"])
def test_no_header_passes_for_a_parameter_with_a_meaning(server: RunningServer, name: str) -> None:
    message = f"Header '{name}' is reserved for Triton usage and cannot be forwarded."
    with connect_grpc(server) as channel:
        call = channel.unary_unary(f"{SERVICE}/ModelInfer").future(
            infer_request("affine", {"x": X}).SerializeToString(), timeout=30, metadata=[*GRPC_KEY.items(), (name, "1")]
        )
        assert (call.code().name, call.details()) == ("INVALID_ARGUMENT", message)
        stream = channel.stream_stream(f"{SERVICE}/ModelStreamInfer")(
            iter([infer_request("affine", {"x": X}).SerializeToString()]),
            timeout=30,
            metadata=[*GRPC_KEY.items(), (name, "1")],
        )
        (answer,) = stream
        assert pb.ModelStreamInferResponse.FromString(answer).error_message == message
    with tritonclient.http.InferenceServerClient(server.http_url.removeprefix("http://")) as client:
        with pytest.raises(InferenceServerException) as caught:
            client.infer("affine", [tensor(tritonclient.http)], headers=HTTP_KEY | {name: "1"})
        assert (caught.value.status(), caught.value.message()) == ("400", message)


def test_metrics_and_the_document_are_open(server: RunningServer) -> None:
    assert "nv_inference_count" in read_url(server.metrics_url)
    assert json.loads(read_url(f"{server.http_url}/v2/openapi.json"))["openapi"] == "3.1.0"


def test_the_secrets_are_not_logged(server: RunningServer) -> None:
    with suppress(InferenceServerException), tritonclient.grpc.InferenceServerClient(server.grpc_address) as client:
        client.is_server_live(headers={"triton-grpc-protocol-key": "wrong"})
    log = server.log.read_text()
    assert "s3cret" not in log
    assert "root" not in log
