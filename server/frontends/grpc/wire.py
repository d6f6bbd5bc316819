"""gRPC over HTTP/2, without HTTP/2 and without I/O: what headers mean. `framing` has the messages.

Rules of this file:
- Pure: no sockets, clock, logs, metrics or event loop. Header pairs in, values out, and back.
- Every rule comes from grpc/doc: PROTOCOL-HTTP2.md (requests, responses, the mapping of RST_STREAM), statuscodes.md and
  http-grpc-status-mapping.md. Where they leave room we answer as grpc core does, in its words, so that both engines
  tell a caller the same.
- What a peer did wrong is a `WireError`, or a `Refusal` where no call has begun. Its text may go to that peer.
- Metadata is decoded only if somebody asks for it.
- Headers are (name, value) pairs of bytes in HPACK's order, names in lower case, already accepted by the HTTP/2 library
  as legal HTTP. Of a field that may stand once, the last one counts, as in grpc core.
"""

from __future__ import annotations

import math
import re
from binascii import a2b_base64, b2a_base64
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import quote, unquote_to_bytes

from server.frontends.calls import StatusCode
from server.frontends.compression import ACCEPT_ENCODING, IDENTITY

Header = tuple[bytes, bytes]

OK_TRAILERS: tuple[Header, ...] = ((b"grpc-status", b"0"),)
RESPONSE_HEADERS: tuple[Header, ...] = ((b":status", b"200"), (b"content-type", b"application/grpc"))
"""What a normal answer begins with; append grpc-encoding where messages may be compressed, and initial metadata."""


