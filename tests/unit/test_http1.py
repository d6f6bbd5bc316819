"""HTTP/1.1's own rules: heads, chunked bodies, codings."""

from __future__ import annotations

from http import HTTPStatus

import pytest

from server.frontends.rest import http1
from server.frontends.rest.http1 import ChunkedBody, HttpError, accepts, answer_head, read_head


def head(*lines: str) -> bytes:
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def test_a_head_is_read() -> None:
    read = read_head(head("POST /v2/models/a%2Fb%20c/infer?x=1&y HTTP/1.1", "Host: h", "Content-LENGTH: 12", "A: 1"))
    assert (read.verb, read.path, read.query) == ("POST", "/v2/models/a%2Fb%20c/infer", "x=1&y")
    assert read.segments == ("v2", "models", "a/b c", "infer")
    assert (read.length, read.chunked, read.keep_alive, read.old) == (12, False, True, False)
    assert read.header(b"a") == "1"


def test_headers_of_one_name_are_joined() -> None:
    assert read_head(head("GET / HTTP/1.1", "Host: h", "accept: a", "Accept: b")).headers[b"accept"] == b"a,b"


@pytest.mark.parametrize(
    ("lines", "field", "value"),
    [
        (["GET http://h/v2?q HTTP/1.1", "Host: h"], "segments", ("v2",)),
        (["GET / HTTP/1.1", "Host: h", "Connection: close"], "keep_alive", False),
        (["GET / HTTP/1.0"], "keep_alive", False),
        (["GET / HTTP/1.0", "Connection: keep-alive"], "keep_alive", True),
        (["GET / HTTP/1.0"], "old", True),
        (["POST / HTTP/1.1", "Host: h", "Transfer-Encoding: Chunked"], "chunked", True),
        (["POST / HTTP/1.1", "Host: h", "Expect: 100-Continue", "Content-Length: 1"], "expects_continue", True),
        (["GET /v2 HTTP/1.1", "Host: h", "Connection: Upgrade", "Upgrade: h2c"], "segments", ("v2",)),
        (["OPTIONS * HTTP/1.1", "Host: h"], "segments", ("*",)),
        (["CONNECT h:443 HTTP/1.1", "Host: h"], "verb", "CONNECT"),
    ],
)
def test_what_a_head_means(lines: list[str], field: str, value: object) -> None:
    assert getattr(read_head(head(*lines)), field) == value


@pytest.mark.parametrize(
    "lines",
    [
        ["GET /"],
        ["GET / HTTP/2.0"],
        ["GET / HTTP/1.1"],
        ["nonsense"],
        ["BREW / HTTP/1.1", "Host: h"],
        ["GET /\xff HTTP/1.1", "Host: h"],
        ["GET /%ff HTTP/1.1", "Host: h"],
        ["GET / HTTP/1.1", "Host : h"],
        ["GET / HTTP/1.1", "Host: h", " folded"],
        ["GET / HTTP/1.1", "Host: h", "A: b\0c"],
        ["POST / HTTP/1.1", "Host: h", "Content-Length: -1"],
        ["POST / HTTP/1.1", "Host: h", "Content-Length: +1"],
        ["POST / HTTP/1.1", "Host: h", "Content-Length: 0x1"],
        ["POST / HTTP/1.1", "Host: h", "Content-Length: 99999999999999999999999"],
        ["POST / HTTP/1.1", "Host: h", "Content-Length: 5", "Content-Length: 6"],
        ["POST / HTTP/1.1", "Host: h", "Content-Length: 5", "Transfer-Encoding: chunked"],
        ["POST / HTTP/1.1", "Host: h", "Transfer-Encoding: gzip, chunked"],
        ["GET / HTTP/1.1\nHost: h"],
    ],
)
def test_what_is_no_head_or_could_be_two_is_refused(lines: list[str]) -> None:
    with pytest.raises(HttpError) as caught:
        read_head(head(*lines))
    assert caught.value.status in (HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_IMPLEMENTED)


CHUNKED = [
    (b"0\r\n\r\n", b""),
    (b"5\r\nhello\r\n0\r\n\r\n", b"hello"),
    (b"5\r\nhello\r\n00001\r\n!\r\n0\r\n\r\n", b"hello!"),
    (b"A;name=value\r\n0123456789\r\n0\r\nTrailer: x\r\nOther: y\r\n\r\n", b"0123456789"),
    (b"2\r\n\r\n\r\n0\r\n\r\n", b"\r\n"),
]


@pytest.mark.parametrize(("wire", "body"), CHUNKED)
@pytest.mark.parametrize("size", [1, 3, 1000])
def test_a_chunked_body_is_read_however_it_is_cut_and_no_further(wire: bytes, body: bytes, size: int) -> None:
    chunked, rest = ChunkedBody(100), wire + b"NEXT"
    while not chunked.done:
        part, rest = rest[:size], rest[size:]
        assert part, "it should have been done"
        taken = chunked.feed(memoryview(part))
        rest = part[taken:] + rest
    assert bytes(chunked.body) == body
    assert rest == b"NEXT"


@pytest.mark.parametrize(
    "wire",
    [
        b"5\r\nhelloX",
        b"5\r\nhello\nX",
        b"5\nhello",
        b"-5\r\n",
        b"0x5\r\n",
        b"\r\n",
        b"5 5\r\n",
        b"fffffffffffffffff\r\n",
        b"5;" + b"x" * http1.MAX_CHUNK_LINE_BYTES,
        b"1\r\nx\r\n" * (http1.MAX_TINY_CHUNKS + 50),
        b"0\r\n" + b"T: x\r\n" * http1.MAX_HEAD_BYTES,
        b"0\r\n\r!GET / HTTP/1.1\r\n\r\n",
        b"0\r\nT: \x1b\r\n\r\n",
    ],
)
@pytest.mark.parametrize("size", [1, 1000])
def test_a_broken_chunked_body_is_refused(wire: bytes, size: int) -> None:
    def feed(chunked: ChunkedBody) -> None:
        for start in range(0, len(wire), size):
            chunked.feed(memoryview(wire[start : start + size]))

    with pytest.raises(HttpError) as caught:
        feed(ChunkedBody(10_000))
    assert caught.value.status is HTTPStatus.BAD_REQUEST


def test_a_chunked_body_is_refused_before_it_is_too_large() -> None:
    chunked = ChunkedBody(100)
    chunked.feed(memoryview(b"5\r\nhello\r\n"))
    with pytest.raises(HttpError) as caught:
        chunked.feed(memoryview(b"60\r\n"))
    assert caught.value.status is HTTPStatus.REQUEST_ENTITY_TOO_LARGE


@pytest.mark.parametrize(
    ("header", "coding"),
    [
        ("gzip", "gzip"),
        ("deflate", "deflate"),
        ("deflate, gzip", "gzip"),
        ("GZIP;q=0.5", "gzip"),
        ("gzip;q=0, deflate", "deflate"),
        ("gzip; q=0.000", ""),
        ("*", "gzip"),
        ("*;q=0", ""),
        ("br, identity", ""),
        ("", ""),
    ],
)
def test_the_coding_that_a_caller_accepts(header: str, coding: str) -> None:
    assert accepts(header, ("gzip", "deflate")) == coding


def test_an_answers_head() -> None:
    assert answer_head(HTTPStatus.NOT_FOUND, [("A", "b")], 3, second=0, connection="close") == head(
        "HTTP/1.1 404 Not Found",
        "Date: Thu, 01 Jan 1970 00:00:00 GMT",
        "A: b",
        "Connection: close",
        "Content-Length: 3",
    )
