"""What is noted of a request from its message to its answer, who asks for it, and that nobody else has a record."""

from __future__ import annotations

import logging
from collections.abc import Coroutine
from typing import Any

import grpc
import pytest

from proto import grpc_service_pb2 as pb
from server.errors import ExecutionFailed
from server.frontends import inference_service
from server.frontends.calls import StatusCode
from server.frontends.watch import access_fields
from server.messages import InferenceRequest, InferenceResponse
from server.models.work import Reply, Work
from server.records import Record
from tests import fakes
from tests.fakes import FakeCall, KeptRecords
from tests.unit.loaded import turn
from tests.unit.test_inference_service import Server, ended, infer_request, run

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def traceparent(flags: str = "01") -> dict[str, str | bytes]:
    return {"traceparent": f"00-{TRACE}-{SPAN}-{flags}"}


async def infer(server: Server, metadata: dict[str, str | bytes] | None = None, **fields: Any) -> FakeCall:
    """The end of a request with these further fields."""
    call = server.start("ModelInfer", infer_request(1.0, **fields), metadata=metadata or {})
    server.bench.gate.open()
    return await ended(call)


def traced(test: Any, **setting: Any) -> list[Record]:
    """Run a test of a server whose requests are traced; what it noted."""
    sink = KeptRecords()

    def with_sink(server: Server) -> Coroutine[Any, Any, None]:
        return test(server)

    run(with_sink, watch=fakes.watch(sink, **setting))
    return sink.records


def test_a_request_is_noted_from_its_message_to_its_answer() -> None:
    async def test(server: Server) -> None:
        assert (await infer(server, id="seven")).status is StatusCode.OK

    (record,) = traced(test)
    assert (record.method, record.model, record.version, record.request_id) == ("ModelInfer", "m", "3", "seven")
    assert (record.rows, record.status, record.error) == (1, (0, "OK"), None)
    assert record.trace_id != 0
    (computation,) = record.computations
    assert (computation.rows, computation.requests, computation.size) == (1, 1, 1)
    assert record.received_ns < record.ended_ns


def test_nothing_is_noted_where_nobody_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(server: Server) -> None:
        seen: list[InferenceRequest] = []
        infer_ = server.engine.infer

        def engine_infer(request: InferenceRequest, reply: Reply) -> Work | None:
            seen.append(request)
            return infer_(request, reply)

        monkeypatch.setattr(server.engine, "infer", engine_infer)
        await infer(server, metadata=traceparent())
        assert [request.record for request in seen] == [None]

    run(test)


def test_one_request_in_so_many_is_traced() -> None:
    async def test(server: Server) -> None:
        for n in range(6):
            await infer(server, id=str(n))

    assert [record.request_id for record in traced(test, rate=3)] == ["2", "5"]


@pytest.mark.parametrize(("flags", "count"), [("01", 3), ("00", 0)])
def test_a_caller_that_traces_has_its_requests_traced_whatever_the_rate(flags: str, count: int) -> None:
    async def test(server: Server) -> None:
        for _ in range(3):
            await infer(server, metadata=traceparent(flags))

    records = traced(test, rate=0, count=0)
    assert [f"{record.trace_id:032x}" for record in records] == [TRACE] * count


def test_a_callers_trace_is_joined_by_whom_the_rate_picks() -> None:
    async def test(server: Server) -> None:
        await infer(server, metadata=traceparent("00"))

    (record,) = traced(test)
    assert record.trace_id == int(TRACE, 16)


def test_a_message_that_is_no_request_is_noted_with_its_refusal() -> None:
    async def test(server: Server) -> None:
        server.start("ModelInfer", b"\xff\xff")

    (record,) = traced(test)
    assert (record.model, record.status, record.arrived_ns) == ("", (3, "INVALID_ARGUMENT"), 0)


