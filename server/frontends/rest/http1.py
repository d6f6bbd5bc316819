"""HTTP/1.1's own rules (RFC 9110, RFC 9112): heads of requests and of answers, and chunked bodies. Pure.

llhttp, the parser of Node.js, reads heads, and is strict: what two readers could take for two different requests is
refused. A head is read once and may be remembered, since most callers send the same one again and again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from urllib.parse import unquote

import httptools

MAX_HEAD_BYTES = 16 << 10
"""Request line and headers together; as Node.js and Tomcat have it."""
MAX_CHUNK_LINE_BYTES = 256
MAX_TINY_CHUNKS = 1024
SMALL_CHUNK_BYTES = 64
"""Chunks smaller than that cost more to take apart than they bring: but for the first ones, they are refused."""
HEAD_END = b"\r\n\r\n"
BODILESS = (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED)
"""Answers without a body say nothing of its length (RFC 9110, 8.6)."""
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

_VERSIONS = ("1.0", "1.1")
_is_field_line = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t\x20-\x7e\x80-\xff]*").fullmatch  # RFC 9112, 5
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n]*)?")


class HttpError(Exception):
    """A request that HTTP itself does not allow, or that is larger than it may be: the connection ends with it."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Head:
    """What stands before a request's body."""

    verb: str
    path: str
    """As it came, without the query."""
    segments: tuple[str, ...]
    """The parts of the path between slashes, each decoded on its own: a name may have a slash in it."""
    query: str
    headers: Mapping[bytes, bytes]
    """By name in small letters; several of one name are joined by commas."""
    keep_alive: bool
    """Whether the caller means to send more on this connection."""
    old: bool
    """HTTP/1.0, where a connection that goes on has to be said."""
    length: int
    """Bytes of the body; 0 where it is chunked."""
    chunked: bool
    expects_continue: bool
    """The caller waits for a word before it sends the body."""

    def header(self, name: bytes) -> str:
        """A header's value, "" where there is none."""
        return self.headers.get(name, b"").decode("latin-1")


class _HeadReader:
    """What llhttp calls."""

    def __init__(self) -> None:
        self.parser = httptools.HttpRequestParser(self)
        self.url = b""
        self.headers: dict[bytes, bytes] = {}
        self.version = ""
        self.keep_alive = False
        self.messages = 0

    def on_message_begin(self) -> None:
        self.messages += 1

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        known = self.headers.get(name)
        self.headers[name] = value if known is None else b"%b,%b" % (known, value)

    def on_headers_complete(self) -> None:
        self.version = self.parser.get_http_version()
        self.keep_alive = self.parser.should_keep_alive()


def read_head(raw: bytes) -> Head:
    """A head, with the empty line that ends it. Raises `HttpError`."""
    reader = _HeadReader()
    try:
        reader.parser.feed_data(raw)
    except httptools.HttpParserUpgrade:
        pass  # to another protocol, which a server may decline (RFC 9110, 7.8)
    except httptools.HttpParserError as error:
        raise HttpError(HTTPStatus.BAD_REQUEST, f"the request is not HTTP/1.1: {error}") from None
    assert reader.messages <= 1, "llhttp and `HEAD_END` agree on where a head ends"
    if reader.version not in _VERSIONS:
        raise HttpError(HTTPStatus.BAD_REQUEST, "the request is not HTTP/1.1")
    headers = reader.headers
    if b"host" not in headers and reader.version == "1.1":
        raise HttpError(HTTPStatus.BAD_REQUEST, "the request has no Host header")
    chunked = b"transfer-encoding" in headers
    if chunked and headers[b"transfer-encoding"].lower() != b"chunked":
        raise HttpError(HTTPStatus.NOT_IMPLEMENTED, "the only transfer encoding here is chunked")
    path, segments, query = _target(reader.url)
    return Head(
        verb=reader.parser.get_method().decode("ascii"),
        path=path,
        segments=segments,
        query=query,
        headers=headers,
        keep_alive=reader.keep_alive,
        old=reader.version == "1.0",
        length=int(headers.get(b"content-length", b"0")),
        chunked=chunked,
        expects_continue=headers.get(b"expect", b"").lower() == b"100-continue",
    )


def _target(url: bytes) -> tuple[str, tuple[str, ...], str]:
    """Path, its segments, and query of a request's target in any of its forms (RFC 9112, 3.2)."""
    try:
        parts = httptools.parse_url(url)
        path = (parts.path or b"/").decode("ascii")
        segments = tuple([unquote(segment, errors="strict") for segment in path.removeprefix("/").split("/")])
        return path, segments, (parts.query or b"").decode("ascii")
    except (httptools.HttpParserInvalidURLError, UnicodeDecodeError):
        if re.fullmatch(rb"[\w.:*\[\]-]+", url):  # an authority, for CONNECT, or the server as a whole, for OPTIONS
            return url.decode(), (url.decode(),), ""
        raise HttpError(HTTPStatus.BAD_REQUEST, "the request's target is not a URL in UTF-8") from None


