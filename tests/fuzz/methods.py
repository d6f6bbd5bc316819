"""Methods without a model behind them, for tests and fuzzers of the transport: an echo and a parrot."""

from __future__ import annotations

from dataclasses import dataclass

from server.frontends.calls import Call, Method, StreamMethod, UnaryMethod
from server.tensors import Buffer

ECHO = "/test.Echo/Unary"
PARROT = "/test.Echo/Stream"


@dataclass
class Parrot:
    """Answers each message with itself, and ends when the caller does."""

    call: Call

    def message(self, data: Buffer) -> None:
        self.call.send(bytes(data))

    def half_closed(self) -> None:
        self.call.finish()

    def drain(self) -> None:
        self.call.finish()


def _echo(call: Call, data: Buffer) -> None:
    call.reply(bytes(data))


def methods() -> dict[str, Method]:
    return {ECHO: UnaryMethod(_echo), PARROT: StreamMethod(Parrot)}
