"""Traces to a receiver of OTLP. All that imports OpenTelemetry, and itself imported only where the flags ask for it.

A record waits in the queue of OpenTelemetry's batch processor, and becomes spans on that processor's own thread:

    inference.GRPCInferenceService/ModelInfer    SERVER: from the message's arrival until its answer is handed over
    ├── queue                                    until a run begins, or the request is turned away
    └── compute                                  one for each run of the model
        ├── compute_input                        the batch is put together
        ├── compute_infer                        the model runs
        └── compute_output                       the batch's outputs are taken apart
"""

from __future__ import annotations

import logging
import os
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

from server import __version__
from server.records import GRPC, Computation, Record
from server.trace_config import TraceConfig

log = logging.getLogger(__name__)

SERVICE_NAME = "convoy"
RPC_SERVICE = "inference.GRPCInferenceService"
DEFAULT_QUEUE_SIZE = 2048
DEFAULT_BATCH_SIZE = 512

_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_SCOPE = InstrumentationScope(SERVICE_NAME, __version__)

Attributes = Mapping[str, str | int | bool | Sequence[str]]


class OtlpSink:
    """See `tracing.Sink`. A receiver that is slow or gone costs traces, which are counted, and nothing else."""

    def __init__(self, config: TraceConfig, exporter: SpanExporter | None = None) -> None:
        """Sends through `exporter`; without it over OTLP/HTTP. Raises `ValueError` for sizes that do not go together.

        What the flags leave open is OpenTelemetry's own: its environment variables, and its defaults.
        """
        self._room, batch = _sizes(config)
        resource = _resource(config)
        target = exporter or OTLPSpanExporter(endpoint=config.url or None)
        self._exporter = _RecordExporter(target, resource)
        self._processor = BatchSpanProcessor(
            self._exporter,
            max_queue_size=self._room,
            schedule_delay_millis=config.bsp_schedule_delay,
            max_export_batch_size=batch,
        )
        self._taken = 0
        self.dropped = 0
        """Traces that the queue had no room for."""

    @property
    def failed(self) -> int:
        """Traces that the receiver did not take."""
        return self._exporter.failed

    @property
    def lost(self) -> int:
        return self.dropped + self.failed

    def take(self, record: Record) -> None:
        if self._taken - self._exporter.seen >= self._room:
            if not self.dropped:
                log.warning("traces are made faster than the receiver takes them: some are dropped")
            self.dropped += 1
            return
        self._taken += 1
        self._processor.on_end(_Waiting(record))

    def close(self, seconds: float) -> None:
        closing = threading.Thread(target=self._processor.shutdown, name="traces' last export", daemon=True)
        closing.start()
        closing.join(seconds)
        lost = self.lost + self._taken - self._exporter.seen
        if lost:
            log.warning("%d of %d traces were lost", lost, self._taken + self.dropped)


class _Waiting(ReadableSpan):
    """A record, for as long as it waits where OpenTelemetry expects a span."""

    def __init__(self, record: Record) -> None:
        self.record = record
        self._context = _WAITING


_WAITING = SpanContext(1, 1, is_remote=False, trace_flags=_SAMPLED)


class _RecordExporter(SpanExporter):
    """Makes spans of records, and counts what becomes of them. On the batch processor's thread."""

    def __init__(self, target: SpanExporter, resource: Resource) -> None:
        self.seen = 0
        """Traces that have left the queue."""
        self.failed = 0
        self._failing = False
        self._target = target
        self._spans = SpanMaker(resource)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        records = [span.record for span in spans if isinstance(span, _Waiting)]
        result = SpanExportResult.FAILURE
        try:
            result = self._target.export([span for record in records for span in self._spans(record)])
        finally:
            self._count(len(records), taken=result is SpanExportResult.SUCCESS)
        return result

    def _count(self, traces: int, *, taken: bool) -> None:
        self.seen += traces
        if not taken:
            self.failed += traces
        if taken and self._failing:
            log.info("the receiver takes traces again; %d were lost", self.failed)
        elif not taken and not self._failing:
            log.warning("the receiver of traces takes none: they are dropped while that lasts, and counted")
        self._failing = not taken

    def shutdown(self) -> None:
        self._target.shutdown()


