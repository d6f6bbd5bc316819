"""`ModelStreamInfer` over both engines: many requests on one call, errors among the answers, and how a stream ends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc

from proto import grpc_service_pb2 as pb
from tests.engines.requests import Requests
from tests.real.clients import CALL_SECONDS, SERVICE, Client, arrays, infer_request, wait_for_pending
from tests.real.conftest import RunningServer

METHOD = f"{SERVICE}/ModelStreamInfer"
FINAL = {"triton_final_response": pb.InferParameter(bool_param=True)}


def number(value: int, model: str = "streamed", **fields: Any) -> bytes:
    return infer_request(model, {"x": np.array([[value]], np.int64)}, **fields).SerializeToString()


def answers_to(client: Client, messages: Sequence[bytes]) -> list[pb.ModelStreamInferResponse]:
    """All that comes back on a stream that is half-closed as soon as these are sent."""
    call = client.channel.stream_stream(METHOD)(iter(messages), timeout=CALL_SECONDS)
    return [pb.ModelStreamInferResponse.FromString(answer) for answer in call]


def test_requests_of_several_models_are_answered_in_their_order(client: Client) -> None:
    floats = np.arange(4, dtype=np.float32).reshape(1, 4)
    messages: list[bytes] = []
    for index in range(60):
        pair = infer_request("add_sub", {"a": floats + index, "b": floats}, id=str(index)).SerializeToString()
        text = infer_request("identity_bytes", {"x": np.array([[b"%d" % index]], object)}, id=str(index))
        messages.append((number(index, "streamed", id=str(index)), pair, text.SerializeToString())[index % 3])
    answers = answers_to(client, messages)
    assert [answer.infer_response.id for answer in answers] == list(map(str, range(60)))
    for index, answer in enumerate(answers):
        outputs = arrays(answer.infer_response)
        expected: Any = ([[3 * index + 1]], (2 * floats + index).tolist(), [[b"%d" % index]])[index % 3]
        assert outputs["sum" if index % 3 == 1 else "y"].tolist() == expected


@pytest.mark.parametrize("asked", [True, False])
def test_every_answer_is_the_final_one_of_its_request(client: Client, asked: bool) -> None:
    """There is no empty answer after it: a model that answers once says so with the one."""
    parameters = {"triton_enable_empty_final_response": pb.InferParameter(bool_param=asked)}
    answers = answers_to(client, [number(n, "streamed", parameters=parameters) for n in range(3)])
    assert [dict(answer.infer_response.parameters) for answer in answers] == [FINAL] * 3


def test_a_unary_answer_has_no_such_parameter(client: Client) -> None:
    answer = client.call("ModelInfer", pb.ModelInferRequest.FromString(number(1, "streamed")))
    assert dict(answer.parameters) == {}


def test_an_error_is_an_answer_among_others(client: Client) -> None:
    own = {"triton_mine": pb.InferParameter(bool_param=True)}
    answers = answers_to(
        client,
        [
            number(1, "streamed", id="good"),
            number(1, "nowhere", id="unknown"),
            number(1, "streamed", id="reserved", parameters=own),
            number(99, "streamed_lookup", id="failing"),
            b"\xff",
            number(2, "streamed", id="last"),
        ],
    )
    assert [bool(answer.error_message) for answer in answers] == [False, True, True, True, True, False]
    assert [answer.infer_response.id for answer in answers] == ["good", "unknown", "", "failing", "", "last"]
    assert [dict(answer.infer_response.parameters) for answer in answers] == [FINAL] * 6
    assert answers[1].error_message == "Request for unknown model: 'nowhere' is not found"
    assert answers[1].infer_response.model_name == "nowhere"


def test_an_error_ends_a_stream_that_asks_for_it(client: Client) -> None:
    messages = [number(1, "streamed"), number(1, "nowhere"), number(2, "streamed")]
    call = client.channel.stream_stream(METHOD)(
        iter(messages), timeout=CALL_SECONDS, metadata=[("triton_grpc_error", "true")]
    )
    assert arrays(pb.ModelStreamInferResponse.FromString(next(call)).infer_response)["y"].item() == 4
    with pytest.raises(grpc.RpcError):
        next(call)
    assert (call.code(), call.details()) == (
        grpc.StatusCode.NOT_FOUND,
        "Request for unknown model: 'nowhere' is not found",
    )


def test_a_half_close_waits_for_the_answers_that_are_due(client: Client) -> None:
    """The window is open when the caller has nothing more to say."""
    answers = answers_to(client, [number(n, "streamed") for n in range(3)])
    assert [arrays(answer.infer_response)["y"].item() for answer in answers] == [1, 4, 7]


def test_a_cancelled_stream_takes_its_requests_out_of_the_queue(zoo: RunningServer, client: Client) -> None:
    requests = Requests()
    call = client.channel.stream_stream(METHOD)(requests, timeout=CALL_SECONDS)
    for value in range(3):
        requests.put(number(value, "held_stream"))
    wait_for_pending(zoo.metrics_url, "held_stream", 3)
    call.cancel()
    requests.end()
    wait_for_pending(zoo.metrics_url, "held_stream", 0)
    assert client.batches("held_stream") == {}


def test_tritonclient_reads_the_mark(zoo: RunningServer) -> None:
    received: list[Any] = []
    tensor = tritonclient.grpc.InferInput("x", [1, 1], "INT64")
    tensor.set_data_from_numpy(np.array([[5]], np.int64))
    with tritonclient.grpc.InferenceServerClient(zoo.grpc_address) as client:
        client.start_stream(lambda result, error: received.append(error or result))
        client.async_stream_infer("streamed", [tensor], request_id="5", enable_empty_final_response=True)
        client.async_stream_infer("nowhere", [tensor], request_id="6", enable_empty_final_response=True)
        client.stop_stream()
    answer, error = received
    assert answer.as_numpy("y").item() == 16
    assert answer.get_response().parameters["triton_final_response"].bool_param
    assert "'nowhere' is not found" in str(error)


def test_parameters_of_all_types_go_along_and_are_not_given_back(client: Client) -> None:
    own = {
        "flag": pb.InferParameter(bool_param=True),
        "count": pb.InferParameter(int64_param=-5),
        "name": pb.InferParameter(string_param="x"),
        "ratio": pb.InferParameter(double_param=0.5),
        "large": pb.InferParameter(uint64_param=2**64 - 1),
    }
    (answer,) = answers_to(client, [number(1, "streamed", parameters=own)])
    assert not answer.error_message
    assert dict(answer.infer_response.parameters) == FINAL
