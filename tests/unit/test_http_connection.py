"""Requests over a connection: cut from what arrives, answered in order, bounded."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable
from http import HTTPStatus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.errors import MAX_MESSAGE_LENGTH
from server.frontends.calls import LATER, StatusCode
from server.frontends.compression import INLINE_BYTES
from server.frontends.rest.bodies import Bodies
from server.frontends.rest.connection import MAX_PIPELINED
from server.frontends.rest.dispatcher import REMEMBERED_HEAD_BYTES, REMEMBERED_HEADS
from server.frontends.rest.exchange import Content, Exchange, Route
from server.frontends.rest.http1 import MAX_HEAD_BYTES
from server.ledger import Account
from server.memory_budget import SMALL_BYTES
from server.tensors import Buffer
from tests.unit.http_peer import Peer, request

LIMIT = 1000


class Held:
    """A route whose requests wait until the test answers them."""

    def __init__(self) -> None:
        self.exchanges: list[Exchange] = []
        self.bodies: list[bytes] = []
        self.gone = 0

    def handle(self, exchange: Exchange, body: Buffer) -> None:
        self.exchanges.append(exchange)
        self.bodies.append(bytes(body))
        exchange.on_cancel = self._on_cancel

    def answer(self, index: int, body: bytes) -> None:
        self.exchanges[index].respond(HTTPStatus.OK, Content(body, ()))

    def _on_cancel(self) -> None:
        self.gone += 1


def echo(exchange: Exchange, body: Buffer) -> None:
    exchange.respond(HTTPStatus.OK, Content(bytes(body), [("X", exchange.parameters.get("name", ""))]))


def broken(exchange: Exchange, body: Buffer) -> None:
    raise RuntimeError("a bug")


class Rendered:
    """Knows the exchange that knows it, as those do that make an answer's content."""

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        exchange.render = self.render

    def render(self, message: Buffer) -> Content:
        return Content(message, ())


@pytest.fixture
def held() -> Held:
    return Held()


@pytest.fixture
def peer(held: Held) -> Peer:
    routes = [
        Route("POST", "echo", echo, ""),
        Route("GET", "echo", echo, ""),
        Route("POST", "echo/{name}", echo, ""),
        Route("POST", "held", held.handle, ""),
        Route("GET", "broken", broken, ""),
    ]
    return Peer(routes, max_input_bytes=LIMIT)


def whole(data: bytes) -> list[bytes]:
    return [data]


