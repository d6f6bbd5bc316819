"""HTTP/2 for one connection, sans I/O: bytes in → events, answers in → bytes out. libnghttp2 through `http2_shim`.

Importing this module raises ImportError where the extension was not built, or of another source than lies beside it;
the server then takes the grpcio engine.
It knows streams and header blocks, not calls: gRPC's meaning of them is in `wire` and `nghttp2_engine`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from struct import Struct
from typing import Any, cast

from server.frontends.grpc._http2 import ffi, lib  # type: ignore[import-not-found, unused-ignore]
from server.frontends.grpc.http2_build import check_built_from, source_digest
from server.memory_budget import SMALL_BYTES
from server.tensors import Buffer

check_built_from(getattr(lib, "H2_SOURCE_DIGEST", None), source_digest())

HEAD = int(lib.H2_HEAD)
BODY = int(lib.H2_BODY)
END = int(lib.H2_END)
TOO_LARGE = int(lib.H2_TOO_LARGE)
CLOSED = int(lib.H2_CLOSED)
NO_ROOM = int(lib.H2_NO_ROOM)

SHORT = int(lib.H2_SHORT)

NO_ERROR = 0
INTERNAL_ERROR = 2
CANCEL = 8
ENHANCE_YOUR_CALM = 11

_EVENT = Struct("=iIIIIIQQ")
assert _EVENT.size == ffi.sizeof("h2_event")
_LENGTHS = Struct("=II")

INPUT_BYTES = 256 << 10
SHORT_INPUT_BYTES = 16 << 10
"""Read at first from a peer whose frames are large, since what is read here is copied."""
OUTPUT_BYTES = 256 << 10
ADOPTED_BYTES = 64 << 10
"""A body of this size on the heap is used where it lies; a smaller one costs less to copy than to look after."""

LENT_BYTES = 1 << 20
"""An answer of this size is sent from where it lies; a smaller one is copied."""

Header = tuple[bytes, bytes]


@dataclass(frozen=True, slots=True)
class Limits:
    """What one peer may ask of a connection."""

    max_concurrent_streams: int = 1024
    max_frame_size: int = 1 << 20
    stream_window: int = 16 << 20
    connection_window: int = 64 << 20
    max_head_bytes: int = 16 << 10
    max_idle_frames: int = 10_000
    """Frames in a row, PING aside, that ask for nothing: a flood."""
    max_body_bytes: int = 128 << 20
    max_held_bytes: int = 1 << 30
    """Requests that have not arrived whole, as long as they say they will be, and answers that have not been sent."""
    max_shared_bytes: int = 4 << 30
    """The same of all connections of a context, and what its `hold_elsewhere` was told."""
    small_bytes: int = SMALL_BYTES
    """Answers up to this size go out whatever the context holds."""


Event = tuple[int, int, bytes, Buffer]
"""What happened to one stream: its number; HEAD, BODY, END, TOO_LARGE, CLOSED, NO_ROOM, or'ed; its packed header block,
for `unpack_headers`, b"" without HEAD; its body, b"" without BODY, which stays valid as long as it is referenced.

