"""Message compression as gRPC defines it: one zlib stream per message, nothing kept between messages.

Names are Content-Coding values as they stand in headers (PROTOCOL-HTTP2.md, "Message-Encoding"). "deflate" is the zlib
format (RFC 1950), as in HTTP, not a bare deflate stream. This file knows no statuses and no framing.
"""

from __future__ import annotations

import zlib
from functools import lru_cache

Buffer = bytes | memoryview

IDENTITY = b"identity"
GZIP = b"gzip"
DEFLATE = b"deflate"

_WINDOW_BITS = {GZIP: 31, DEFLATE: 15}  # zlib's way to choose the container; the window is 32 KiB in both

FASTEST = 1
"""zlib's level: float tensors shrink hardly more at higher ones, which cost several times the CPU."""
INLINE_BYTES = 16 << 10
"""Up to here, something is compressed where it is: the way to a thread and back would take as long."""

COMPRESSIONS = tuple(_WINDOW_BITS)
"""What can be inflated and deflated, in our order of preference."""
ACCEPT_ENCODING = b",".join((IDENTITY, *COMPRESSIONS))
"""The grpc-accept-encoding of this server."""


@lru_cache(maxsize=64)
def negotiate(accept_encoding: bytes) -> bytes:
    """The encoding to answer with, given the caller's grpc-accept-encoding: the best that both sides know."""
    accepted = [name.strip() for name in accept_encoding.split(b",")]
    return next((encoding for encoding in COMPRESSIONS if encoding in accepted), IDENTITY)


def deflate(data: Buffer, encoding: bytes, level: int = FASTEST) -> bytes:
    """Compress with one of `COMPRESSIONS`. `level` is zlib's, 1 to 9."""
    return zlib.compress(data, level, _WINDOW_BITS[encoding])


def inflate(data: Buffer, encoding: bytes, max_bytes: int) -> bytes | None:
    """Decompress with one of `COMPRESSIONS`; None where the result would exceed `max_bytes`.

    A bomb is given up at `max_bytes + 1`, however far it would have gone. As in grpc core, no bytes stand for an empty
    message and a second stream behind the first is an error. Raises `ValueError` with the reason for what is no whole
    stream.
    """
    if not data:
        return b""
    stream = zlib.decompressobj(_WINDOW_BITS[encoding])
    try:
        message = stream.decompress(data, max_bytes + 1)
    except zlib.error as error:
        raise ValueError("data error") from error
    if len(message) > max_bytes:
        return None
    if not stream.eof:
        raise ValueError("truncated data")
    if stream.unused_data:
        raise ValueError("not all input consumed")
    return message
