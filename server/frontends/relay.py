"""A call between an engine's call and a method: it changes answers, or notes how the call ends."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from server.errors import ConvoyError, Reason
from server.frontends.calls import Call, Later, Peer, StatusCode
from server.tensors import Buffer


class Relay:
    """A unary `frontends.calls.Call` that passes everything on."""

    def __init__(
        self, call: Call, shown: Callable[[bytes], bytes] | None, ended: Callable[[StatusCode], None] | None
    ) -> None:
        """`shown`: what becomes of the answer; `ended`: told of the status, once."""
        self._call = call
        self._shown = shown
        self._ended = ended

    @property
    def deadline(self) -> float:
        return self._call.deadline

    @deadline.setter
    def deadline(self, value: float) -> None:
        self._call.deadline = value

    @property
    def on_cancel(self) -> Callable[[], None] | None:
        return self._call.on_cancel

    @on_cancel.setter
    def on_cancel(self, value: Callable[[], None] | None) -> None:
        self._call.on_cancel = value

    @property
    def metadata(self) -> Mapping[str, str | bytes]:
        return self._call.metadata

    @property
    def protocol(self) -> str:
        return self._call.protocol

    @property
    def peer(self) -> Peer:
        return self._call.peer

    @property
    def authorization(self) -> str:
        return self._call.authorization

    def has_metadata(self, key: str) -> bool:
        return self._call.has_metadata(key)

    def send_initial_metadata(self, metadata: Mapping[str, str | bytes]) -> None:
        self._call.send_initial_metadata(metadata)

    def set_trailing_metadata(self, metadata: Mapping[str, str | bytes]) -> None:
        self._call.set_trailing_metadata(metadata)

    def compress_messages(self, wanted: bool) -> None:
        self._call.compress_messages(wanted)

    def reply(self, message: Buffer) -> ConvoyError | Later | None:
        self._note(StatusCode.OK)
        return self._call.reply(self._shown(bytes(message)) if self._shown else message)

    def send(self, message: bytes) -> None:
        self._call.send(message)

    def finish(self) -> None:
        self._note(StatusCode.OK)
        self._call.finish()

    def fail(self, status: StatusCode, message: str, reason: Reason | None = None) -> None:
        self._note(status)
        self._call.fail(status, message, reason)

    def _note(self, status: StatusCode) -> None:
        ended, self._ended = self._ended, None
        if ended is not None:
            ended(status)
