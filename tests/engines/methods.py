"""Methods for tests: one that echoes, and ones that let the test answer and tell it what they hear."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any

import grpc

from server.frontends.calls import Call, MethodTable, StatusCode, StreamMethod, UnaryMethod
from server.tensors import Buffer
from tests.engines.hosting import PATIENCE_SECONDS, Host

ECHO = "/test.Calls/Echo"
ECHO_STREAM = "/test.Calls/EchoStream"
HELD = "/test.Calls/Held"
STREAM = "/test.Calls/Stream"
METHOD = "/test.Calls/Method"


def failure_of(call: Any) -> tuple[grpc.StatusCode, str]:
    """Status and message of a unary call when it has ended."""
    return call.code(), call.details()


def end_of(answers: Any) -> tuple[grpc.StatusCode, str]:
    """Status and message of a stream when all its answers are read: they are not known before."""
    with suppress(grpc.RpcError):
        deque(answers, maxlen=0)
    return answers.code(), answers.details()


def unary(handle: Callable[[Call], object]) -> MethodTable:
    """A table whose METHOD does this with every call, beside those that echo."""
    return {METHOD: UnaryMethod(lambda call, message: handle(call) and None)} | echoes()


def streaming(handle: Callable[[Call], object]) -> MethodTable:
    """A table whose METHOD does this with every message of its streams, beside those that echo."""
    return {METHOD: StreamMethod(lambda call: _OnMessage(call, handle))} | echoes()


def echoes() -> MethodTable:
    return {
        ECHO: UnaryMethod(lambda call, message: call.reply(bytes(message))),
        ECHO_STREAM: StreamMethod(EchoStream),
    }


class EchoStream:
    """Answers each message with itself, and ends when its caller does."""

    def __init__(self, call: Call) -> None:
        self._call = call

    def message(self, data: Buffer) -> None:
        self._call.send(bytes(data))

    def half_closed(self) -> None:
        self._call.finish()

    def drain(self) -> None:
        """It ends when its caller does."""


class _OnMessage(EchoStream):
    def __init__(self, call: Call, handle: Callable[[Call], object]) -> None:
        super().__init__(call)
        self._handle = handle

    def message(self, data: Buffer) -> None:
        self._handle(self._call)


@dataclass
class HeldCall:
    """A call that the test answers. What the method hears about it comes out of `heard`."""

    call: Call
    host: Host
    opened_at: float = field(default_factory=time.monotonic)
    heard: SimpleQueue[tuple[str, bytes]] = field(default_factory=SimpleQueue)

    def next_heard(self) -> tuple[str, bytes]:
        return self.heard.get(timeout=PATIENCE_SECONDS)

    def reply(self, message: bytes) -> None:
        self.host.do(self.call.reply, message)

    def send(self, message: bytes) -> None:
        self.host.do(self.call.send, message)

    def finish(self) -> None:
        self.host.do(self.call.finish)

    def fail(self, status: StatusCode, message: str) -> None:
        self.host.do(self.call.fail, status, message)

    # --- what the engine calls ---

    def message(self, data: Buffer) -> None:
        self.heard.put(("message", bytes(data)))

    def half_closed(self) -> None:
        self.heard.put(("half-closed", b""))

    def drain(self) -> None:
        self.heard.put(("drain", b""))

    def cancelled(self) -> None:
        self.heard.put(("cancelled", b""))


class Held:
    """HELD and STREAM: their calls come out of `next_call`."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._calls: SimpleQueue[HeldCall] = SimpleQueue()

    @property
    def methods(self) -> MethodTable:
        return {HELD: UnaryMethod(self._handle), STREAM: StreamMethod(self._open)} | echoes()

    def next_call(self) -> HeldCall:
        return self._calls.get(timeout=PATIENCE_SECONDS)

    def _handle(self, call: Call, message: Buffer) -> None:
        self._open(call).message(message)

    def _open(self, call: Call) -> HeldCall:
        held = HeldCall(call, self._host)
        call.on_cancel = held.cancelled
        self._calls.put(held)
        return held
