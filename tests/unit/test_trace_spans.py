"""Records → spans: what lies in what, and when; and what becomes of traces whose receiver is slow or gone.

The latter with the exporter's real thread.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence

import pytest

pytest.importorskip("opentelemetry.sdk", reason="the extra 'tracing' is not installed")

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import SpanKind, StatusCode

from server.errors import DeadlineExceeded, ExecutionFailed, QueueFull
from server.records import Computation, Record, TraceContext
from server.trace_config import TraceConfig
from server.tracing.otlp import OtlpSink, SpanMaker
from tests.real.waiting import wait_until

EPOCH = 1_700_000_000_000_000_000
CALLER = TraceContext(0xABC, 0xDEF, True, "vendor=x")
FIRST = Computation(150, 160, 180, 190, rows=5, requests=3, size=8)
SECOND = Computation(200, 210, 230, 240, rows=1, requests=1, size=1)


def record(*runs: Computation, started_ns: int = 0, admitted: bool = True) -> Record:
    """A request that came at 100, was admitted at 110 and ended at 300."""
    record = Record("ModelInfer", "m", 100, lambda *_: None)
    record.trace_id, record.request_id, record.ended_ns = 0x123, "seven", 300
    if admitted:
        record.admitted("3", 2, 110)
    record.computations += runs
    record.started_ns = started_ns or (runs[0].start_ns if runs else 0)
    return record


def spans(record: Record) -> list[ReadableSpan]:
    return SpanMaker(Resource({}), lambda: EPOCH)(record)


def outline(record: Record) -> list[tuple[str, str, int, int]]:
    """Of each span: its name, the name of what it lies in, and when it began and ended."""
    made = spans(record)
    names = {span.context.span_id: span.name for span in made}
    return [
        (
            span.name.rpartition("/")[2],
            names.get(span.parent.span_id, "").rpartition("/")[2] if span.parent else "",
            span.start_time - EPOCH,
            span.end_time - EPOCH,
        )
        for span in made
    ]


def test_headers_that_are_forwarded_are_attributes_of_the_request() -> None:
    forwarded = record(FIRST)
    forwarded.headers = {"x-tenant": "a"}
    root, *inside = spans(forwarded)
    assert root.attributes["rpc.request.metadata.x-tenant"] == ("a",)
    assert not any("rpc.request.metadata.x-tenant" in span.attributes for span in inside)


def test_a_request_waits_and_is_computed() -> None:
    assert outline(record(FIRST)) == [
        ("ModelInfer", "", 100, 300),
        ("queue", "ModelInfer", 110, 150),
        ("compute", "ModelInfer", 150, 190),
        ("compute_input", "compute", 150, 160),
        ("compute_infer", "compute", 160, 180),
        ("compute_output", "compute", 180, 190),
    ]


def test_the_steps_of_an_ensemble_lie_in_it() -> None:
    ensemble, step, failed = record(started_ns=120), record(FIRST), record(started_ns=150)
    step.model, failed.model = "first", "second"
    failed.error = ensemble.error = ExecutionFailed("no")
    ensemble.steps = (step, failed)
    assert [line for line in outline(ensemble) if "_" not in line[0]] == [
        ("ModelInfer", "", 100, 300),
        ("queue", "ModelInfer", 110, 120),
        ("first", "ModelInfer", 100, 300),
        ("queue", "first", 110, 150),
        ("compute", "first", 150, 190),
        ("second", "ModelInfer", 100, 300),
        ("queue", "second", 110, 150),
        ("compute", "second", 150, 300),
    ]
    made = {span.name: span for span in spans(ensemble)}
    assert made["first"].status.status_code is StatusCode.UNSET
    assert made["second"].status.status_code is StatusCode.ERROR
    assert made["second"].attributes is not None
    assert made["second"].attributes["error.type"] == "ExecutionFailed"
    assert len({span.context.trace_id for span in spans(ensemble)}) == 1


def test_a_request_that_ran_twice_has_two_computations() -> None:
    assert [line for line in outline(record(FIRST, SECOND)) if line[1] == "ModelInfer"] == [
        ("queue", "ModelInfer", 110, 150),
        ("compute", "ModelInfer", 150, 190),
        ("compute", "ModelInfer", 200, 240),
    ]


def test_a_refused_request_has_a_span_of_its_own_and_no_other() -> None:
    refused = record(admitted=False)
    refused.error, refused.status = QueueFull("no room"), (14, "UNAVAILABLE")
    (span,) = spans(refused)
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, "no room")
    assert span.attributes["error.type"] == "queue_full"
    assert span.attributes["rpc.grpc.status_code"] == 14


def test_a_request_that_is_given_up_while_it_waits_fails_in_the_queue() -> None:
    late = record()
    late.error = DeadlineExceeded("Deadline Exceeded")
    assert [(span.name, span.status.status_code) for span in spans(late)[1:]] == [("queue", StatusCode.ERROR)]
    assert outline(late)[1] == ("queue", "ModelInfer", 110, 300)


def test_a_run_that_fails_is_seen_and_its_words_are_not() -> None:
    failed = record(started_ns=150)
    failed.error = ExecutionFailed("failed: element 42 of your tensor").logged_as("failed")
    root, queue, compute = spans(failed)
    assert (root.status.status_code, root.status.description) == (StatusCode.ERROR, "failed")
    assert queue.status.status_code is StatusCode.UNSET
    assert (compute.name, compute.status.status_code) == ("compute", StatusCode.ERROR)
    assert outline(failed)[2] == ("compute", "ModelInfer", 150, 300)


def test_attributes_say_whose_the_request_is_and_what_batch_it_was_in() -> None:
    root, _, compute, *_ = spans(record(FIRST))
    assert root.kind is SpanKind.SERVER
    assert dict(root.attributes) == {
        "rpc.system": "grpc",
        "rpc.service": "inference.GRPCInferenceService",
        "rpc.method": "ModelInfer",
        "rpc.grpc.status_code": 0,
        "triton.model_name": "m",
        "triton.model_version": "3",
        "triton.request_id": "seven",
        "convoy.rows": 2,
    }
    assert dict(compute.attributes) == {
        "convoy.batch.rows": 5,
        "convoy.batch.requests": 3,
        "convoy.batch.size": 8,
        "convoy.batch.id": "96",
    }


def test_the_callers_trace_goes_on() -> None:
    called = record(FIRST)
    called.context, called.trace_id = CALLER, CALLER.trace_id
    made = spans(called)
    assert made[0].parent is not None
    assert made[0].parent.is_remote
    assert made[0].parent.span_id == CALLER.span_id
    assert {span.context.trace_id for span in made} == {CALLER.trace_id}
    assert {span.context.trace_state.get("vendor") for span in made} == {"x"}
    assert len({span.context.span_id for span in made}) == len(made)


class Receiver(SpanExporter):
    """Keeps spans once it is opened, and refuses them where it is told to."""

    def __init__(self, result: SpanExportResult = SpanExportResult.SUCCESS) -> None:
        self.result = result
        self.spans: list[ReadableSpan] = []
        self.asked = threading.Event()
        self.opened = threading.Event()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.asked.set()
        assert self.opened.wait(20), "the test never opened the receiver"
        self.spans += spans
        return self.result


SIZES = TraceConfig(bsp_max_queue_size=4, bsp_max_export_batch_size=2, bsp_schedule_delay=10_000)


def test_a_full_queue_costs_traces_and_they_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    slow = Receiver()
    sink = OtlpSink(SIZES, slow)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            sink.take(record(FIRST))
        assert slow.asked.wait(20)  # two are on their way and count until they are there
        for _ in range(10):
            sink.take(record(FIRST))
        slow.opened.set()
        sink.close(20)
    assert (sink.dropped, sink.failed, len(slow.spans)) == (8, 0, 4 * 6)
    assert [r.message for r in caplog.records] == [
        "traces are made faster than the receiver takes them: some are dropped",
        "8 of 12 traces were lost",
    ]


def test_a_receiver_that_is_gone_costs_traces_and_is_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    gone = Receiver(SpanExportResult.FAILURE)
    gone.opened.set()
    sink = OtlpSink(SIZES, gone)
    with caplog.at_level(logging.WARNING):
        for _ in range(4):
            sink.take(record(FIRST))
        sink.close(20)
    assert (sink.dropped, sink.failed) == (0, 4)
    assert [r.message for r in caplog.records] == [
        "the receiver of traces takes none: they are dropped while that lasts, and counted",
        "4 of 4 traces were lost",
    ]


def test_a_receiver_that_comes_back_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    receiver = Receiver(SpanExportResult.FAILURE)
    receiver.opened.set()
    sink = OtlpSink(SIZES, receiver)
    with caplog.at_level(logging.INFO):
        for _ in range(2):
            sink.take(record(FIRST))
        wait_until(lambda: sink.failed == 2, 20)
        receiver.result = SpanExportResult.SUCCESS
        sink.take(record(FIRST))
        sink.close(20)
    assert "the receiver takes traces again; 2 were lost" in caplog.messages


def test_a_receiver_that_hangs_does_not_hold_up_the_end(caplog: pytest.LogCaptureFixture) -> None:
    hanging = Receiver()
    sink = OtlpSink(SIZES, hanging)
    sink.take(record(FIRST))
    sink.close(0.0)
    assert "1 of 1 traces were lost" in caplog.messages
    hanging.opened.set()


@pytest.mark.parametrize(
    ("flags", "environment", "name"),
    [
        ((), {}, "convoy"),
        ((), {"OTEL_SERVICE_NAME": "by-name"}, "by-name"),
        ((), {"OTEL_RESOURCE_ATTRIBUTES": "service.name=by-attributes"}, "by-attributes"),
        ((("service.name", "by-flag"),), {"OTEL_SERVICE_NAME": "by-name"}, "by-flag"),
    ],
)
def test_the_service_is_named_by_flags_then_by_the_environment(
    flags: tuple[tuple[str, str], ...], environment: dict[str, str], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    receiver = Receiver()
    receiver.opened.set()
    sink = OtlpSink(TraceConfig(resource=flags), receiver)
    sink.take(record())
    sink.close(20)
    assert receiver.spans[0].resource.attributes["service.name"] == name


def test_the_size_of_the_queue_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "1")
    receiver = Receiver()
    sink = OtlpSink(TraceConfig(bsp_schedule_delay=10_000), receiver)
    sink.take(record())
    assert receiver.asked.wait(20)  # a batch is never larger than the queue
    sink.take(record())
    receiver.opened.set()
    sink.close(20)
    assert sink.dropped == 1