def byte_by_byte(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


def in_thirds(data: bytes) -> list[bytes]:
    size = len(data) // 3 + 1
    return [data[at : at + size] for at in range(0, len(data), size)]


CHUNKED = b"POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"


@pytest.mark.parametrize("cut", [whole, byte_by_byte, in_thirds])
def test_pipelined_requests_are_told_apart_however_they_arrive(cut: Callable[[bytes], list[bytes]], peer: Peer) -> None:
    wire = (
        request("POST", "/echo", b"one")
        + CHUNKED
        + b"\r\n"
        + request("GET", "/echo")
        + request("POST", "/echo/n%20m", b"2")
    )
    for part in cut(wire):
        peer.send(part)
    assert [(a.status, a.body, a.headers["x"]) for a in peer.answers()] == [
        (200, b"one", ""),
        (200, b"abcde", ""),
        (200, b"", ""),
        (200, b"2", "n m"),
    ]
    assert not peer.sink.closed


WORDS = (
    request("POST", "/echo", b"12345"),
    request("GET", "/nowhere", Connection="keep-alive"),
    CHUNKED,
    b"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: ",
    b"Transfer-Encoding: chunked\r\n",
    b"\r\n",
    b"5\r\n",
    b"0",
    b"\0\xff",
)


@given(st.lists(st.one_of(st.sampled_from(WORDS), st.binary(max_size=40)), max_size=12))
def test_whatever_comes_is_answered_or_waited_for(parts: list[bytes]) -> None:
    peer = Peer([Route("POST", "echo", echo, "")], max_input_bytes=LIMIT)
    for part in parts:
        if not peer.sink.closed:
            peer.send(part)
    assert {answer.status for answer in peer.answers()} <= {200, 400, 404, 405, 413, 431, 501}


def test_answers_come_in_the_order_of_their_requests(peer: Peer, held: Held) -> None:
    peer.send(request("POST", "/held", b"1") + request("POST", "/held", b"2") + request("POST", "/echo", b"3"))
    held.answer(1, b"second")
    assert peer.answers() == []
    held.answer(0, b"first")
    assert [answer.body for answer in peer.answers()] == [b"first", b"second", b"3"]


def test_a_request_is_answered_once(peer: Peer, held: Held) -> None:
    peer.send(request("POST", "/held", b""))
    held.answer(0, b"first")
    held.answer(0, b"second")
    assert [answer.body for answer in peer.answers()] == [b"first"]
    assert [counts.handled for counts in peer.dispatcher.snapshot()] == [{200: 1}]


def test_a_line_end_behind_a_body_is_not_the_beginning_of_a_request(peer: Peer) -> None:
    peer.send(request("POST", "/echo", b"1") + b"\r\n")
    assert not peer.connection.arriving


def test_what_is_remembered_of_heads_is_bounded(peer: Peer) -> None:
    for number in range(REMEMBERED_HEADS + 10):
        assert peer.ask("GET", "/echo", number=str(number)).status == 200
    assert len(peer.dispatcher._plans) <= REMEMBERED_HEADS
    remembered = len(peer.dispatcher._plans)
    assert peer.ask("GET", "/echo", large="x" * REMEMBERED_HEAD_BYTES).status == 200
    assert len(peer.dispatcher._plans) == remembered


def test_head_is_get_without_the_body(peer: Peer) -> None:
    answer = peer.ask("HEAD", "/echo", b"12345")
    assert (answer.status, answer.headers["content-length"], answer.body) == (200, "5", b"")


def test_a_wrong_verb_is_told_the_right_ones(peer: Peer) -> None:
    answer = peer.ask("DELETE", "/echo")
    assert (answer.status, answer.headers["allow"]) == (405, "POST, GET, HEAD")
    assert answer.json == {"error": "/echo takes POST, GET, HEAD, not DELETE"}


@pytest.mark.parametrize("path", ["/", "/echo/", "/echo/a/b", "/echo/../echo/x/y", "/Echo", "//echo"])
def test_an_unknown_path_is_not_found(path: str, peer: Peer) -> None:
    answer = peer.ask("GET", path)
    assert (answer.status, answer.json) == (404, {"error": f"no route {path}"})


def test_a_handler_that_raises_harms_only_its_request(peer: Peer, caplog: pytest.LogCaptureFixture) -> None:
    assert peer.ask("GET", "/broken").status == 500
    assert peer.ask("GET", "/echo").status == 200
    assert "a bug" in caplog.text


@pytest.mark.parametrize(
    ("wire", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"\r\n\r\n\r\nGET /echo\r\n\r\n", 400),
        (request("POST", "/echo", Content_Length="5", Transfer_Encoding="chunked"), 400),
        (b"POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", 400),
        (b"POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3e9\r\n", 413),
        (b"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 1001\r\n\r\n", 413),
        (b"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000000000000\r\n\r\n", 413),
        (b"GET /echo HTTP/1.1\r\nA: " + b"x" * MAX_HEAD_BYTES, 431),
        (b"x" * MAX_HEAD_BYTES, 431),
    ],
)
def test_what_http_does_not_allow_ends_the_connection_after_what_was_asked_before(
    wire: bytes, status: int, peer: Peer, held: Held
) -> None:
    peer.send(request("POST", "/held", b"1"))
    peer.send(wire)
    assert peer.answers() == []
    held.answer(0, b"")
    before, refusal = peer.answers()
    assert (before.status, refusal.status, refusal.headers["connection"]) == (200, status, "close")
    assert refusal.json["error"]
    assert peer.sink.closed and peer.sink.refused
    peer.send(request("GET", "/echo"))
    assert peer.answers() == []


def test_a_body_of_the_largest_size_is_taken(peer: Peer) -> None:
    assert peer.ask("POST", "/echo", b"x" * LIMIT).status == 200


@pytest.mark.parametrize(
    ("version", "connection", "closes"), [("1.1", "close", True), ("1.0", "", True), ("1.0", "keep-alive", False)]
)
def test_a_connection_ends_as_its_caller_says(version: str, connection: str, closes: bool, peer: Peer) -> None:
    peer.send(f"GET /echo HTTP/{version}\r\nHost: h\r\nConnection: {connection}\r\n\r\n".encode())
    (answer,) = peer.answers()
    assert answer.headers["connection"] == ("close" if closes else "keep-alive")
    assert peer.sink.closed is closes


def test_nothing_comes_after_the_last_request(peer: Peer, held: Held) -> None:
    peer.send(request("POST", "/held", b"1", Connection="close") + request("POST", "/held", b"2"))
    peer.send(request("POST", "/held", b"3"))
    assert held.bodies == [b"1"]


