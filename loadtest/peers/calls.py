"""What travels to the servers and back: four kinds of request for the same row. Pure."""

from __future__ import annotations

import json
from base64 import b64encode

import numpy as np

from loadtest.errors import WrongAnswerError
from loadtest.http_v2 import encode_request, model_path
from loadtest.peers.base import Call, Subject, Tensor
from loadtest.target import INFER
from proto import grpc_service_pb2 as pb

_OCTETS = (("Content-Type", "application/octet-stream"),)
_JSON = (("Content-Type", "application/json"),)


def v2_grpc(subject: Subject) -> Call:
    """ModelInfer of the KServe v2 protocol, tensors in `raw_input_contents`."""

    def values(answer: bytes) -> Tensor:
        response = pb.ModelInferResponse.FromString(answer)
        _check_outputs([output.name for output in response.outputs], subject)
        if response.raw_output_contents:
            return np.frombuffer(response.raw_output_contents[0], np.float32)
        return np.array(response.outputs[0].contents.fp32_contents, np.float32)

    return Call(False, INFER, (), lambda row: _v2(subject, row).SerializeToString(), values, fixed_size=True)


def v2_http(subject: Subject) -> Call:
    """POST /v2/models/NAME/infer with the binary tensor extension, both ways."""
    size = 4 * subject.row_values

    def values(answer: bytes) -> Tensor:
        _check_outputs([output["name"] for output in json.loads(answer[:-size])["outputs"]], subject)
        return np.frombuffer(answer[-size:], np.float32)

    headers, _ = encode_request(_v2(subject, np.zeros(subject.shape, np.float32)))
    path = f"{model_path(subject.name)}/infer"
    return Call(
        True, path, tuple(headers.items()), lambda row: encode_request(_v2(subject, row))[1], values, fixed_size=True
    )


def raw_http(path: str) -> Call:
    """Float32 as it lies in memory, both ways."""
    return Call(
        True,
        path,
        _OCTETS,
        lambda row: row.tobytes(),
        lambda answer: np.frombuffer(answer, np.float32),
        fixed_size=True,
    )


def base64_in_json(path: str, key: str, *, listed: bool, answer_key: str | None) -> Call:
    """{key: base64 of float32}, or a list of that one where `listed`; back come numbers in decimal.

    The numbers stand under `answer_key`; None: they are the one element of the list that the answer is.
    """

    def body(row: Tensor) -> bytes:
        text = b64encode(row.tobytes()).decode()
        return json.dumps({key: [text] if listed else text}).encode()

    def values(answer: bytes) -> Tensor:
        told = json.loads(answer)
        return np.array(told[0] if answer_key is None else told[answer_key], np.float32)

    return Call(True, path, _JSON, body, values, fixed_size=False)


def _v2(subject: Subject, row: Tensor) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name=subject.name)
    request.inputs.add(name=subject.input, datatype="FP32", shape=(1, *subject.shape))
    request.raw_input_contents.append(row.tobytes())
    return request


def _check_outputs(names: list[str], subject: Subject) -> None:
    if names != [subject.output]:
        raise WrongAnswerError(f"outputs {names}, expected ['{subject.output}']")
