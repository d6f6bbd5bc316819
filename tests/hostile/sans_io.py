"""The nghttp2 engine without sockets: bytes in, answers out, and every call accounted for."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from server.frontends.calls import Call, Method, Receiver, StatusCode, StreamMethod, UnaryMethod
from server.frontends.grpc import http2
from server.frontends.grpc.connection import Connection
from server.frontends.grpc.dispatcher import Dispatcher
from server.tensors import Buffer
from tests.fuzz.methods import ECHO, PARROT
from tests.hostile import frames
from tests.hostile.frames import Frame, Header
from tests.hostile.hpack import Decoder

LATER = "/test.Echo/Later"
"""Answers with the message when the test says so."""
GUARDED = "/test.Echo/Guarded"
"""Echoes, and refuses calls whose message has not come whole before they have said who they are."""

MESSAGE_BYTES = 4096
SMALL = http2.Limits(
    max_concurrent_streams=32, max_frame_size=16384, stream_window=65535, connection_window=1 << 20,
    max_head_bytes=1024, max_idle_frames=100,
    max_body_bytes=MESSAGE_BYTES + 5, max_held_bytes=20_000, max_shared_bytes=30_000,
)  # fmt: skip


@dataclass
class Ledger:
    """What became of the calls that reached a method."""

    opened: int = 0
    ended: int = 0
    cancelled: int = 0
    waiting: list[tuple[Call, bytes]] = field(default_factory=list)

    def methods(self) -> dict[str, Method]:
        return {
            ECHO: UnaryMethod(self._echo),
            LATER: UnaryMethod(self._later),
            GUARDED: UnaryMethod(self._echo, _begin),
            PARROT: StreamMethod(self._open_stream),
        }

    def answer_waiting(self) -> None:
        waiting, self.waiting = self.waiting, []
        for call, message in waiting:
            call.on_cancel = None
            self.ended += 1
            call.reply(message)

    def _watch(self, call: Call) -> None:
        self.opened += 1
        call.on_cancel = self._cancel(call)

    def _cancel(self, call: Call) -> Callable[[], None]:
        def cancel() -> None:
            self.cancelled += 1
            self.waiting = [entry for entry in self.waiting if entry[0] is not call]

        return cancel

    def _echo(self, call: Call, data: Buffer) -> None:
        self.opened += 1
        self.ended += 1
        call.reply(bytes(data))

    def _later(self, call: Call, data: Buffer) -> None:
        self._watch(call)
        self.waiting.append((call, bytes(data)))

    def _open_stream(self, call: Call) -> Receiver:
        self._watch(call)
        return _Parrot(call, self)


def _begin(call: Call) -> None:
    if not call.authorization:
        call.fail(StatusCode.UNAUTHENTICATED, "who are you?")


@dataclass
class _Parrot:
    call: Call
    ledger: Ledger

    def message(self, data: Buffer) -> None:
        self.call.send(bytes(data))

    def half_closed(self) -> None:
        self.ledger.ended += 1
        self.call.on_cancel = None
        self.call.finish()

    def drain(self) -> None:
        """The caller decides when it ends."""


@dataclass
class Answer:
    """What came back on one stream."""

    headers: list[list[Header]] = field(default_factory=list)
    body: bytes = b""
    ended: bool = False
    reset: int | None = None

    @property
    def status(self) -> bytes | None:
        return dict(self.headers[-1]).get(b"grpc-status") if self.headers and self.ended else None


class Server:
    """Connections of one dispatcher, whose loop runs when told."""

    def __init__(self, limits: http2.Limits = SMALL) -> None:
        self.ledger = Ledger()
        self._soon: list[Callable[[], None]] = []
        self.dispatcher = Dispatcher(
            self.ledger.methods(), self._soon.append, max_message_bytes=MESSAGE_BYTES, limits=limits
        )

    def connect(self) -> Line:
        return Line(self)

    def run(self) -> None:
        """What the event loop would do now."""
        while self._soon:
            self._soon.pop(0)()


class Line:
    """One connection, and what it has said."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.sent = b""
        self.hung_up = False
        self.connection = Connection(server.dispatcher, self._write, self._hang_up)
        self.connection.mark_dirty()

    def receive(self, data: bytes) -> None:
        """Take bytes as `listener` would hand them over. Raises `Http2Error`."""
        if self.hung_up or not data:
            return
        self.server.dispatcher.context.input_view[: len(data)] = data
        try:
            self.connection.receive(len(data))
        finally:
            self.server.run()

    def play(self, chunks: Iterable[bytes]) -> dict[int, Answer]:
        """Take chunks one after another; what has been answered then."""
        for chunk in chunks:
            self.receive(chunk)
        return self.answers()

    def close(self) -> None:
        self.connection.closed()
        self.server.run()

    def frames(self) -> list[Frame]:
        return list(frames.parse(self.sent))

    def answers(self) -> dict[int, Answer]:
        decoder = Decoder()
        answers: defaultdict[int, Answer] = defaultdict(Answer)
        for frame in self.frames():
            if frame.type in (frames.DATA, frames.HEADERS):
                answer = answers[frame.stream_id]
                assert not answer.ended and answer.reset is None, "frames after the end of a stream"
                answer.ended = bool(frame.flags & frames.END_STREAM)
                if frame.type == frames.DATA:
                    answer.body += frame.payload
                else:
                    answer.headers.append(decoder.decode(frame.payload))
            elif frame.type == frames.RST_STREAM:
                answers[frame.stream_id].reset = frame.error_code
        return dict(answers)

    def _write(self, data: bytes) -> None:
        assert not self.hung_up or not data, "written after the end"
        self.sent += data

    def _hang_up(self) -> None:
        self.hung_up = True
