"""A request of gRPC as HTTP has it: as JSON, and as JSON followed by binary data. Pure: knows protobuf and numpy."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from loadtest.payload import NUMPY_TYPES
from proto import grpc_service_pb2 as pb

Body = tuple[bytes, dict[str, str]]
"""A body and the headers that describe it."""


def binary_body(message: bytes) -> Body:
    """JSON, and behind it the raw contents as they are; the answer is asked for in the same form."""
    request = pb.ModelInferRequest.FromString(message)
    inputs = [
        _spec(tensor) | {"parameters": {"binary_data_size": len(raw)}}
        for tensor, raw in zip(request.inputs, request.raw_input_contents, strict=True)
    ]
    text = json.dumps({"inputs": inputs, "parameters": {"binary_data_output": True}}).encode()
    headers = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(text))}
    return b"".join((text, *request.raw_input_contents)), headers


def json_body(message: bytes) -> Body:
    """All of it as JSON. Raises `KeyError` for a datatype that JSON has no form for here: text, BF16."""
    request = pb.ModelInferRequest.FromString(message)
    inputs = [
        _spec(tensor) | {"data": np.frombuffer(raw, NUMPY_TYPES[tensor.datatype]).tolist()}
        for tensor, raw in zip(request.inputs, request.raw_input_contents, strict=True)
    ]
    return json.dumps({"inputs": inputs}).encode(), {"Content-Type": "application/json"}


def _spec(tensor: pb.ModelInferRequest.InferInputTensor) -> dict[str, Any]:
    return {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)}
