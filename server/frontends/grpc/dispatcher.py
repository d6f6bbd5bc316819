"""What all connections of the nghttp2 engine share: methods by header block, memory, and who has something to send."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from server.errors import Reason
from server.frontends.call_counts import CallCounts
from server.frontends.calls import MethodTable, StatusCode, UnaryMethod
from server.frontends.compression import FASTEST
from server.frontends.grpc import http2, wire
from server.frontends.grpc.http2_calls import InBackground, StreamRoute, UnaryRoute
from server.frontends.grpc.wire import Refusal
from server.frontends.statuses import AS_TRITON, Failures
from server.memory_budget import MemoryBudget

REMEMBERED_HEADS = 1024
REMEMBERED_HEAD_BYTES = 1024
"""A larger one is looked at each time: what strangers make us remember must be little."""

Route = UnaryRoute | StreamRoute | Refusal


class Flushed(Protocol):
    """A connection that has something to send."""

    def flush(self) -> None: ...


class Dispatcher:
    """What all connections share: methods, remembered headers, and which connections have something to send."""

    def __init__(
        self,
        methods: MethodTable,
        call_soon: Callable[[Callable[[], None]], object],
        *,
        max_message_bytes: int,
        limits: http2.Limits,
        memory: MemoryBudget | None = None,
        failures: Failures = AS_TRITON,
        deflate_level: int = FASTEST,
        in_background: InBackground = lambda work, then: then(work()),
    ) -> None:
        self.methods = methods
        self.calls = CallCounts(methods)
        self.received_bytes = 0
        """By all connections, as HTTP/2 has them."""
        self.sent_bytes = 0
        self.max_message_bytes = max_message_bytes
        self.limits = limits
        self.memory = memory or MemoryBudget()
        self.failures = failures
        self.deflate_level = deflate_level
        self.in_background = in_background
        self.context = http2.Http2Context()
        self._context_bytes = 0  # of the memory budget's: what the context held when it was last looked at
        self._call_soon = call_soon
        self.routes: dict[bytes, Route] = {}
        """Those that are remembered: see `route`."""
        self._dirty: list[Flushed] = []

    def look_at_memory(self) -> None:
        """Let the memory budget know what the connections hold by now, and them what others do."""
        held, memory = self.context.held_bytes, self.memory
        memory.used += held - self._context_bytes
        self._context_bytes = held

    def tell_of_memory(self) -> None:
        """Let the connections know what others hold by now."""
        self.context.hold_elsewhere(self.memory.used - self._context_bytes)

    def route(self, packed: bytes) -> Route:
        """What to do with a request that begins with this header block."""
        route = self.routes.get(packed)
        if route is None:
            route = self._new_route(packed)
            if len(packed) > REMEMBERED_HEAD_BYTES:
                return route
            if len(self.routes) >= REMEMBERED_HEADS:
                self.routes.clear()
            self.routes[packed] = route
        return route

    def count_refused(self, packed: bytes, status: StatusCode, reason: Reason) -> None:
        """A request that begins with this header block, b"" for one too large, is answered without becoming a call."""
        route = self.route(packed) if packed else None
        if route is None or isinstance(route, Refusal):
            self.calls.refused(status)
            return
        self.calls.refused(status, route.counts)
        if isinstance(route, UnaryRoute) and route.method.account is not None:
            route.method.account.turn_away(reason)

    def flush_soon(self, connection: Flushed) -> None:
        """Send what this connection has to send when the current callback is done."""
        if not self._dirty:
            self._call_soon(self._flush)
        self._dirty.append(connection)

    def _flush(self) -> None:
        dirty, self._dirty = self._dirty, []
        for connection in dirty:
            connection.flush()
        self.look_at_memory()

    def _new_route(self, packed: bytes) -> Route:
        head = wire.check_request_headers(http2.unpack_headers(packed))
        if isinstance(head, Refusal):
            return head
        method = self.methods.get(head.path)
        if method is None:
            return Refusal(StatusCode.UNIMPLEMENTED, "Method not found!")
        counts = self.calls.of(head.path)
        if isinstance(method, UnaryMethod):
            return UnaryRoute(head, head.timeout, counts, method)
        return StreamRoute(head, head.timeout, counts, method)