class SpanMaker:
    """Records → spans, with times since the epoch."""

    def __init__(
        self,
        resource: Resource,
        offset_ns: Callable[[], int] = lambda: time.time_ns() - time.monotonic_ns(),
    ) -> None:
        self._resource = resource
        self._offset_ns = offset_ns
        self._random_bits = random.Random().getrandbits  # seeded by the system

    def __call__(self, record: Record) -> list[ReadableSpan]:
        """The request's span, and then those inside it. They lie within each other, as their times are made to."""
        caller = record.context
        state = TraceState.from_header([caller.state]) if caller else TraceState()
        parent = None
        if caller is not None:
            flags = TraceFlags(TraceFlags.SAMPLED if caller.sampled else 0)
            parent = SpanContext(caller.trace_id, caller.span_id, is_remote=True, trace_flags=flags, trace_state=state)
        offset = self._offset_ns()
        spans: list[ReadableSpan] = []

        def span(
            name: str, above: SpanContext | None, start: int, end: int, attributes: Attributes, **more: Any
        ) -> SpanContext:
            context = SpanContext(record.trace_id, self._random_bits(64) or 1, False, _SAMPLED, state)
            spans.append(
                ReadableSpan(
                    name,
                    context,
                    above,
                    self._resource,
                    attributes,
                    start_time=start + offset,
                    end_time=max(start, end) + offset,
                    instrumentation_scope=_SCOPE,
                    **more,
                )
            )
            return context

        root = span(
            f"{RPC_SERVICE}/{record.method}", parent, record.received_ns, record.ended_ns, _request_attributes(record),
            kind=SpanKind.SERVER, status=_status(record),
        )  # fmt: skip
        _add_inside(record, root, span)
        return spans


def _add_inside(record: Record, around: SpanContext, span: Callable[..., SpanContext]) -> None:
    """The spans of what happened to a request after it was admitted, and of the steps of an ensemble."""
    if record.cache == "hit":
        span("cache_hit", around, record.arrived_ns, record.ended_ns, {})
    elif record.arrived_ns:
        span("queue", around, record.arrived_ns, record.queue_end_ns, {}, status=_status(record, waiting=True))
    for run in record.computations:
        compute = span("compute", around, run.start_ns, run.output_end_ns, _compute_attributes(run))
        span("compute_input", compute, run.start_ns, run.input_end_ns, {})
        span("compute_infer", compute, run.input_end_ns, run.infer_end_ns, {})
        span("compute_output", compute, run.infer_end_ns, run.output_end_ns, {})
    if record.started_ns and not record.computations and not record.steps:
        # The run failed: there are no times of its phases.
        span("compute", around, record.queue_end_ns, record.ended_ns, {}, status=_status(record))
    for step in record.steps:
        attributes = _model_attributes(step)
        _add_inside(
            step, span(step.model, around, step.received_ns, step.ended_ns, attributes, status=_status(step)), span
        )


def _request_attributes(record: Record) -> Attributes:
    number, _ = record.status
    attributes: dict[str, str | int | bool | Sequence[str]] = {
        "rpc.system": record.protocol,
        "rpc.service": RPC_SERVICE,
        "rpc.method": record.method,
    }
    if record.protocol == GRPC:
        attributes["rpc.grpc.status_code"] = number
    for name, value in (record.headers or {}).items():
        attributes[f"rpc.request.metadata.{name}"] = (value,)
    return attributes | _model_attributes(record)


def _model_attributes(record: Record) -> dict[str, str | int | bool]:
    attributes: dict[str, str | int | bool] = {
        "triton.model_name": record.model,
        "triton.model_version": record.version,
    }
    if record.request_id:
        attributes["triton.request_id"] = record.request_id
    if record.rows:
        attributes["convoy.rows"] = record.rows
    if record.cache:
        attributes["convoy.cache"] = record.cache
    if record.error is not None:
        attributes["error.type"] = record.error.code or type(record.error).__name__
    return attributes


def _compute_attributes(run: Computation) -> Attributes:
    return {
        "convoy.batch.rows": run.rows,
        "convoy.batch.requests": run.requests,
        "convoy.batch.size": run.size,
        "convoy.batch.id": f"{run.start_ns:x}",
    }


def _status(record: Record, *, waiting: bool = False) -> Status:
    """Of a span of this request; with `waiting`, of one that ends well where a run began."""
    if record.error is None or (waiting and (record.started_ns or record.computations)):
        return Status(StatusCode.UNSET)
    return Status(StatusCode.ERROR, record.error.for_logs or str(record.error))


def _resource(config: TraceConfig) -> Resource:
    """What the flags say goes before OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES, and these before our own."""
    named = Resource.create().attributes
    own = {"service.name": SERVICE_NAME, "service.version": __version__}
    if str(named.get("service.name", "")).startswith("unknown_service"):
        named = {key: value for key, value in named.items() if key != "service.name"}
    return Resource({**own, **named, **dict(config.resource)})


def _sizes(config: TraceConfig) -> tuple[int, int]:
    """How many traces may wait, and go at once. Raises `ValueError`."""
    room = config.bsp_max_queue_size or int(os.environ.get("OTEL_BSP_MAX_QUEUE_SIZE") or DEFAULT_QUEUE_SIZE)
    batch = config.bsp_max_export_batch_size or int(os.environ.get("OTEL_BSP_MAX_EXPORT_BATCH_SIZE") or 0)
    return room, batch or min(room, DEFAULT_BATCH_SIZE)
