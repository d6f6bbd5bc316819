"""`generate` and `generate_stream` over plain HTTP: flat JSON to models of strings and of numbers, and back."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from tests import onnx_models
from tests.real.clients import metric
from tests.real.conftest import RunningServer, start
from tests.repositories import add_model


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Message
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    root = tmp_path_factory.mktemp("models")
    add_model(root, "text", onnx_models.identity("BYTES", ("N", 1)), "max_batch_size: 8")
    add_model(root, "shouter", onnx_models.shouter(), "max_batch_size: 0")
    add_model(root, "affine", onnx_models.affine(), "max_batch_size: 8")
    add_model(root, "add_sub", onnx_models.add_sub(), "max_batch_size: 8")
    add_model(root, "half", onnx_models.identity("FP16", ("N", 1)))
    add_model(root, "lookup", onnx_models.lookup())
    server = start(tmp_path_factory.mktemp("server"), model_repository=root)
    yield server
    assert server.terminate() == 0, server.log.read_text()
    assert "Traceback" not in server.log.read_text(), server.log.read_text()


def ask(server: RunningServer, path: str, said: object, **headers: str) -> Answer:
    body = said if isinstance(said, bytes) else json.dumps(said).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        with urlopen(Request(f"{server.http_url}/v2/models/{path}", body, named), timeout=30) as answer:
            return Answer(answer.status, answer.headers, answer.read())
    except HTTPError as error:
        with error:
            return Answer(error.code, error.headers, error.read())


def test_a_string_goes_in_and_a_string_comes_out(server: RunningServer) -> None:
    answer = ask(server, "text/generate", {"x": "grüße", "id": "seven", "parameters": {"max_tokens": 20}})
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    assert answer.json == {"id": "seven", "model_name": "text", "model_version": "1", "y": "grüße"}


def test_the_example_of_the_documentation(server: RunningServer) -> None:
    answer = ask(server, "shouter/generate", {"text": "good morning", "id": "7"})
    assert answer.body == b'{"id":"7","model_name":"shouter","model_version":"1","shout":"GOOD MORNING"}'


def test_several_strings_are_an_array(server: RunningServer) -> None:
    assert ask(server, "shouter/generate", {"text": ["a", "b"]}).json["shout"] == ["A", "B"]


def test_a_stream_is_one_event_since_a_model_answers_once(server: RunningServer) -> None:
    answer = ask(server, "text/generate_stream", {"x": "a\nb", "stream": True, "temperature": 0.5})
    assert (answer.status, answer.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    assert answer.body == b'data: {"model_name":"text","model_version":"1","y":"a\\nb"}\n\n'


def test_several_rows_and_several_inputs_keep_their_places(server: RunningServer) -> None:
    assert ask(server, "affine/generate", {"x": [1, 2, 3]}).json["y"] == [4, 7, 10]
    sums = ask(server, "add_sub/versions/1/generate", {"a": [1, 2, 3, 4], "b": [1, 1, 1, 1]}).json
    assert (sums["sum"], sums["difference"]) == ([2, 3, 4, 5], [0, 1, 2, 3])


def test_bodies_may_be_compressed_both_ways(server: RunningServer) -> None:
    text = "long " * 1000
    body = gzip.compress(json.dumps({"x": text}).encode())
    answer = ask(server, "text/generate", body, Content_Encoding="gzip", Accept_Encoding="gzip")
    assert json.loads(gzip.decompress(answer.body))["y"] == text


WRONG: dict[str, tuple[str, object, int, str]] = {
    "an unknown model": ("nothing/generate", {"x": 1}, 404, "Request for unknown model: 'nothing' is not found"),
    "an unknown version": ("text/versions/9/generate", {"x": "a"}, 404, "'text' version 9 is not found"),
    "a missing input": ("add_sub/generate", {"a": [1, 2, 3, 4]}, 400, "expected 2 inputs but got 1 inputs"),
    "no body": ("text/generate", b"", 400, "expected 1 inputs but got 0 inputs"),
    "a number for a string": ("text/generate", {"x": 1}, 400, "must be strings"),
    "the wrong number of elements": ("add_sub/generate", {"a": [1], "b": [1]}, 400, "tensor with proper shape"),
    "too many rows": ("affine/generate", {"x": list(range(9))}, 400, "batch-size must be <= 8"),
    "an input twice": (
        "text/generate",
        {"x": "a", "parameters": {"x": "b"}},
        400,
        "input 'x' already exists in request",
    ),
    "a datatype that JSON has not": ("half/generate", {"x": 1.5}, 400, "Please use the binary data format"),
    "a run that fails": ("lookup/generate", {"x": 99}, 500, "lookup"),
}


@pytest.mark.parametrize("stream", [False, True], ids=["generate", "generate_stream"])
@pytest.mark.parametrize(("path", "said", "status", "message"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_is_a_status_and_a_sentence(
    server: RunningServer, path: str, said: object, status: int, message: str, stream: bool
) -> None:
    answer = ask(server, f"{path}_stream" if stream else path, said)
    assert (answer.status, answer.headers["content-type"]) == (status, "application/json")
    assert message in answer.json["error"]


def test_requests_are_counted_like_any_others(server: RunningServer) -> None:
    before = metric(server.metrics_url, "nv_inference_request_success", model="affine")
    ask(server, "affine/generate", {"x": 1})
    assert metric(server.metrics_url, "nv_inference_request_success", model="affine") == before + 1


def test_another_verb_is_told_which_one_there_is(server: RunningServer) -> None:
    with pytest.raises(HTTPError) as caught:
        urlopen(f"{server.http_url}/v2/models/text/generate", timeout=30)
    with caught.value as error:
        assert (error.code, error.headers["allow"]) == (405, "POST")