def test_the_last_request_is_waited_for(peer: Peer, held: Held) -> None:
    last = request("POST", "/echo", b"12345", Connection="close")
    peer.send(request("POST", "/held", b"") + last[:-1])
    held.answer(0, b"")
    assert not peer.sink.closed
    peer.send(last[-1:])
    assert [answer.body for answer in peer.answers()] == [b"", b"12345"]
    assert peer.sink.closed


def test_who_waits_to_be_told_to_go_on_is_told(peer: Peer) -> None:
    head, body = request("POST", "/echo", b"abc", Expect="100-continue")[:-3], b"abc"
    peer.send(head)
    assert bytes(peer.sink.written) == b"HTTP/1.1 100 Continue\r\n\r\n"
    peer.sink.written.clear()
    peer.send(body)
    assert [answer.body for answer in peer.answers()] == [b"abc"]


def test_who_waits_with_a_body_that_is_too_large_is_not_told_to_go_on(peer: Peer) -> None:
    peer.send(b"POST /echo HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 1001\r\n\r\n")
    assert [answer.status for answer in peer.answers()] == [413]


def test_a_caller_who_leaves_is_told_to_those_who_work_for_it(peer: Peer, held: Held) -> None:
    peer.send(request("POST", "/held", b"1") * 2)
    held.answer(1, b"answered, but never sent")
    peer.connection.closed()
    assert held.gone == 1
    held.answer(0, b"too late")
    assert peer.answers() == []


def test_no_more_is_read_than_may_wait(peer: Peer, held: Held) -> None:
    peer.send(request("POST", "/held", b"") * (MAX_PIPELINED + 3))
    assert len(held.exchanges) == MAX_PIPELINED
    assert not peer.sink.reading
    held.answer(0, b"")
    assert len(held.exchanges) == MAX_PIPELINED + 1
    for index in range(1, MAX_PIPELINED + 1):
        held.answer(index, b"")
    assert len(held.exchanges) == MAX_PIPELINED + 3
    assert peer.sink.reading


def test_bodies_that_wait_hold_no_more_than_one_request_and_a_bit(peer: Peer, held: Held) -> None:
    peer.send(request("POST", "/held", b"x" * LIMIT) * 4)
    assert len(held.exchanges) == 2
    assert not peer.sink.reading
    held.answer(0, b"")
    held.answer(1, b"")
    assert len(held.exchanges) == 4
    held.answer(2, b"")
    assert peer.sink.reading


def test_who_does_not_read_answers_is_not_read_from(peer: Peer) -> None:
    peer.connection.set_writable(False)
    assert not peer.sink.reading
    peer.connection.set_writable(True)
    assert peer.sink.reading
    assert peer.ask("GET", "/echo").status == 200


def test_a_draining_server_ends_each_connection_with_the_answers_that_are_due(peer: Peer, held: Held) -> None:
    peer.send(request("POST", "/held", b"1") * 2)
    peer.dispatcher.draining = True
    held.answer(0, b"")
    held.answer(1, b"")
    first, last = peer.answers()
    assert ("connection" in first.headers, last.headers["connection"]) == (False, "close")
    assert peer.sink.closed


def test_an_idle_connection_is_closed_when_it_is_asked_to_and_a_busy_one_later(peer: Peer, held: Held) -> None:
    peer.send(request("POST", "/held", b"1"))
    peer.connection.close_when_idle()
    assert not peer.sink.closed
    held.answer(0, b"")
    assert peer.sink.closed


def test_requests_are_counted_by_route_and_status(peer: Peer, held: Held) -> None:
    peer.ask("POST", "/echo/a", b"")
    peer.ask("POST", "/echo/b", b"")
    peer.ask("GET", "/nowhere")
    peer.send(request("POST", "/held", b""))
    peer.connection.closed()
    counted = {(counts.verb, counts.route): counts.handled for counts in peer.dispatcher.snapshot()}
    assert counted == {
        ("POST", "/echo/{name}"): {200: 2},
        ("POST", "/held"): {0: 1},
        ("unknown", "unknown"): {404: 1},
    }