A plain tuple, as there is one for each request: to make one with names costs as much as seven of these."""


class Http2Error(Exception):
    """The peer broke the protocol beyond repair, or memory is short: close the connection once `output` is sent."""


def unpack_headers(packed: bytes) -> list[Header]:
    """A header block as (name, value) pairs in order."""
    headers: list[Header] = []
    position = 0
    while position < len(packed):
        name_length, value_length = _LENGTHS.unpack_from(packed, position)
        middle = position + _LENGTHS.size + name_length
        headers.append((packed[position + _LENGTHS.size : middle], packed[middle : middle + value_length]))
        position = middle + value_length
    return headers


def pack_headers(headers: Iterable[Header]) -> bytes:
    """The inverse of `unpack_headers`."""
    return b"".join(_LENGTHS.pack(len(name), len(value)) + name + value for name, value in headers)


class HeaderBlock:
    """A header block to send, made once and sent any number of times."""

    __slots__ = ("handle",)

    def __init__(self, headers: Iterable[Header]) -> None:
        self.handle = ffi.gc(_new_block(list(headers)), lib.h2_headers_free)


class Http2Context:
    """Memory that all connections of one thread share."""

    def __init__(self) -> None:
        self.handle = ffi.gc(lib.h2_context_new(), lib.h2_context_free)
        self._input = bytearray(INPUT_BYTES)
        self.input_view = memoryview(self._input)
        """Where sockets read into: the next `Http2Connection.receive` takes its bytes from here."""
        self.input_pointer = ffi.from_buffer("uint8_t[]", self._input)
        self.short_input_view = self.input_view[:SHORT_INPUT_BYTES]
        self.where = ffi.new("uint8_t **")
        self.output = ffi.new("char[]", OUTPUT_BYTES)
        self.output_view = ffi.buffer(self.output)

    @property
    def held_bytes(self) -> int:
        """Bytes of requests that have not arrived whole, and of answers that have not been sent, of all connections."""
        return int(lib.h2_shared_bytes(self.handle))

    def hold_elsewhere(self, length: int) -> None:
        """So many bytes are held beside those: they count to `Limits.max_shared_bytes`, until told otherwise."""
        lib.h2_elsewhere(self.handle, length)


class Http2Connection:
    """One peer."""

    __slots__ = ("_ahead", "_context", "_handle", "_lent", "_sends_large_frames")

    def __init__(self, context: Http2Context, limits: Limits) -> None:
        self._context = context
        self._ahead: Any = None  # where in a body the bytes of the next `receive` are
        self._lent: dict[int, Any] = {}
        """Large answers that are being sent from where they lie, by stream."""
        self._sends_large_frames = False
        handle = lib.h2_connection_new(
            context.handle,
            ffi.new(
                "h2_limits *",
                (
                    limits.max_concurrent_streams,
                    limits.max_frame_size,
                    limits.stream_window,
                    limits.connection_window,
                    limits.max_head_bytes,
                    limits.max_idle_frames,
                    limits.max_body_bytes,
                    limits.max_held_bytes,
                    limits.max_shared_bytes,
                    limits.small_bytes,
                ),
            ),
        )
        if handle == ffi.NULL:
            raise MemoryError("no memory for an HTTP/2 connection")
        self._handle: Any = ffi.gc(handle, lib.h2_connection_free)

    def close(self) -> None:
        """Release everything. Whatever is called afterwards raises TypeError."""
        handle, self._handle = self._handle, None
        if handle is not None:
            ffi.release(handle)
        self._lent.clear()

    def read_buffer(self) -> memoryview:
        """Where the peer's next bytes should be read to: the context's input, or the very body that they belong to.

        The next call on this connection must be `receive`.
        """
        context = self._context
        room = lib.h2_read_ahead(self._handle, context.where)
        if room:
            self._ahead = context.where[0]
            self._sends_large_frames = True
            return memoryview(ffi.buffer(self._ahead, min(room, INPUT_BYTES)))
        if self._sends_large_frames:
            self._sends_large_frames = False
            return context.short_input_view  # the next frame's head; the rest of it is read to where it belongs
        return context.input_view

    def receive(self, length: int) -> list[Event]:
        """Take `length` bytes from where `read_buffer` said, or from the context's input. Raises `Http2Error`."""
        context = self._context
        ahead, self._ahead = self._ahead, None
        count = lib.h2_receive(self._handle, ahead or context.input_pointer, length)
        if count < 0:
            self._release_bodies()
            raise Http2Error(ffi.string(lib.h2_error_text(count)).decode())
        if not count:
            return []
        packed = ffi.buffer(lib.h2_events(context.handle), count * _EVENT.size)
        heads = ffi.buffer(lib.h2_heads(context.handle), lib.h2_heads_length(context.handle))[:]
        received: memoryview | None = None
        head, at = b"", -1
        events: list[Event] = []
        for stream_id, flags, _, head_start, head_length, body_start, body_length, address in _EVENT.iter_unpack(
            packed
        ):
            if not head_length:
                head, at = b"", -1
            elif head_start != at:  # else it is the same bytes, and the same object: its hash is known
                head, at = heads[head_start : head_start + head_length], head_start
            body: Buffer = b""
            if address:
                body = _adopt(address, body_length)
            elif flags & BODY:
                if received is None:
                    received = memoryview(bytes(context.input_view[:length]))  # the input is about to be overwritten
                body = received[body_start : body_start + body_length]
            events.append((stream_id, flags, head, body))
        return events

    def unwritten(self) -> tuple[int, int]:
        """Address and length of what was reserved for the large body that is being received, and not written to yet;
        length 0 where there is none, or it was asked for before."""
        where = self._context.where
        length = lib.h2_unwritten(self._handle, where)
        return int(ffi.cast("uintptr_t", where[0])), length

    def stream_body(self, stream_id: int) -> Buffer:
        """Hand this stream's body over as it comes from now on; returns what has come. See `consume`."""
        body = ffi.new("void **")
        length = lib.h2_stream_body(self._handle, stream_id, body)
        return _adopt(int(ffi.cast("uintptr_t", body[0])), length) if length > 0 else b""

    def consume(self, stream_id: int) -> None:
        """The streamed body that was handed over has been dealt with: the peer may send as much again."""
        lib.h2_consume(self._handle, stream_id)

    def keep(self, stream_id: int, length: int) -> bool:
        """Count so many bytes of a streamed body as held. False, and nothing done, where that is too much."""
        return not lib.h2_keep(self._handle, stream_id, length)

    def answer(self, stream_id: int, head: HeaderBlock, prefix: bytes, body: Buffer, trailers: HeaderBlock) -> int:
        """A whole answer of one message, which must not change. Returns 0; SHORT where all connections together hold
        too much for it, another number where this one does, or the stream is gone."""
        length = len(body)
        if length >= LENT_BYTES:
            contents = ffi.from_buffer(body)
            problem: int = lib.h2_lend(self._handle, stream_id, contents, length)
            if problem:
                return problem
            self._lent[stream_id] = contents
            body, length = b"", 0
        result: int = lib.h2_answer(
            self._handle, stream_id, head.handle, prefix, len(prefix), body, length, trailers.handle, 0
        )
        return result

    def begin(self, stream_id: int, head: Iterable[Header]) -> None:
        """Open an answer whose messages and trailers follow."""
        lib.h2_answer(self._handle, stream_id, HeaderBlock(head).handle, b"", 0, b"", 0, ffi.NULL, 0)

    def message(self, stream_id: int, prefix: bytes, body: bytes) -> bool:
        """Add a message to an answer that was begun. False where `answer` returns anything but 0."""
        return not lib.h2_answer(self._handle, stream_id, ffi.NULL, prefix, len(prefix), body, len(body), ffi.NULL, 0)

    def end(self, stream_id: int, trailers: Iterable[Header]) -> None:
        """End an answer that was begun."""
        lib.h2_answer(self._handle, stream_id, ffi.NULL, b"", 0, b"", 0, _new_block(list(trailers)), 1)

    def headers_only(self, stream_id: int, head: Iterable[Header], trailers: Iterable[Header] = ()) -> None:
        """An answer that is one header block and nothing else."""
        lib.h2_answer(self._handle, stream_id, HeaderBlock(head).handle, b"", 0, b"", 0, _new_block(list(trailers)), 1)

    def reset(self, stream_id: int, error_code: int) -> None:
        """Break a stream off."""
        lib.h2_reset(self._handle, stream_id, error_code)

    def output(self) -> bytes:
        """What should be sent now, up to OUTPUT_BYTES; b"" where nothing is due. Raises `Http2Error`.

        `broken_streams` must be asked afterwards.
        """
        length = lib.h2_send(self._handle, self._context.output, OUTPUT_BYTES)
        if length < 0:
            raise Http2Error(ffi.string(lib.h2_error_text(length)).decode())
        return cast("bytes", self._context.output_view[:length]) if length else b""

    def take_back(self) -> None:
        """Let large answers go that have been sent. To be called after `output`."""
        for stream_id in [lent for lent in self._lent if not lib.h2_unsent_bytes(self._handle, lent)]:
            del self._lent[stream_id]

    @property
    def lends(self) -> bool:
        return bool(self._lent)

    def broken_streams(self) -> list[int]:
        """Streams that the last `output` broke off because their peer had broken the protocol."""
        count = lib.h2_event_count(self._context.handle)
        if not count:
            return []
        events = lib.h2_events(self._context.handle)
        return [events[index].stream_id for index in range(count)]

    def ping(self) -> None:
        lib.h2_ping(self._handle)

    def goaway(self, *, final: bool, error_code: int = NO_ERROR, debug: bytes = b"") -> None:
        """Announce the end, with a word for the peer's log; once final, new streams are refused."""
        lib.h2_goaway(self._handle, final, error_code, debug, len(debug))

    @property
    def due(self) -> bool:
        """Whether `output` has something to say, or the connection has ended."""
        return bool(lib.h2_due(self._handle))

    @property
    def alive(self) -> bool:
        """Whether the protocol has anything left to do; if not, the socket can be closed."""
        return bool(lib.h2_alive(self._handle))

    @property
    def pings(self) -> int:
        """PING frames that the peer has sent."""
        return int(lib.h2_pings(self._handle))

    @property
    def answer_frames(self) -> int:
        """Frames with headers or data that were sent, modulo 2³²."""
        return int(lib.h2_answer_frames(self._handle))

    @property
    def open_streams(self) -> int:
        return int(lib.h2_open_streams(self._handle))

    @property
    def held_bytes(self) -> int:
        """Bytes of requests that have not arrived whole, and of answers that have not been sent."""
        return int(lib.h2_held_bytes(self._handle))

    def unsent_bytes(self, stream_id: int) -> int:
        """Bytes of an answer that wait for the peer to make room."""
        return int(lib.h2_unsent_bytes(self._handle, stream_id))

    def _release_bodies(self) -> None:
        """Free what the events of a failed `receive` own: nobody will look at them."""
        events = lib.h2_events(self._context.handle)
        for index in range(lib.h2_event_count(self._context.handle)):
            lib.h2_free(events[index].body)


def _new_block(headers: list[Header]) -> Any:
    packed = pack_headers(headers)
    block = lib.h2_headers_new(packed, len(packed), len(headers))
    if block == ffi.NULL:
        raise MemoryError("no memory for a header block")
    return block


def _adopt(address: int, length: int) -> Buffer:
    pointer = ffi.cast("char *", address)
    if length < ADOPTED_BYTES:
        copy: bytes = ffi.buffer(pointer, length)[:]
        lib.h2_free(pointer)
        return copy
    return memoryview(ffi.buffer(ffi.gc(pointer, lib.h2_free, length), length)).toreadonly()
