"""One stream of inferences: whatever a model answers, its caller hears of it and the stream goes on."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest

from proto import grpc_service_pb2 as pb
from server import tensors
from server.errors import ConvoyError, ExecutionFailed, InvalidRequest
from server.frontends.answers import encoded
from server.frontends.calls import StatusCode
from server.frontends.decoding import plainly
from server.frontends.statuses import AS_TRITON
from server.frontends.stream_infer import MAX_UNANSWERED, StreamInfer
from server.ledger import Account
from server.memory_budget import MemoryBudget
from server.messages import InferenceRequest, InferenceResponse, OutputTensor
from server.models.work import Reply
from tests import fakes
from tests.fakes import FakeCall, KeptRecords


class Pending:
    def __init__(self) -> None:
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class FakeEngine:
    """An engine whose requests the test answers."""

    def __init__(self) -> None:
        self.replies: list[Reply] = []
        self.works: list[Pending] = []

    def infer(self, request: InferenceRequest, reply: Reply) -> Pending:
        self.replies.append(reply)
        self.works.append(Pending())
        return self.works[-1]

    def refuse(self, error: ConvoyError) -> None:
        """Nobody counts here."""

    withhold = refuse


def answer(*elements: Any) -> InferenceResponse:
    data = np.array(elements, object)
    return InferenceResponse("m", "1", "", [OutputTensor("y", tensors.BYTES, data.shape, data)])


UNSPEAKABLE = answer("\ud800")  # no UTF-8 can say it
REQUEST = pb.ModelInferRequest(model_name="m", id="i").SerializeToString()


def stream(
    metadata: dict[str, str | bytes] | None = None,
    sink: KeptRecords | None = None,
    account: Account | None = None,
) -> tuple[StreamInfer, FakeEngine, FakeCall]:
    engine, call = FakeEngine(), FakeCall(metadata=metadata or {})
    return (
        StreamInfer(engine, AS_TRITON, fakes.watch(sink), plainly, account or Account("test"), MemoryBudget(), call),
        engine,
        call,
    )


def sent(call: FakeCall) -> list[pb.ModelStreamInferResponse]:
    return [pb.ModelStreamInferResponse.FromString(message) for message in call.sent]


def test_an_answer_that_cannot_be_encoded_is_an_error_among_others(caplog: pytest.LogCaptureFixture) -> None:
    receiver, engine, call = stream()
    for _ in range(2):
        receiver.message(REQUEST)
    with caplog.at_level(logging.ERROR):
        engine.replies[0](UNSPEAKABLE)
    engine.replies[1](answer(b"a"))
    receiver.half_closed()
    broken, good = sent(call)
    assert broken.error_message == "the answer of model 'm' cannot be encoded"
    assert (broken.infer_response.id, good.error_message, call.status) == ("i", "", StatusCode.OK)
    assert "an answer of model 'm' cannot be encoded" in caplog.text


def test_what_is_noted_of_it_is_how_its_caller_was_answered(caplog: pytest.LogCaptureFixture) -> None:
    sink = KeptRecords()
    receiver, engine, _ = stream(sink=sink)
    receiver.message(REQUEST)
    engine.replies[0](UNSPEAKABLE)
    (record,) = sink.records
    assert isinstance(record.error, ExecutionFailed)


def test_the_refusal_of_an_encoder_is_what_its_caller_is_told() -> None:
    refusal = InvalidRequest("not in this form")

    def encode(_: InferenceResponse) -> bytes:
        raise refusal

    assert encoded(encode, answer(b"a")) is refusal
    assert encoded(lambda _: b"message", answer(b"a")) == b"message"


def test_answers_wait_for_those_before_them() -> None:
    receiver, engine, call = stream()
    for _ in range(3):
        receiver.message(REQUEST)
    engine.replies[2](answer(b"2"))
    engine.replies[1](InvalidRequest("wrong"))
    assert call.sent == []
    engine.replies[0](answer(b"0"))
    assert [message.error_message for message in sent(call)] == ["", "wrong", ""]


def test_the_first_error_ends_a_stream_that_asks_for_it_and_cancels_what_is_behind() -> None:
    receiver, engine, call = stream({"triton_grpc_error": "true"})
    for _ in range(3):
        receiver.message(REQUEST)
    engine.replies[1](InvalidRequest("wrong"))
    assert call.status is None
    engine.replies[0](answer(b"0"))
    assert (len(call.sent), call.status, call.message) == (1, StatusCode.INVALID_ARGUMENT, "wrong")
    assert [work.cancelled for work in engine.works] == [False, False, True]


def test_requests_without_an_answer_are_bounded() -> None:
    receiver, engine, call = stream()
    for _ in range(MAX_UNANSWERED):
        receiver.message(REQUEST)
    assert call.status is None
    receiver.message(REQUEST)
    assert call.status is StatusCode.RESOURCE_EXHAUSTED
    assert all(work.cancelled for work in engine.works)


def test_a_caller_that_leaves_cancels_what_is_in_progress() -> None:
    receiver, engine, call = stream()
    receiver.message(REQUEST)
    assert call.on_cancel is not None
    call.on_cancel()
    assert engine.works[0].cancelled


def test_an_answer_too_many_is_noticed_at_once_and_makes_up_for_none_that_is_lost() -> None:
    account = Account("test")
    receiver, engine, call = stream(account=account)
    for _ in range(3):
        receiver.message(REQUEST)
    engine.replies[0](answer(b"0"))
    engine.replies[0](answer(b"again"))
    engine.replies[2](InvalidRequest("waits for the lost one"))
    engine.replies[2](answer(b"again"))
    assert (account.answered_twice, account.in_progress, len(call.sent)) == (2, 2, 1)
    engine.replies[1](answer(b"1"))
    assert (account.answered, account.in_progress, len(call.sent)) == (2, 0, 3)
