"""Message compression as gRPC defines it: one zlib stream per message, nothing kept between messages.

Names are Content-Coding values as they stand in headers (PROTOCOL-HTTP2.md, "Message-Encoding"). "deflate" is the zlib
format (RFC 1950), as in HTTP, not a bare deflate stream. This file knows no statuses and no framing.
"""

from __future__ import annotations

import zlib

Buffer = bytes | memoryview

IDENTITY = b"identity"
GZIP = b"gzip"
DEFLATE = b"deflate"

_WINDOW_BITS = {GZIP: 31, DEFLATE: 15}  # zlib's way to choose the container; the window is 32 KiB in both
_LEVEL = 1  # float tensors shrink hardly more at higher levels, which cost several times the CPU

COMPRESSIONS = tuple(_WINDOW_BITS)
"""What can be inflated and deflated, in our order of preference."""
ACCEPT_ENCODING = b",".join((IDENTITY, *COMPRESSIONS))
"""The grpc-accept-encoding of this server."""


def negotiate(accept_encoding: bytes) -> bytes:
    """The encoding to answer with, given the caller's grpc-accept-encoding: the best that both sides know."""
    accepted = [name.strip() for name in accept_encoding.split(b",")]
    return next((encoding for encoding in COMPRESSIONS if encoding in accepted), IDENTITY)


def deflate(data: Buffer, encoding: bytes) -> bytes:
    """Compress with one of `COMPRESSIONS`."""
    return zlib.compress(data, _LEVEL, _WINDOW_BITS[encoding])


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