class ChunkedBody:
    """A chunked body as it arrives (RFC 9112, 7.1). Trailers are read and dropped."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._content = bytearray()
        self._size = 0
        self._chunks = 0
        self._left = 0  # of the chunk that is arriving, its line end included; 0 between chunks
        self._line = b""
        self._in_trailers = False
        self._trailer_bytes = 0
        self.done = False

    @property
    def size(self) -> int:
        """Bytes of the chunks that have been announced so far."""
        return self._size

    @property
    def body(self) -> memoryview:
        """All of it, once it is done."""
        return memoryview(self._content)

    def feed(self, data: memoryview) -> int:
        """Take what has come. Returns how much of it belongs to this body. Raises `HttpError`."""
        position = 0
        while position < len(data) and not self.done:
            if self._left:
                position += self._take(data[position : position + self._left])
                continue
            end = bytes(data[position : position + MAX_CHUNK_LINE_BYTES]).find(b"\n")
            taken = len(data) - position if end < 0 else end + 1
            self._line += bytes(data[position : position + min(taken, MAX_CHUNK_LINE_BYTES)])
            if len(self._line) > MAX_CHUNK_LINE_BYTES or (end < 0 and taken >= MAX_CHUNK_LINE_BYTES):
                raise _bad_chunk("a line is too long")
            position += taken
            if end >= 0:
                line, self._line = self._line, b""
                if not line.endswith(b"\r\n"):
                    raise _bad_chunk("a line does not end in CRLF")
                self._on_line(line[:-2])
        return position

    def _take(self, data: memoryview) -> int:
        content = data[: max(0, self._left - 2)]
        end = bytes(data[len(content) :])
        if end != b"\r\n"[2 - min(self._left, 2) :][: len(end)]:
            raise _bad_chunk("a chunk is longer than its size")
        self._content += content
        self._left -= len(data)
        return len(data)

    def _on_line(self, line: bytes) -> None:
        if self._in_trailers:
            self._trailer_bytes += len(line)
            if self._trailer_bytes > MAX_HEAD_BYTES:
                raise _bad_chunk("its trailers are too long")
            if line and not _is_field_line(line):
                raise _bad_chunk("a trailer is not a field line")
            self.done = not line
            return
        size = _CHUNK_SIZE.fullmatch(line)
        if size is None:
            raise _bad_chunk("a size is not a hexadecimal number")
        length = int(size[1], 16)
        self._size += length
        if self._size > self._max_bytes:
            raise too_large(self._max_bytes)
        self._chunks += 1
        if self._chunks > MAX_TINY_CHUNKS + self._size // SMALL_CHUNK_BYTES:
            raise _bad_chunk(f"its chunks have fewer than {SMALL_CHUNK_BYTES} bytes on average")
        if length:
            self._left = length + 2
        else:
            self._in_trailers = True


def too_large(max_bytes: int) -> HttpError:
    return HttpError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the request's body is larger than max ({max_bytes} bytes)")


def _bad_chunk(problem: str) -> HttpError:
    return HttpError(HTTPStatus.BAD_REQUEST, f"the request's chunked body is broken: {problem}")


def answer_head(
    status: HTTPStatus, headers: Iterable[tuple[str, str]], length: int, *, second: int, connection: str = ""
) -> bytes:
    """The head of an answer of `length` bytes, made in that second since 1970."""
    lines = [_status_line(status, second)]
    lines += [f"{name}: {value}\r\n" for name, value in headers]
    if connection:
        lines.append(f"Connection: {connection}\r\n")
    if length or status not in BODILESS:
        lines.append(f"Content-Length: {length}\r\n")
    lines.append("\r\n")
    return "".join(lines).encode("latin-1")


@lru_cache(maxsize=64)
def _status_line(status: HTTPStatus, second: int) -> str:
    return f"HTTP/1.1 {status.value} {status.phrase}\r\nDate: {formatdate(second, usegmt=True)}\r\n"


def accepts(accept_encoding: str, codings: Iterable[str]) -> str:
    """The first of `codings` that an Accept-Encoding header takes (RFC 9110, 12.5.3); "" for none of them."""
    weights: dict[str, float] = {}
    for part in accept_encoding.lower().split(","):
        coding, *parameters = (word.strip() for word in part.split(";"))
        weight = next((text[2:] for text in parameters if text.startswith("q=")), "1")
        weights[coding] = 0.0 if re.fullmatch(r"0(\.0*)?", weight) else 1.0
    anything = weights.get("*", 0.0)
    return next((coding for coding in codings if weights.get(coding, anything)), "")
