"""HTTP/1.1: bytes as they come from a socket, in pieces and at once, through the real routes."""

from __future__ import annotations

import gzip
import json
import zlib
from http import HTTPStatus
from typing import Any

import httptools

from server.frontends import compression
from server.frontends.calls import INTERNAL_MESSAGE
from server.frontends.rest import http1
from server.frontends.rest.exchange import Content, Exchange, Route
from server.tensors import Buffer
from tests.fuzz.checks import check_message
from tests.fuzz.infer_targets import SERVER
from tests.unit.http_peer import Answer, Peer

MAX_BODY_BYTES = 2000
MAX_ANSWERED = 60
"""Of one connection, below `MAX_PIPELINED`: what is held back is a matter of timing."""
REFUSALS = frozenset(
    {HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
     HTTPStatus.NOT_IMPLEMENTED}
)  # fmt: skip
"""What a connection ends with."""


class Recorder:
    """A peer whose requests are recorded; those on one route wait until all has arrived."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, bytes]] = []
        self.waiting: list[Exchange] = []
        verbs = ("GET", "POST", "PUT")
        routes = [Route(verb, path, self._handle, "") for verb in verbs for path in ("now", "later", "{name}/now")]
        self.peer = Peer(routes, max_input_bytes=MAX_BODY_BYTES)

    def _handle(self, exchange: Exchange, body: Buffer) -> None:
        assert len(body) <= MAX_BODY_BYTES
        self.asked.append((exchange.head.verb, exchange.head.path, bytes(body)))
        if exchange.head.path == "/later":
            self.waiting.append(exchange)
        else:
            exchange.respond(HTTPStatus.OK, Content(bytes(body), ()))

    def play(self, data: bytes, step: int) -> tuple[Any, ...]:
        """Everything that a connection comes to."""
        for at in range(0, len(data), step):
            if not self.peer.sink.closed:
                self.peer.send(data[at : at + step])
        for exchange in self.waiting:
            exchange.respond(HTTPStatus.OK, Content(b"late", ()))
        written = bytes(self.peer.sink.written).replace(http1.CONTINUE, b"")
        lines = [line for line in written.split(b"\r\n") if not line.startswith(b"Date: ")]
        connection = self.peer.connection
        arriving = connection.arriving
        connection.closed()
        assert not connection.busy and not connection.body_arriving
        return self.asked, lines, self.peer.sink.closed, self.peer.sink.refused, arriving


def fuzz_http1(data: bytes) -> None:
    """A connection's bytes: the same requests and answers however they are cut, and those that llhttp reads itself."""
    step, data = 1 + data[0] % 40, data[1:]
    whole = Recorder().play(data, max(1, len(data)))
    if len(whole[0]) > MAX_ANSWERED:
        return
    assert Recorder().play(data, step) == whole
    asked, _, closed, refused, arriving = whole
    theirs, failed = requests_by_llhttp(data)
    ours = [(verb, body) for verb, _, body in asked]
    if not (refused or closed or arriving):
        assert failed is not True, "llhttp refuses what was taken"
    known = [(verb, body) for verb, url, body in theirs if url in (b"/now", b"/later")]
    if failed is False and not refused and all(url in (b"/now", b"/later") for _, url, _ in theirs):
        assert ours == known[: len(ours)], (ours, known)
        assert closed or len(ours) == len(known)


class _Requests:
    """What llhttp calls, framing bodies by itself."""

    def __init__(self) -> None:
        self.parser = httptools.HttpRequestParser(self)
        self.url = self.body = b""
        self.done: list[tuple[str, bytes, bytes]] = []

    def on_message_begin(self) -> None:
        self.url = self.body = b""

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.done.append((self.parser.get_method().decode(), self.url, self.body))


def requests_by_llhttp(data: bytes) -> tuple[list[tuple[str, bytes, bytes]], bool | None]:
    """The requests in a stream, and whether it ends in what is none; None where it asks for another protocol, since
    llhttp stops there and a server goes on."""
    requests = _Requests()
    try:
        requests.parser.feed_data(data)
    except httptools.HttpParserUpgrade:
        return requests.done, None
    except httptools.HttpParserError:
        return requests.done, True
    return requests.done, False


def fuzz_routes(data: bytes) -> None:
    """One request to any route of the server: the line's rest is the path, a second line a header, then the body."""
    SERVER.forget()
    line, _, rest = data.partition(b"\n")
    header, _, body = rest.partition(b"\n")
    verb, _, path = line.partition(b" ")
    if verb not in (b"GET", b"POST", b"HEAD") or b"\r" in line + header:
        return
    head = b"%b /%b HTTP/1.1\r\nHost: h\r\n%bContent-Length: %d\r\n\r\n"
    peer = Peer(SERVER.routes(), max_input_bytes=1 << 16)
    peer.send(head % (verb, path, header + b"\r\n" if header else b"", len(body)) + body)
    assert peer.sink.written.startswith(b"HTTP/1.1 ")
    for answer in peer.answers() if verb != b"HEAD" else ():
        check_answer(answer)


def check_answer(answer: Answer) -> None:
    assert 200 <= answer.status < 600
    if answer.status < 300:
        return
    said = json.loads(answer.body)
    assert list(said) == ["error"]
    assert said["error"] != INTERNAL_MESSAGE, "a handler raised"
    check_message(said["error"])


def fuzz_codings(data: bytes) -> None:
    """Compressed bodies: never more than the bound, and what the standard library reads in one go."""
    coding, limit, body = (b"gzip", b"deflate")[data[0] % 2], data[1] * 8, data[2:]
    try:
        plain = compression.inflate(body, coding, limit)
    except ValueError:
        plain = b""
    else:
        whole = _inflated(body, coding)
        if plain is None:
            assert whole is None or len(whole) > limit
        else:
            assert plain == whole and len(plain) <= limit
    assert compression.inflate(compression.deflate(body, coding), coding, len(body)) == body
    http1.accepts(body.decode("latin-1"), ("gzip", "deflate"))


MOST_INFLATED = 1 << 20


def _inflated(body: bytes, coding: bytes) -> bytes | None:
    """By the standard library; None for more than a mebibyte, and for what it does not read either."""
    if not body:
        return b""
    stream = zlib.decompressobj(31 if coding == b"gzip" else 15)
    try:
        start = stream.decompress(body, MOST_INFLATED)
        if len(start) == MOST_INFLATED:
            return None
        return gzip.decompress(body) if coding == b"gzip" else zlib.decompress(body)
    except (OSError, EOFError, zlib.error):
        return None