def test_a_refusal_by_the_model_names_its_version() -> None:
    async def test(server: Server) -> None:
        server.start("ModelInfer", pb.ModelInferRequest(model_name="m"))

    (record,) = traced(test)
    assert (record.version, record.status) == ("3", (3, "INVALID_ARGUMENT"))


def test_an_unknown_model_is_noted_and_a_long_name_cut() -> None:
    async def test(server: Server) -> None:
        server.start("ModelInfer", pb.ModelInferRequest(model_name="x" * 1000, id="y" * 1000))

    (record,) = traced(test)
    assert (record.model, record.request_id, record.status) == ("x" * 256, "y" * 256, (5, "NOT_FOUND"))


def test_a_caller_that_leaves_is_noted_once() -> None:
    async def test(server: Server) -> None:
        waiting = []
        for n in range(2):
            waiting.append(server.start("ModelInfer", infer_request(1.0, id=str(n))))
            await turn()  # so that the first runs already when the second comes
        for call in waiting:
            assert call.on_cancel is not None
            call.on_cancel()
        server.bench.gate.open()
        while server.bench.version.in_flight:
            await turn()

    records = traced(test)
    assert sorted(record.request_id for record in records) == ["0", "1"]
    assert {record.status for record in records} == {(1, "CANCELLED")}


def test_every_request_of_a_batch_is_noted_with_all_of_it() -> None:
    async def test(server: Server) -> None:
        first = server.start("ModelInfer", infer_request(0.0))
        await turn()
        rest = [server.start("ModelInfer", infer_request(float(n))) for n in range(3)]
        server.bench.gate.open(2)
        for call in (first, *rest):
            await ended(call)

    records = traced(test)
    assert [(c.rows, c.requests) for record in records for c in record.computations] == [(1, 1), (3, 3), (3, 3), (3, 3)]


def test_an_answer_that_cannot_be_encoded_is_noted_and_logged_with_its_trace(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_: InferenceResponse) -> bytes:
        raise ValueError("not an answer")

    async def test(server: Server) -> None:
        assert (await infer(server, traceparent(), id="seven")).status is StatusCode.INTERNAL

    monkeypatch.setattr(inference_service, "encode_infer_response", broken)
    (record,) = traced(test)
    assert record.status == (13, "INTERNAL")
    (line,) = [vars(line) for line in caplog.records if line.levelno == logging.ERROR]
    assert [line[name] for name in ("model", "version", "request_id", "trace_id")] == ["m", "3", "seven", TRACE]


def test_the_access_log_has_a_line_for_each_request(caplog: pytest.LogCaptureFixture) -> None:
    async def test(server: Server) -> None:
        await infer(server, id="seven", metadata=traceparent("00"))
        server.start("ModelInfer", pb.ModelInferRequest(model_name="nobody"))

    with caplog.at_level(logging.INFO, "server.access"):
        run(test, watch=fakes.watch(access_log=True))
    answered, refused = [vars(record) for record in caplog.records if record.name == "server.access"]
    assert answered["message"] == "ModelInfer OK"
    assert {name: answered[name] for name in ("model", "version", "request_id", "trace_id", "rows", "batch_rows")} == {
        "model": "m",
        "version": "3",
        "request_id": "seven",
        "trace_id": TRACE,
        "rows": 1,
        "batch_rows": 1,
    }
    assert answered["total_us"] >= 0
    assert (refused["message"], refused["error"]) == (
        "ModelInfer NOT_FOUND",
        "Request for unknown model: 'nobody' is not found",
    )


def test_an_error_is_logged_without_the_words_of_the_runtime() -> None:
    record = Record("ModelInfer", "m", 0, lambda *_: None)
    record.error = ExecutionFailed("it failed: element 'secret'").logged_as("it failed")
    assert access_fields(record)["error"] == "it failed"


def test_grpc_names_statuses_as_the_log_does() -> None:
    assert {code.name: int(code) for code in StatusCode} == {code.name: code.value[0] for code in grpc.StatusCode}
