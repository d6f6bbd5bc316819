"""gRPC's messages in the bytes of a request or an answer: each with a prefix of five bytes (Length-Prefixed-Message of
PROTOCOL-HTTP2.md), and perhaps compressed (compression.md). The rules are those of `wire`.

A limit holds before anything is buffered (declared length) and while it is inflated (decompressed length). Bytes are
copied only to join chunks or to inflate.
"""

from __future__ import annotations

from functools import lru_cache
from struct import Struct

from server.frontends.calls import StatusCode
from server.frontends.compression import ACCEPT_ENCODING, COMPRESSIONS, FASTEST, IDENTITY, Buffer, deflate, inflate
from server.frontends.grpc.wire import WireError

_PREFIX = Struct(">BI")  # Compressed-Flag, Message-Length
_PREFIX_BYTES = _PREFIX.size
_unpack_prefix = _PREFIX.unpack_from


@lru_cache(maxsize=256)
def frame_prefix(length: int, compressed: bool = False) -> bytes:
    """The five bytes before a message of `length` bytes, for those who send prefix and message without joining them."""
    return _PREFIX.pack(compressed, length)


def frame(
    message: Buffer, encoding: bytes = IDENTITY, *, level: int = FASTEST, min_compressed_bytes: int = 1024
) -> bytes:
    """A message with its prefix, compressed if it is long enough to try and becomes shorter."""
    if encoding != IDENTITY and len(message) >= min_compressed_bytes:
        packed = deflate(message, encoding, level)
        if len(packed) < len(message):
            return frame_prefix(len(packed), compressed=True) + packed
    return b"".join((frame_prefix(len(message)), message))


def unary_message(body: Buffer, max_message_bytes: int, encoding: bytes = IDENTITY) -> Buffer:
    """The one message of a unary call's whole request body; a view of `body` unless it was compressed.

    Raises `WireError`: for too many or too few messages UNIMPLEMENTED (statuscodes.md, "cardinality violation").
    """
    available = len(body) - _PREFIX_BYTES
    if available < 0:
        raise _truncated(body) if body else _not_one_message("none")
    compressed, length = _unpack_prefix(body)
    if compressed or length > max_message_bytes:
        _check_prefix(compressed, length, max_message_bytes, encoding)
    if length != available:
        raise _truncated(body) if length > available else _not_one_message("more")
    message = memoryview(body)[_PREFIX_BYTES:]
    return _inflated(message, max_message_bytes, encoding) if compressed else message


class MessageReader:
    """The messages of one direction of one stream, from DATA payloads cut anywhere.

    Messages that arrive whole are views of the data, which must therefore not change while they are in use. Others are
    gathered in one buffer that grows with what has arrived, not with what was declared. After a `WireError` the stream
    is over; whole messages of the same chunk are lost with it.
    """

    __slots__ = ("_encoding", "_max_message_bytes", "_needed", "_partial")

    def __init__(self, max_message_bytes: int, encoding: bytes = IDENTITY) -> None:
        self._max_message_bytes = max_message_bytes
        self._encoding = encoding
        self._partial = bytearray()  # the beginning of a message whose end has not arrived
        self._needed = _PREFIX_BYTES  # at this size, _partial holds the prefix, and then the whole message

    @property
    def held_bytes(self) -> int:
        """How much of a message has come whose end has not."""
        return len(self._partial)

    def feed(self, data: Buffer) -> list[Buffer]:
        """The messages that this data completes, in order."""
        messages: list[Buffer] = []
        view = memoryview(data)
        position = self._complete(view, messages) if self._partial else 0
        end = len(view)
        while end - position >= _PREFIX_BYTES:
            compressed, length = _unpack_prefix(view, position)
            if compressed or length > self._max_message_bytes:
                _check_prefix(compressed, length, self._max_message_bytes, self._encoding)
            start, stop = position + _PREFIX_BYTES, position + _PREFIX_BYTES + length
            if stop > end:
                self._needed = stop - position
                break
            messages.append(self._opened(compressed, view[start:stop]))
            position = stop
        if position < end:
            self._partial += view[position:]
        return messages

    def finish(self) -> None:
        """Say that no more will come. Raises `WireError` inside a message."""
        if self._partial:
            raise _truncated(self._partial)

    def _complete(self, view: memoryview, messages: list[Buffer]) -> int:
        """Add to the message that has begun, if need be first to its prefix. Returns how much of `view` it took."""
        position = 0
        while (missing := self._needed - len(self._partial)) <= len(view) - position:
            self._partial += view[position : position + missing]
            position += missing
            compressed, length = _unpack_prefix(self._partial)
            if len(self._partial) == _PREFIX_BYTES:
                _check_prefix(compressed, length, self._max_message_bytes, self._encoding)
                self._needed += length
            if len(self._partial) == self._needed:
                whole, self._partial, self._needed = self._partial, bytearray(), _PREFIX_BYTES
                messages.append(self._opened(compressed, memoryview(whole)[_PREFIX_BYTES:].toreadonly()))
                return position
        self._partial += view[position:]
        return len(view)

    def _opened(self, compressed: int, message: memoryview) -> Buffer:
        return _inflated(message, self._max_message_bytes, self._encoding) if compressed else message


def _check_prefix(compressed: int, length: int, max_message_bytes: int, encoding: bytes) -> None:
    if compressed > 1:
        raise WireError(StatusCode.INTERNAL, f"Bad GRPC frame type 0x{compressed:02x}")
    if length > max_message_bytes:
        raise WireError(
            StatusCode.RESOURCE_EXHAUSTED, f"Received message larger than max ({length} vs. {max_message_bytes})"
        )
    if compressed and encoding == IDENTITY:
        raise WireError(StatusCode.INTERNAL, "Compression bit set but no encoding configured")
    if compressed and encoding not in COMPRESSIONS:
        raise WireError(
            StatusCode.UNIMPLEMENTED,
            f"grpc-encoding {encoding.decode('latin-1')!r} is not supported; supported are {ACCEPT_ENCODING.decode()}",
        )


def _inflated(message: memoryview, max_message_bytes: int, encoding: bytes) -> bytes:
    try:
        inflated = inflate(message, encoding, max_message_bytes)
    except ValueError as error:
        raise WireError(StatusCode.INTERNAL, f"Decompression failed due to {error}") from error
    if inflated is None:
        raise WireError(
            StatusCode.RESOURCE_EXHAUSTED, f"Decompressed message larger than max ({max_message_bytes} bytes)"
        )
    return inflated


def _truncated(partial: Buffer | bytearray) -> WireError:
    return WireError(StatusCode.INTERNAL, f"The stream ended {len(partial)} bytes into a message and its prefix")


def _not_one_message(count: str) -> WireError:
    return WireError(StatusCode.UNIMPLEMENTED, f"A unary call takes exactly one message; the caller sent {count}")
