"""`grpc.testing.TestService` as a method table: the server side of gRPC's published interop cases, on any engine.

It does not look at `expect_compressed`: no engine tells its methods how a message travelled.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from typing import Any

from server.frontends.calls import Call, MethodTable, StatusCode, StreamMethod, UnaryMethod
from server.tensors import Buffer
from tests.engines import interop_messages as messages

SERVICE = "/grpc.testing.TestService"
ECHO_INITIAL = "x-grpc-test-echo-initial"
ECHO_TRAILING = "x-grpc-test-echo-trailing-bin"


def interop_methods() -> MethodTable:
    """All of the service but UnimplementedCall."""
    return {
        f"{SERVICE}/EmptyCall": UnaryMethod(_empty_call),
        f"{SERVICE}/UnaryCall": UnaryMethod(_unary_call),
        f"{SERVICE}/CacheableUnaryCall": UnaryMethod(_unary_call),
        f"{SERVICE}/StreamingInputCall": StreamMethod(_StreamingInput),
        f"{SERVICE}/StreamingOutputCall": StreamMethod(_Output),
        f"{SERVICE}/FullDuplexCall": StreamMethod(_Output),
        f"{SERVICE}/HalfDuplexCall": StreamMethod(_HalfDuplex),
    }


def _empty_call(call: Call, message: Buffer) -> None:
    messages.Empty.FromString(bytes(message))
    call.reply(messages.Empty().SerializeToString())


def _unary_call(call: Call, message: Buffer) -> None:
    request = messages.SimpleRequest.FromString(bytes(message))
    _echo_metadata(call)
    if request.response_status.code:
        _fail(call, request.response_status)
        return
    if request.response_compressed.value:
        call.compress_messages(True)
    call.reply(messages.SimpleResponse(payload=_payload(request.response_size)).SerializeToString())


class _StreamingInput:
    """Adds up what it is sent."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._size = 0

    def message(self, data: Buffer) -> None:
        self._size += len(messages.StreamingInputCallRequest.FromString(bytes(data)).payload.body)

    def half_closed(self) -> None:
        answer = messages.StreamingInputCallResponse(aggregated_payload_size=self._size)
        self._call.reply(answer.SerializeToString())

    def drain(self) -> None:
        """It ends when its caller does."""


class _Output:
    """Answers with payloads of the sizes that were asked for, as they are asked for, one after another."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._due: deque[Any] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._ended = False
        call.on_cancel = self._stop
        _echo_metadata(call)

    def message(self, data: Buffer) -> None:
        request = messages.StreamingOutputCallRequest.FromString(bytes(data))
        if request.response_status.code:
            _fail(self._call, request.response_status)
            return
        if any(parameters.compressed.value for parameters in request.response_parameters):
            self._call.compress_messages(True)
        self._due.extend(request.response_parameters)
        if self._timer is None:
            self._go_on()

    def half_closed(self) -> None:
        self._ended = True
        if self._timer is None:
            self._go_on()

    def drain(self) -> None:
        """It ends when its caller does."""

    def _go_on(self) -> None:
        """Send what is due, up to the first that is to wait."""
        while self._due:
            if interval := self._due[0].interval_us:
                self._timer = asyncio.get_running_loop().call_later(interval / 1e6, self._send_late)
                return
            self._send()
        if self._ended:
            self._call.finish()

    def _send_late(self) -> None:
        self._timer = None
        self._send()
        self._go_on()

    def _send(self) -> None:
        parameters = self._due.popleft()
        if parameters.HasField("compressed"):
            self._call.compress_messages(parameters.compressed.value)
        answer = messages.StreamingOutputCallResponse(payload=_payload(parameters.size))
        self._call.send(answer.SerializeToString())

    def _stop(self) -> None:
        if self._timer:
            self._timer.cancel()


class _HalfDuplex(_Output):
    """Answers when it has heard everything."""

    def __init__(self, call: Call) -> None:
        super().__init__(call)
        self._requests: list[Buffer] = []

    def message(self, data: Buffer) -> None:
        self._requests.append(bytes(data))

    def half_closed(self) -> None:
        for request in self._requests:
            super().message(request)
        super().half_closed()


def _payload(size: int) -> Any:
    return messages.Payload(body=bytes(size))


def _echo_metadata(call: Call) -> None:
    metadata: Mapping[str, str | bytes] = call.metadata
    if ECHO_INITIAL in metadata:
        call.send_initial_metadata({ECHO_INITIAL: metadata[ECHO_INITIAL]})
    if ECHO_TRAILING in metadata:
        call.set_trailing_metadata({ECHO_TRAILING: metadata[ECHO_TRAILING]})


def _fail(call: Call, status: Any) -> None:
    call.fail(StatusCode(status.code), status.message)