@pytest.mark.parametrize(
    ("status", "http"),
    [
        (StatusCode.INTERNAL, 500),
        (StatusCode.NOT_FOUND, 404),
        (StatusCode.UNAVAILABLE, 503),
        (StatusCode.UNIMPLEMENTED, 501),
        (StatusCode.RESOURCE_EXHAUSTED, 429),
        (StatusCode.DEADLINE_EXCEEDED, 504),
        (StatusCode.INVALID_ARGUMENT, 400),
        (StatusCode.ALREADY_EXISTS, 400),
        (StatusCode.CANCELLED, 400),
    ],
)
def test_statuses_are_tritons(status: StatusCode, http: int, peer: Peer, held: Held) -> None:
    peer.send(request("POST", "/held", b""))
    held.exchanges[0].set_trailing_metadata({"convoy-reason": "why", "grpc-retry-pushback-ms": "1001"})
    held.exchanges[0].fail(status, 'a "reason"')
    (answer,) = peer.answers()
    assert (answer.status, answer.json) == (http, {"error": 'a "reason"'})
    assert (answer.headers["convoy-reason"], answer.headers["retry-after"]) == ("why", "2")


def test_an_error_is_told_in_one_line_of_bounded_length(held: Held, peer: Peer) -> None:
    peer.send(request("POST", "/held"))
    held.exchanges[0].respond_error(HTTPStatus.BAD_REQUEST, "not '\x8d\n" + "x" * 100_000)
    (answer,) = peer.answers()
    assert answer.json["error"].startswith("not '\\x8d\\nxxx")
    assert len(answer.json["error"]) == MAX_MESSAGE_LENGTH


def test_an_answered_request_leaves_nothing_to_the_garbage_collector() -> None:
    made: list[weakref.ref[Rendered]] = []

    def handle(exchange: Exchange, body: Buffer) -> None:
        rendered = Rendered(exchange)
        made.append(weakref.ref(rendered))
        exchange.reply(body)

    gc.collect()
    gc.disable()
    try:
        assert Peer([Route("POST", "x", handle, "")]).ask("POST", "/x", b"body").status == 200
        assert made[0]() is None
    finally:
        gc.enable()


def reply(exchange: Exchange) -> None:
    exchange.reply(b"first")


def reply_compressed(exchange: Exchange) -> None:
    """On a thread: the answer is given after this has returned."""
    bodies = Bodies(LIMIT)
    exchange.render = lambda message: bodies.send(exchange, Content(message, ()))
    exchange.reply(b"first" * INLINE_BYTES)


def fail(exchange: Exchange) -> None:
    exchange.fail(StatusCode.ABORTED, "first")


@pytest.mark.parametrize("first", [reply, reply_compressed, fail])
def test_an_answer_too_many_is_noticed_at_the_call_and_makes_up_for_none_that_is_lost(
    held: Held, first: Callable[[Exchange], None]
) -> None:
    account = Account("http")

    async def main() -> None:
        peer = Peer([Route("POST", "held", held.handle, "", account=account)], max_input_bytes=LIMIT)
        peer.send(request("POST", "/held", Accept_Encoding="gzip") + request("POST", "/held"))
        first(held.exchanges[0])
        held.exchanges[0].reply(b"second")
        held.exchanges[0].fail(StatusCode.DATA_LOSS, "third")
        assert account.answered_twice == 2
        async with asyncio.timeout(30):
            await peer.sink.wrote.wait()
        assert (account.answered_twice, account.in_progress) == (2, 1)
        (answer,) = peer.answers()
        assert answer.status == (HTTPStatus.BAD_REQUEST if first is fail else HTTPStatus.OK)

    asyncio.run(main())


def leave(peer: Peer) -> None:
    peer.connection.closed()


def use_up_memory(peer: Peer) -> None:
    memory = peer.connection.memory
    memory.limit = memory.used


@pytest.mark.parametrize("happens", [leave, use_up_memory])
def test_who_replied_hears_that_the_answer_is_not_given_once_it_is_rendered(
    held: Held, happens: Callable[[Peer], None]
) -> None:
    contents: list[Content] = []
    peer = Peer([Route("POST", "held", held.handle, "")], max_input_bytes=LIMIT)
    peer.send(request("POST", "/held"))
    (exchange,) = held.exchanges
    exchange.render = lambda message: contents.append(Content(message, ()))
    assert exchange.reply(bytes(SMALL_BYTES + 1)) is LATER
    happens(peer)
    exchange.rendered(contents[0])
    assert held.gone == 1


def test_an_answer_to_who_has_gone_ends_nothing(held: Held) -> None:
    account = Account("http")
    peer = Peer([Route("POST", "held", held.handle, "", account=account)], max_input_bytes=LIMIT)
    peer.send(request("POST", "/held"))
    peer.connection.closed()
    for _ in range(2):
        held.exchanges[0].reply(b"too late")
    assert (account.answered, account.abandoned, account.in_progress) == (0, 1, 0)
