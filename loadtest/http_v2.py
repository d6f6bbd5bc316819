"""HTTP v2 with binary tensors: KServe's protocol, and Triton's extension for raw bytes after the JSON.

A message is JSON and then, in the order in which it names them, the raw contents of its tensors; the header
`Inference-Header-Content-Length` says how long the JSON is.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote
from urllib.request import Request, urlopen

import numpy as np
from google.protobuf.json_format import ParseDict, ParseError

from loadtest.errors import LoadTestError, WrongAnswerError
from loadtest.payload import NUMPY_TYPES, Description, Shape, Workload
from loadtest.samples import workload_for
from proto import grpc_service_pb2 as pb

JSON_LENGTH = "Inference-Header-Content-Length"
_CALL_SECONDS = 30.0


def model_path(model: str) -> str:
    """Where the server describes `model`; "/infer" after it runs it."""
    return f"/v2/models/{quote(model, safe='')}"


def encode_request(request: pb.ModelInferRequest) -> tuple[dict[str, str], bytes]:
    """Headers and body of the HTTP request that says the same; all outputs are wanted as binary."""
    inputs = [
        {
            "name": tensor.name,
            "datatype": tensor.datatype,
            "shape": list(tensor.shape),
            "parameters": {"binary_data_size": len(raw)},
        }
        for tensor, raw in zip(request.inputs, request.raw_input_contents, strict=True)
    ]
    text = json.dumps({"inputs": inputs, "parameters": {"binary_data_output": True}}, separators=(",", ":")).encode()
    headers = {
        "Content-Type": "application/octet-stream",
        "Accept-Encoding": "identity",
        JSON_LENGTH: str(len(text)),
    }
    return headers, b"".join((text, *request.raw_input_contents))


def encode_json_request(request: pb.ModelInferRequest) -> tuple[dict[str, str], bytes]:
    """As `encode_request`, all of it JSON, the answer too. Raises `KeyError` for datatypes without a JSON form."""
    inputs = [
        {
            "name": tensor.name,
            "datatype": tensor.datatype,
            "shape": list(tensor.shape),
            "data": np.frombuffer(raw, NUMPY_TYPES[tensor.datatype]).tolist(),
        }
        for tensor, raw in zip(request.inputs, request.raw_input_contents, strict=True)
    ]
    return {"Content-Type": "application/json"}, json.dumps({"inputs": inputs}).encode()


def decode_response(json_length: str | None, body: bytes) -> pb.ModelInferResponse:
    """The gRPC message that says the same as an answer. `json_length`: its header of that name.

    Raises WrongAnswerError where JSON and tensors do not make up the body.
    """
    try:
        length = len(body) if json_length is None else int(json_length)
        head: dict[str, Any] = json.loads(body[:length])
        response = pb.ModelInferResponse(model_name=head["model_name"])
        position = length
        for output in head["outputs"]:
            response.outputs.add(name=output["name"], datatype=output["datatype"], shape=output["shape"])
            size = output["parameters"]["binary_data_size"]
            response.raw_output_contents.append(body[position : position + size])
            position += size
    except (KeyError, TypeError, ValueError) as error:
        raise WrongAnswerError(f"no answer with binary outputs: {error!r}") from error
    if position != len(body):
        raise WrongAnswerError(f"the JSON describes {position} bytes, the body has {len(body)}")
    return response


def refusal(status: int, body: bytes) -> str:
    """What a status other than 200 says, in a line."""
    try:
        reason = json.loads(body)["error"]
    except (KeyError, TypeError, ValueError):
        reason = body[:200].decode(errors="replace")
    return f"{status}: {reason}"


class RestTarget:
    """A server that speaks HTTP v2 at `url`, "http://host:port". A refusal is a LoadTestError."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")

    def workload(
        self, model: str, shapes: dict[str, Shape], *, samples: Path | None = None, count: int = 16, seed: int = 0
    ) -> Workload:
        """What is sent to `model`, made from what the server says of it; see `workload_for`."""
        described = self._get(model_path(model))
        config = self._config(model)
        try:
            metadata = ParseDict(described, pb.ModelMetadataResponse(), ignore_unknown_fields=True)
            variable = any(tensor.shape and tensor.shape[0] < 0 for tensor in metadata.inputs)
            batching = variable if config is None else config.get("max_batch_size", 0) > 0
            takes_pictures = config is not None and "image.resize" in config.get("parameters", {})
            takes_sequences = config is not None and "sequence_batching" in config
        except (ParseError, TypeError, AttributeError) as error:
            raise LoadTestError(f"{self._url}{model_path(model)} does not describe a model: {error}") from error
        description = Description(metadata, batching, takes_pictures, takes_sequences)
        return workload_for(description, shapes=shapes, samples=samples, count=count, seed=seed)

    def answer(self, body: bytes) -> pb.ModelInferResponse:
        """To one serialised ModelInferRequest. WrongAnswerError where it is none with binary outputs."""
        request = pb.ModelInferRequest.FromString(body)
        headers, content = encode_request(request)
        path = f"{model_path(request.model_name)}/infer"
        with self._open("POST", path, content, headers) as answer:
            return decode_response(answer.headers.get(JSON_LENGTH), answer.read())

    def _config(self, model: str) -> Any:
        """Triton's; None where a server has none: then a first axis of variable size is the batch axis."""
        try:
            return self._get(f"{model_path(model)}/config")
        except LoadTestError:
            return None

    def _get(self, path: str) -> Any:
        with self._open("GET", path) as answer:
            return json.load(answer)

    @contextmanager
    def _open(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] = MappingProxyType({})
    ) -> Iterator[Any]:
        """The answer of status 200; whatever goes wrong until it is read is a LoadTestError."""
        request = Request(self._url + path, body, dict(headers))  # noqa: S310 -- whom the user named
        try:
            with urlopen(request, timeout=_CALL_SECONDS) as answer:  # noqa: S310
                yield answer
        except HTTPError as error:
            raise LoadTestError(f"{method} {self._url}{path}: {refusal(error.code, error.read())}") from error
        except (URLError, OSError, HTTPException, ValueError) as error:
            raise LoadTestError(f"{method} {self._url}{path}: {error}") from error
