"""Who looks at requests one by one: traces, and the access log. Most servers have neither, and do nothing here.

A request that is watched has a `Record`, from its message to its answer.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from random import Random

from server.errors import ConvoyError
from server.frontends.calls import Call, StatusCode
from server.messages import InferenceRequest
from server.records import GRPC, Record, TraceContext
from server.tracing import Sink
from server.tracing.context import TRACEPARENT, trace_context
from server.tracing.sampling import TraceSettings

log = logging.getLogger("server.access")

MAX_TEXT = 256
"""What is kept of a name or an id that a caller has made up."""


class Watch:
    """Begins records, and hands them on when they are done."""

    def __init__(
        self,
        settings: TraceSettings,
        sink: Sink | None,
        statuses: Mapping[type[ConvoyError], StatusCode],
        *,
        joins_traces: bool,
        access_log: bool = False,
    ) -> None:
        """`joins_traces`: whether a caller's own trace goes on here, whatever the settings pick."""
        self.settings = settings
        self.active = False
        """Whether requests need be shown to this at all."""
        self._sink = sink
        self._statuses = statuses
        self._joins_traces = joins_traces
        self._random = Random()  # seeded by the system: trace ids of two servers do not meet
        self._access_log = False
        self.watch_for(access_log=access_log)

    def watch_for(self, *, access_log: bool | None = None) -> None:
        """The trace settings have changed, or the access log is switched."""
        if access_log is not None:
            self._access_log = access_log
        self.active = self._access_log or (self._sink is not None and self.settings.on)

    def begin(
        self,
        method: str,
        context: TraceContext | None,
        request: InferenceRequest,
        received_ns: int,
        protocol: str = GRPC,
    ) -> Record | None:
        """The request's record, which it carries from now on; None where nobody wants one."""
        record = self._begin(method, context, request.model_name, received_ns, protocol)
        if record is not None:
            record.version, record.request_id = request.model_version, request.request_id[:MAX_TEXT]
            if request.headers:
                record.headers = {name: value[:MAX_TEXT] for name, value in request.headers.items()}
            request.record = record
        return record

    def refused(
        self, method: str, context: TraceContext | None, received_ns: int, error: ConvoyError, protocol: str = GRPC
    ) -> None:
        """A message came that is not a request."""
        record = self._begin(method, context, "", received_ns, protocol)
        if record is not None:
            record.finish(error)

    def _begin(
        self, method: str, context: TraceContext | None, model: str, received_ns: int, protocol: str
    ) -> Record | None:
        sampler = self.settings.sampler(model)
        asked = self._joins_traces and context is not None and context.sampled
        traced = sampler.setting.on and self._sink is not None and (asked or sampler.pick())
        if not (traced or self._access_log):
            return None
        record = Record(method, model[:MAX_TEXT], received_ns, self._finished)
        record.protocol = protocol
        record.context = context
        record.traced = traced
        record.log_frequency = sampler.setting.log_frequency
        if context is not None:
            record.trace_id = context.trace_id
        elif traced:
            record.trace_id = self._random.getrandbits(128) or 1
        return record

    def _finished(self, record: Record, error: ConvoyError | None) -> None:
        record.ended_ns = time.monotonic_ns()
        if error is not None:
            status = self._statuses[type(error)]
            record.error, record.status = error, (int(status), status.name)
        if record.traced and self._sink is not None:
            self._sink.take(record)
        if self._access_log:
            log.info("%s %s", record.method, record.status[1], extra=access_fields(record))


def context_of(call: Call) -> TraceContext | None:
    """The caller's trace context. Most callers have none."""
    return trace_context(call.metadata) if call.has_metadata(TRACEPARENT) else None


def access_fields(record: Record) -> dict[str, object]:
    """A request's line in the access log, beside method and status. Times in microseconds."""
    fields: dict[str, object] = {
        "method": record.method,
        "protocol": record.protocol,
        "status": record.status[1],
        "model": record.model,
        "version": record.version,
        "request_id": record.request_id,
        "trace_id": record.trace_text,
        "rows": record.rows,
        "batch_rows": record.computations[-1].rows if record.computations else 0,
        "queue_us": (record.queue_end_ns - record.arrived_ns) // 1000 if record.arrived_ns else 0,
        "total_us": (record.ended_ns - record.received_ns) // 1000,
    }
    if record.cache:
        fields["cache"] = record.cache
    if record.headers:
        fields["headers"] = record.headers
    if record.error is not None:
        fields["error"] = record.error.for_logs or str(record.error)
    return fields
