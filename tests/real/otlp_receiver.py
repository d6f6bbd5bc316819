"""A receiver of OTLP over HTTP, as a collector is one, on loopback: it keeps the spans that it is sent."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1 import trace_pb2

from tests.real.waiting import wait_until

WAIT_SECONDS = 20

ROOT = "inference.GRPCInferenceService/ModelInfer"


@dataclass(frozen=True)
class Span:
    """One span, as it came."""

    wire: trace_pb2.Span
    resource: dict[str, Any]

    @property
    def name(self) -> str:
        return self.wire.name

    @property
    def trace_id(self) -> str:
        return self.wire.trace_id.hex()

    @property
    def times(self) -> tuple[int, int]:
        return self.wire.start_time_unix_nano, self.wire.end_time_unix_nano

    @property
    def attributes(self) -> dict[str, Any]:
        return _plain(self.wire.attributes)

    @property
    def request_id(self) -> str:
        return self.attributes.get("triton.request_id", "")


@dataclass(frozen=True)
class Trace:
    """The spans of one request."""

    root: Span
    inside: list[Span]

    def children(self, of: Span) -> list[Span]:
        """What lies directly in a span, in order of time."""
        found = [span for span in self.inside if span.wire.parent_span_id == of.wire.span_id]
        return sorted(found, key=lambda span: span.times)

    def child(self, name: str) -> Span:
        (span,) = [span for span in self.inside if span.name == name]
        return span


class Receiver:
    """What has come so far."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.bodies: list[bytes] = []
        self._spans: list[Span] = []
        self._lock = threading.Lock()

    def keep(self, body: bytes) -> None:
        request = ExportTraceServiceRequest.FromString(body)
        with self._lock:
            self.bodies.append(body)
            for of_resource in request.resource_spans:
                resource = _plain(of_resource.resource.attributes)
                for scope in of_resource.scope_spans:
                    self._spans += [Span(span, resource) for span in scope.spans]

    def traces(self, wanted: Callable[[Span], bool] = lambda _: True) -> list[Trace]:
        """The requests whose first span is like that, whole, in order of their beginning."""
        with self._lock:
            spans = list(self._spans)
        roots = [span for span in spans if span.wire.kind == span.wire.SPAN_KIND_SERVER and wanted(span)]
        roots.sort(key=lambda span: span.times)
        return [Trace(root, list(_below(spans, root))) for root in roots]

    def wait_for(self, count: int, wanted: Callable[[Span], bool] = lambda _: True) -> list[Trace]:
        """The traces that are like that, once there are so many."""
        wait_until(lambda: len(self.traces(wanted)) >= count, WAIT_SECONDS)
        return self.traces(wanted)

    def wait_for_request(self, request_id: str) -> Trace:
        """The trace of the request with this id."""
        (trace,) = self.wait_for(1, lambda span: span.request_id == request_id)
        return trace


@contextmanager
def receiving() -> Iterator[Receiver]:
    """Serve as a receiver."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            assert self.headers["content-type"] == "application/x-protobuf"
            receiver.keep(gzip.decompress(body) if self.headers.get("content-encoding") == "gzip" else body)
            answer = ExportTraceServiceResponse().SerializeToString()
            self.send_response(200)
            self.send_header("content-type", "application/x-protobuf")
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            """Tests are quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    receiver = Receiver(f"http://127.0.0.1:{server.server_port}/v1/traces")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield receiver
    server.shutdown()
    thread.join()
    server.server_close()


def _below(spans: list[Span], above: Span) -> Iterator[Span]:
    for span in spans:
        if span.wire.parent_span_id == above.wire.span_id:
            yield span
            yield from _below(spans, span)


def _plain(attributes: Any) -> dict[str, Any]:
    return {pair.key: _value(pair) for pair in attributes}


def _value(pair: KeyValue) -> Any:
    return getattr(pair.value, pair.value.WhichOneof("value"))
