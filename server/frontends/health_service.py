"""`grpc.health.v1.Health`: Check and Watch, for the server ("" or the inference service's name) and for each model."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from google.protobuf.message import DecodeError

from proto.grpc_health.v1 import health_pb2
from server.frontends.calls import Call, Method, StatusCode, StreamMethod, UnaryMethod
from server.models.registry import Registry
from server.tensors import Buffer

SERVICE = "grpc.health.v1.Health"

Status: TypeAlias = "health_pb2.HealthCheckResponse.ServingStatus.ValueType"
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


class HealthService:
    """Answers from `is_ready` for the server and from the registry for models, until the server `is_exiting`."""

    def __init__(
        self,
        is_ready: Callable[[], bool],
        is_exiting: Callable[[], bool],
        registry: Registry,
        server_names: tuple[str, ...],
    ) -> None:
        self._is_ready = is_ready
        self._is_exiting = is_exiting
        self._registry = registry
        self._server_names = ("", *server_names)

    def methods(self) -> dict[str, Method]:
        """The method table, by full path."""
        return {f"/{SERVICE}/Check": UnaryMethod(self._check), f"/{SERVICE}/Watch": StreamMethod(self._watch)}

    def status(self, service: str) -> Status:
        """The state of a service, SERVICE_UNKNOWN where there is none of that name."""
        if service in self._server_names:
            return SERVING if self._is_ready() else NOT_SERVING
        if self._registry.has(service):
            return SERVING if self._registry.entry(service).latest and not self._is_exiting() else NOT_SERVING
        return SERVICE_UNKNOWN

    def _check(self, call: Call, message: Buffer) -> None:
        service = _service_name(call, message)
        if service is None:
            return
        status = self.status(service)
        if status == SERVICE_UNKNOWN:
            call.fail(StatusCode.NOT_FOUND, f"no service or model '{service}' is known here")
        else:
            call.reply(health_pb2.HealthCheckResponse(status=status).SerializeToString())

    def _watch(self, call: Call) -> _Watch:
        return _Watch(call, self.status, self._registry.subscribe)


class _Watch:
    """One Watch call: sends the state at once, and again whenever it has changed."""

    def __init__(
        self, call: Call, status: Callable[[str], Status], subscribe: Callable[[Callable[[], None]], Callable[[], None]]
    ) -> None:
        self._call = call
        self._status = status
        self._subscribe = subscribe
        self._unsubscribe: Callable[[], None] | None = None
        self._service = ""
        self._sent: Status | None = None
        call.on_cancel = self._stop

    def message(self, data: Buffer) -> None:
        if self._unsubscribe:
            return  # Watch takes one request
        service = _service_name(self._call, data)
        if service is None:
            return
        self._service = service
        self._unsubscribe = self._subscribe(self._update)
        self._update()

    def half_closed(self) -> None:
        if self._unsubscribe is None:
            self._call.fail(StatusCode.INVALID_ARGUMENT, "Watch takes one HealthCheckRequest, and none came")

    def drain(self) -> None:
        if self._unsubscribe:
            self._update()
        self._stop()
        self._call.finish()

    def _update(self) -> None:
        status = self._status(self._service)
        if status != self._sent:
            self._sent = status
            self._call.send(health_pb2.HealthCheckResponse(status=status).SerializeToString())

    def _stop(self) -> None:
        if self._unsubscribe:
            self._unsubscribe()
            self._unsubscribe = None


def _service_name(call: Call, message: Buffer) -> str | None:
    """The service asked for; None where the message is broken, and the call has failed then."""
    try:
        return health_pb2.HealthCheckRequest.FromString(bytes(message)).service
    except DecodeError as error:
        call.fail(StatusCode.INVALID_ARGUMENT, f"the message is not a HealthCheckRequest: {error}")
        return None
