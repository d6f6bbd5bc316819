"""The HTTP half of protocol v2 as far as a load test needs it: a model's metadata, and requests with binary tensors."""

from __future__ import annotations

import json
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote
from urllib.request import Request, urlopen

from google.protobuf.json_format import ParseDict, ParseError

from loadtest.errors import LoadTestError, WrongAnswerError
from loadtest.payload import Shape, Workload, make_workload
from proto import grpc_service_pb2 as pb

_CALL_SECONDS = 30.0
JSON_LENGTH = "Inference-Header-Content-Length"
"""How many bytes of a body are JSON; tensors follow."""

Body = tuple[int, bytes]
"""The length of its JSON, and the whole."""


def infer_path(model: str) -> str:
    return f"/v2/models/{quote(model, safe='')}/infer"


def workload(address: str, model: str, shapes: dict[str, Shape], count: int = 16, seed: int = 0) -> Workload:
    """As `Target.workload`, from what the server at `address` says over HTTP.

    Whether the first axis is the batch axis is asked of /config, which is Triton's; where a server has none, it is if
    its size is variable.
    """
    path = f"/v2/models/{quote(model, safe='')}"
    try:
        said = _get(address, path)
        metadata = ParseDict(said, pb.ModelMetadataResponse(), ignore_unknown_fields=True)
    except ParseError as error:
        raise LoadTestError(f"{address}{path}: not the metadata of a model: {error}") from error
    variable = any(tensor.shape and tensor.shape[0] < 0 for tensor in metadata.inputs)
    try:
        batching = int(_get(address, f"{path}/config").get("max_batch_size", 0)) > 0
    except LoadTestError:
        batching = variable
    return make_workload(metadata, batching=batching, shapes=shapes, count=count, seed=seed)


def binary_body(serialised: bytes) -> Body:
    """A serialised ModelInferRequest as the body of a POST, its tensors binary, and binary ones asked for."""
    request = pb.ModelInferRequest.FromString(serialised)
    head = {
        "inputs": [
            {
                "name": tensor.name,
                "datatype": tensor.datatype,
                "shape": list(tensor.shape),
                "parameters": {"binary_data_size": len(raw)},
            }
            for tensor, raw in zip(request.inputs, request.raw_input_contents, strict=True)
        ],
        "parameters": {"binary_data_output": True},
    }
    text = json.dumps(head, separators=(",", ":")).encode()
    return len(text), text + b"".join(request.raw_input_contents)


def check(address: str, asked: Workload) -> None:
    """Sends the first request of `asked`; a LoadTestError or WrongAnswerError unless every output comes back."""
    json_bytes, body = binary_body(asked.bodies[0])
    url = f"http://{address}{infer_path(asked.model)}"
    answer, headers = _open(Request(url, body, {JSON_LENGTH: str(json_bytes)}))
    length = headers.get(JSON_LENGTH)
    said = json.loads(answer[: int(length)] if length else answer)
    outputs = {output["name"] for output in said.get("outputs", ())}
    if outputs != asked.outputs:
        raise WrongAnswerError(f"outputs {sorted(outputs)}, expected {sorted(asked.outputs)}")


def _get(address: str, path: str) -> dict[str, Any]:
    body, _ = _open(Request(f"http://{address}{path}"))
    try:
        said: dict[str, Any] = json.loads(body)
    except ValueError as error:
        raise LoadTestError(f"{address}{path}: not JSON: {error}") from error
    return said


def _open(request: Request) -> tuple[bytes, Any]:
    try:
        with urlopen(request, timeout=_CALL_SECONDS) as answer:  # noqa: S310 -- http, as said
            return answer.read(), answer.headers
    except HTTPError as error:
        said = error.read(2000).decode(errors="replace")
        raise LoadTestError(f"{request.full_url}: {error.code} {error.reason}: {said}") from error
    except (URLError, TimeoutError) as error:
        raise LoadTestError(f"{request.full_url}: {error}") from error