class WireError(Exception):
    """The peer broke the protocol or a limit: end its call with this status. Only that stream is harmed."""

    def __init__(self, status: StatusCode, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


# --- Timeouts (grpc-timeout) --------------------------------------------------------------------------------------

_TIMEOUT_NANOSECONDS = {b"n": 1, b"u": 10**3, b"m": 10**6, b"S": 10**9, b"M": 60 * 10**9, b"H": 3600 * 10**9}
_MAX_TIMEOUT_VALUE = 99_999_999


@lru_cache(maxsize=1024)
def parse_timeout(value: bytes) -> float:
    """A grpc-timeout in seconds. Zero is taken, though not promised by the specification: that call is late already."""
    digits, unit = value[:-1], _TIMEOUT_NANOSECONDS.get(value[-1:])
    if unit is None or len(digits) > 8 or not digits.isdigit():
        raise WireError(StatusCode.INTERNAL, "Error parsing 'grpc-timeout' metadata")
    return int(digits) * unit / 1e9


def format_timeout(seconds: float) -> bytes:
    """The shortest timeout that is no shorter than `seconds`, which is finite; for less than a nanosecond, that one."""
    nanoseconds = max(1, math.ceil(seconds * 1e9))
    for unit, size in _TIMEOUT_NANOSECONDS.items():
        value = -(-nanoseconds // size)
        if value <= _MAX_TIMEOUT_VALUE:
            return b"%d%s" % (value, unit)
    return b"%dH" % _MAX_TIMEOUT_VALUE


# --- Statuses (Trailers) ------------------------------------------------------------------------------------------

MAX_STATUS_MESSAGE = 6000
"""Characters; what is over is cut off. It may quote what the caller sent, and clients take some 8 KiB of headers."""

_UNENCODED = "".join(map(chr, range(0x20, 0x7F))).replace("%", "")

_HTTP_STATUSES = {
    400: StatusCode.INTERNAL,
    401: StatusCode.UNAUTHENTICATED,
    403: StatusCode.PERMISSION_DENIED,
    404: StatusCode.UNIMPLEMENTED,
    429: StatusCode.UNAVAILABLE,
    502: StatusCode.UNAVAILABLE,
    503: StatusCode.UNAVAILABLE,
    504: StatusCode.UNAVAILABLE,
}
_HTTP2_ERRORS = {
    7: StatusCode.UNAVAILABLE,  # REFUSED_STREAM
    8: StatusCode.CANCELLED,  # CANCEL
    11: StatusCode.RESOURCE_EXHAUSTED,  # ENHANCE_YOUR_CALM
    12: StatusCode.PERMISSION_DENIED,  # INADEQUATE_SECURITY
}


def encode_status_message(text: str) -> bytes:
    """Text as a grpc-message: percent-encoded UTF-8. Lone surrogates, which UTF-8 cannot say, become "?"."""
    return quote(text, safe=_UNENCODED, errors="replace").encode("ascii")


def decode_status_message(value: bytes) -> str:
    """The text of a grpc-message. Never fails: broken escapes stay as they are, broken UTF-8 becomes U+FFFD."""
    return unquote_to_bytes(value).decode("utf-8", "replace")


def trailers(status: StatusCode, message: str = "", metadata: Iterable[Header] = ()) -> list[Header]:
    """What ends an answer. `metadata` comes from `encode_metadata`."""
    ending = [(b"grpc-status", b"%d" % status)]
    if len(message) > MAX_STATUS_MESSAGE:
        message = message[:MAX_STATUS_MESSAGE] + "..."
    if message:
        ending.append((b"grpc-message", encode_status_message(message)))
    return [*ending, *metadata]


def trailers_only(
    status: StatusCode, message: str, metadata: Iterable[Header] = (), http_status: int = 200
) -> list[Header]:
    """An answer that is an error and nothing else, in one header block.

    It names the encodings that we take, as compression.md asks of a refusal over compression.
    """
    return [
        (b":status", b"%d" % http_status),
        (b"content-type", b"application/grpc"),
        (b"grpc-accept-encoding", ACCEPT_ENCODING),
        *trailers(status, message, metadata),
    ]


def http_status_to_grpc(status: int) -> StatusCode:
    """What an answer without a grpc-status means to a client (http-grpc-status-mapping.md)."""
    return _HTTP_STATUSES.get(status, StatusCode.UNKNOWN)


def http2_error_to_grpc(code: int) -> StatusCode:
    """What RST_STREAM with this error code means to a call. Unknown codes count as INTERNAL_ERROR (RFC 9113, 7)."""
    return _HTTP2_ERRORS.get(code, StatusCode.INTERNAL)


# --- Metadata (Custom-Metadata) -----------------------------------------------------------------------------------

_is_metadata_name = re.compile(rb"[0-9a-z_.-]+").fullmatch
_is_ascii_value = re.compile(rb"[\x20-\x7e]*").fullmatch
_is_field_value = re.compile(rb"[\t\x20-\x7e\x80-\xff]*").fullmatch  # RFC 9110, 5.5
_NOT_METADATA = frozenset((b"te", b"content-type"))  # and pseudo-headers, and all that begin with "grpc-"
_PUSHBACK = b"grpc-retry-pushback-ms"  # but this one is for applications to send (gRPC proposal A6)


def decode_metadata(headers: Iterable[Header]) -> dict[str, str | bytes]:
    """The caller's own headers; under names that end in "-bin" decoded to bytes. Repeated ones are joined by a comma.

    Values that are legal in HTTP but not in gRPC are left out: they must not fail a call, and could not be echoed.
    Raises `WireError` INTERNAL for what is legal in neither, and for broken base64.
    """
    metadata: dict[str, str | bytes] = {}
    for name, value in headers:
        if name.startswith((b":", b"grpc-")) or name in _NOT_METADATA:
            continue
        if not _is_metadata_name(name) or not _is_field_value(value):
            raise _bad_metadata(name, "illegal header")
        key = name.decode("ascii")
        earlier = metadata.get(key)
        if name.endswith(b"-bin"):
            decoded = _decode_binary(name, value)
            metadata[key] = earlier + b"," + decoded if isinstance(earlier, bytes) else decoded
        elif _is_ascii_value(value):
            text = value.strip(b" ").decode("ascii")
            metadata[key] = earlier + "," + text if isinstance(earlier, str) else text
    return metadata


def encode_metadata(metadata: Mapping[str, str | bytes]) -> list[Header]:
    """Headers for metadata. Raises `WireError` INTERNAL for what gRPC cannot carry under that name."""
    headers: list[Header] = []
    for key, value in metadata.items():
        name = key.encode("utf-8", "surrogatepass")
        reserved = name in _NOT_METADATA or (name.startswith(b"grpc-") and name != _PUSHBACK)
        if reserved or not _is_metadata_name(name):
            raise _bad_metadata(name, "illegal or reserved name")
        if isinstance(value, bytes) is not name.endswith(b"-bin"):
            raise _bad_metadata(name, 'bytes need a name that ends in "-bin", and text must not have one')
        if isinstance(value, bytes):
            field = b2a_base64(value, newline=False).rstrip(b"=")
        else:
            field = value.strip(" ").encode("utf-8", "surrogatepass")
        if not _is_ascii_value(field):
            raise _bad_metadata(name, "illegal value")
        headers.append((name, field))
    return headers


def _decode_binary(name: bytes, value: bytes) -> bytes:
    try:
        parts = [part.strip(b" ") for part in value.split(b",")]
        return b",".join(a2b_base64(part + b"=" * (-len(part) % 4), strict_mode=True) for part in parts)
    except ValueError as error:
        raise _bad_metadata(name, "illegal base64 encoding") from error


def _bad_metadata(name: bytes, reason: str) -> WireError:
    return WireError(StatusCode.INTERNAL, f"Error parsing '{name.decode('utf-8', 'replace')}' metadata: {reason}")


# --- Requests (Request-Headers) -----------------------------------------------------------------------------------

_is_grpc_content_type = re.compile(rb"application/grpc(\+proto)?[ \t]*(;.*)?", re.IGNORECASE).fullmatch
_is_path = re.compile(rb"/[!-.0-~]+/[!-.0-~]+").fullmatch


class RequestHead(NamedTuple):
    """A call that may begin."""

    path: str
    timeout: float
    """Seconds from the moment the headers arrived; inf where the caller set none."""
    encoding: bytes
    """What compressed messages of the request are compressed with; possibly unknown to us."""
    accept_encoding: bytes
    """For `compression.negotiate`."""
    headers: Sequence[Header]
    authorization: str
    """"" where the caller sent none."""

    def metadata(self) -> dict[str, str | bytes]:
        """Decoded anew each time: `decode_metadata`."""
        return decode_metadata(self.headers)


class Refusal(NamedTuple):
    """A request that is not a call. Where `http_status` is not 200, it was not even meant for gRPC."""

    status: StatusCode
    message: str
    http_status: int = 200

    def headers(self) -> list[Header]:
        """The whole answer."""
        return trailers_only(self.status, self.message, http_status=self.http_status)


def check_request_headers(headers: Sequence[Header]) -> RequestHead | Refusal:
    """Whether a call may begin with these headers, which must not change as long as the head is in use."""
    field = dict(headers).get
    if field(b":method") != b"POST":
        return Refusal(StatusCode.INTERNAL, "gRPC requests have the method POST", 405)
    content_type = field(b"content-type", b"")
    if content_type != b"application/grpc" and not _is_grpc_content_type(content_type):
        return Refusal(StatusCode.INTERNAL, "gRPC requests have the content-type application/grpc", 415)
    if field(b"te") != b"trailers":
        return Refusal(StatusCode.INTERNAL, 'gRPC requests have the header "te: trailers"')
    timeout = field(b"grpc-timeout")
    try:
        return RequestHead(
            _checked_path(field(b":path", b"")),
            math.inf if timeout is None else parse_timeout(timeout),
            field(b"grpc-encoding", IDENTITY),
            field(b"grpc-accept-encoding", b""),
            headers,
            field(b"authorization", b"").decode("latin-1"),
        )
    except WireError as error:
        return Refusal(error.status, error.message)


@lru_cache(maxsize=256)
def _checked_path(path: bytes) -> str:
    if not _is_path(path):
        raise WireError(StatusCode.UNIMPLEMENTED, "Method not found!")
    return path.decode("ascii")
