"""The load tests' codec of HTTP v2 with binary tensors, byte by byte."""

from __future__ import annotations

import json

import pytest

from loadtest.errors import WrongAnswerError
from loadtest.http_v2 import decode_response, encode_request, model_path, refusal
from proto import grpc_service_pb2 as pb


def test_a_request_is_json_and_then_its_tensors_in_their_order() -> None:
    request = pb.ModelInferRequest(model_name="m", raw_input_contents=[b"abcdefgh", b"\x01"])
    request.inputs.add(name="x", datatype="FP32", shape=[1, 2])
    request.inputs.add(name="flag", datatype="BOOL", shape=[1])

    headers, body = encode_request(request)

    length = int(headers["Inference-Header-Content-Length"])
    assert body[length:] == b"abcdefgh\x01"
    assert json.loads(body[:length]) == {
        "inputs": [
            {"name": "x", "datatype": "FP32", "shape": [1, 2], "parameters": {"binary_data_size": 8}},
            {"name": "flag", "datatype": "BOOL", "shape": [1], "parameters": {"binary_data_size": 1}},
        ],
        "parameters": {"binary_data_output": True},
    }


def answer(*sizes: int) -> bytes:
    outputs = [
        {"name": f"y{size}", "datatype": "UINT8", "shape": [size], "parameters": {"binary_data_size": size}}
        for size in sizes
    ]
    return json.dumps({"model_name": "m", "model_version": "1", "outputs": outputs}).encode()


def test_an_answer_becomes_the_message_that_grpc_has_for_it() -> None:
    head = answer(1, 3)

    response = decode_response(str(len(head)), head + b"abcd")

    assert [(output.name, list(output.shape)) for output in response.outputs] == [("y1", [1]), ("y3", [3])]
    assert list(response.raw_output_contents) == [b"a", b"bcd"]
    assert response.model_name == "m"


@pytest.mark.parametrize(
    ("json_length", "body"),
    [
        ("x", answer()),
        (None, b"<html>"),
        (None, b"[]"),
        (None, b'{"model_name": "m"}'),
        (None, b'{"model_name": "m", "outputs": [{"name": "y", "datatype": "INT8", "shape": [1], "data": [1]}]}'),
        (str(len(answer(3))), answer(3) + b"ab"),
        (str(len(answer(3))), answer(3) + b"abcd"),
    ],
)
def test_what_is_no_whole_answer_is_wrong(json_length: str | None, body: bytes) -> None:
    with pytest.raises(WrongAnswerError):
        decode_response(json_length, body)


def test_a_refusal_is_said_in_a_line() -> None:
    assert refusal(400, b'{"error": "no such model"}') == "400: no such model"
    assert refusal(502, b"<html>bad gateway</html>") == "502: <html>bad gateway</html>"
    assert model_path("a/b c") == "/v2/models/a%2Fb%20c"
