"""Requests to other servers, and what their answers mean: each kind both ways."""

import json
from base64 import b64decode
from pathlib import Path

import numpy as np
import pytest

from loadtest.errors import WrongAnswerError
from loadtest.peers.base import Call, Subject
from loadtest.peers.calls import base64_in_json, raw_http, v2_grpc, v2_http
from loadtest.peers.catalogue import PEERS
from loadtest.peers.environments import last_error
from loadtest.side_by_side.asking import checked
from proto import grpc_service_pb2 as pb

SUBJECT = Subject(
    name="tiny",
    title="tiny",
    file=Path("model.onnx"),
    input="pixels",
    output="scores",
    shape=(1, 2, 2),
    row_values=3,
    max_batch=4,
    threads=1,
)
ROW = np.arange(4, dtype=np.float32).reshape(1, 2, 2)
SCORES = np.array([0.25, 0.5, 1.0], np.float32)


def test_a_v2_request_over_grpc_has_a_batch_axis_and_raw_values() -> None:
    request = pb.ModelInferRequest.FromString(v2_grpc(SUBJECT).body(ROW))

    assert request.model_name == "tiny"
    assert [(one.name, one.datatype, list(one.shape)) for one in request.inputs] == [("pixels", "FP32", [1, 1, 2, 2])]
    assert request.raw_input_contents[0] == ROW.tobytes()


@pytest.mark.parametrize("raw", [True, False])
def test_a_v2_answer_over_grpc_is_read_raw_or_typed(raw: bool) -> None:
    response = pb.ModelInferResponse(model_name="tiny")
    output = response.outputs.add(name="scores", datatype="FP32", shape=(1, 3))
    if raw:
        response.raw_output_contents.append(SCORES.tobytes())
    else:
        output.contents.fp32_contents.extend(SCORES)

    checked(v2_grpc(SUBJECT), response.SerializeToString(), SCORES)


def test_a_v2_answer_with_another_output_is_wrong() -> None:
    response = pb.ModelInferResponse(model_name="tiny")
    response.outputs.add(name="other", datatype="FP32", shape=(1, 3))

    with pytest.raises(WrongAnswerError, match="other"):
        checked(v2_grpc(SUBJECT), response.SerializeToString(), SCORES)


def test_a_v2_request_over_http_says_where_its_header_ends() -> None:
    call = v2_http(SUBJECT)
    body = call.body(ROW)
    length = int(dict(call.headers)["Inference-Header-Content-Length"])
    head = json.loads(body[:length])

    assert call.path == "/v2/models/tiny/infer"
    assert head["inputs"][0]["shape"] == [1, 1, 2, 2]
    assert head["inputs"][0]["parameters"]["binary_data_size"] == 16 == len(body) - length
    assert body[length:] == ROW.tobytes()


def test_a_v2_answer_over_http_ends_with_its_values() -> None:
    checked(v2_http(SUBJECT), b'{"outputs": [{"name": "scores"}]}' + SCORES.tobytes(), SCORES)
    with pytest.raises(WrongAnswerError, match="other"):
        checked(v2_http(SUBJECT), b'{"outputs": [{"name": "other"}]}' + SCORES.tobytes(), SCORES)
    with pytest.raises(WrongAnswerError, match="not an answer"):
        checked(v2_http(SUBJECT), b"{}", SCORES)


def test_raw_floats_are_sent_as_they_lie() -> None:
    assert raw_http("/").body(ROW) == ROW.tobytes()
    checked(raw_http("/"), SCORES.tobytes(), SCORES)


@pytest.mark.parametrize(
    ("listed", "answer_key", "answer"),
    [(False, "output", {"output": SCORES.tolist()}), (True, None, [SCORES.tolist()])],
)
def test_base64_in_json_comes_back_in_decimal(listed: bool, answer_key: str | None, answer: object) -> None:
    call = base64_in_json("/predict", "key", listed=listed, answer_key=answer_key)
    sent = json.loads(call.body(ROW))["key"]

    assert b64decode(sent[0] if listed else sent) == ROW.tobytes()
    checked(call, json.dumps(answer).encode(), SCORES)


@pytest.mark.parametrize(
    ("call", "answer"),
    [
        (raw_http("/"), b"abc"),
        (raw_http("/"), (SCORES + 1).tobytes()),
        (raw_http("/"), SCORES[:2].tobytes()),
        (base64_in_json("/", "key", listed=False, answer_key="output"), b"not JSON"),
        (base64_in_json("/", "key", listed=False, answer_key="output"), b'{"detail": "overloaded"}'),
        (v2_grpc(SUBJECT), b"\xff\xff"),
    ],
)
def test_what_is_no_answer_is_a_wrong_answer(call: Call, answer: bytes) -> None:
    with pytest.raises(WrongAnswerError):
        checked(call, answer, SCORES)


def test_every_peer_says_how_it_is_asked_and_its_requirements_are_pinned() -> None:
    assert len({peer.name for peer in PEERS}) == len(PEERS)
    for peer in PEERS:
        assert peer.call(SUBJECT).http1 == (peer.protocol == "HTTP/1.1")
        assert peer.requirements or peer.ours or not peer.runs_model
        lines = peer.requirements.read_text().splitlines() if peer.requirements else []
        assert all("==" in line for line in lines)
        assert {f"{name}==" for name in peer.packages} - {
            line[: len(line.partition("==")[0]) + 2] for line in lines
        } == (set() if lines else {f"{name}==" for name in peer.packages})


def test_of_what_pip_says_the_last_error_is_told() -> None:
    text = "Collecting x\nERROR: no version\nERROR: No matching distribution found for x==1\nWARNING: a new release\n\n"

    assert last_error(text) == "ERROR: No matching distribution found for x==1"
    assert last_error("Traceback:\nOSError: disk full\n") == "OSError: disk full"
    assert last_error("") == "it said nothing"
