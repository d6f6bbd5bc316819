"""The generator over real sockets, at peers that answer as they are told."""

import socket
import struct
import threading

import numpy as np
import pytest

from loadtest import http2_frames as http2
from loadtest.errors import LoadTestError
from loadtest.open_loop import GrpcTraffic, HttpTraffic, constant, framed, play, play_apart, play_queries
from loadtest.target import INFER
from tests.grpc_peer import grpc_peer, message, refusal

MESSAGES = framed([b"abc", b"def"])


def test_answers_refusals_and_what_is_given_up_are_told_apart() -> None:
    said = {1: message(1), 3: refusal(3), 5: b"", 7: http2.frame(http2.RST_STREAM, 0, 7, bytes(4))}
    with grpc_peer(lambda stream: said[stream]) as address:
        traffic = GrpcTraffic(address, INFER, MESSAGES, connections=1)
        outcome = play(traffic, np.array([0.0, 0.001, 0.002, 0.003]), seconds=0.004, patience=1)

    assert outcome.answered.tolist() == [True, False, False, False]
    assert (outcome.scheduled, outcome.refused, outcome.given_up) == (4, 2, 1)
    assert outcome.late_ms.size == 4 and not outcome.held_back.any()


def test_a_connection_that_the_server_ends_is_replaced_and_its_requests_have_failed() -> None:
    ended = threading.Event()

    def answer(stream: int) -> bytes:
        if stream == 3 and not ended.is_set():
            ended.set()
            return b"CLOSE"
        return message(stream)

    with grpc_peer(answer) as address:
        traffic = GrpcTraffic(address, INFER, MESSAGES, connections=1)
        outcome = play(traffic, np.zeros(10), seconds=0.0, patience=30, in_flight=1)

    assert outcome.answered.tolist() == [True, False, *[True] * 8]
    assert (outcome.refused, outcome.given_up) == (1, 0)


def test_after_a_goodbye_what_the_server_took_ends_and_the_rest_goes_elsewhere() -> None:
    """Of the first connection the server takes one stream, whose answer follows its goodbye."""
    goodbyes = iter([struct.pack(">II", 1, 0)])

    def answer(stream: int) -> bytes:
        goodbye = b"".join(http2.frame(http2.GOAWAY, 0, 0, payload) for payload in goodbyes)
        return goodbye + message(stream)

    with grpc_peer(answer) as address:
        traffic = GrpcTraffic(address, INFER, MESSAGES, connections=1)
        outcome = play(traffic, np.zeros(3), seconds=0.0, patience=30, in_flight=2)

    assert outcome.answered.tolist() == [True, False, True]


def test_a_server_that_is_gone_is_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
    with pytest.raises(LoadTestError, match="cannot connect"):
        play(GrpcTraffic(address, INFER, MESSAGES), constant(50, 0.2), seconds=0.2, patience=1)


def test_what_waits_for_a_place_is_marked_and_latencies_count_from_the_schedule() -> None:
    one_stream = struct.pack(">HI", http2.MAX_CONCURRENT_STREAMS, 1)
    with grpc_peer(lambda _: b"", one_stream) as address:
        traffic = GrpcTraffic(address, INFER, MESSAGES, connections=1)
        outcome = play(traffic, np.array([0.0, 0.0, 0.01]), seconds=0.02, patience=0.1)

    assert outcome.held_back.tolist() == [False, True, True]
    assert np.isfinite(outcome.sent).tolist() == [True, False, False]
    assert (outcome.waits_ms >= 100).all()


@pytest.mark.parametrize(("streams", "in_flight"), [(1_000, 3), (3, None)])
def test_no_more_are_under_way_than_it_is_told_or_the_server_allows(streams: int, in_flight: int | None) -> None:
    """The peer answers three at a time, as soon as it has three."""
    pending: list[int] = []

    def answer(stream: int) -> bytes:
        pending.append(stream)
        return b"" if len(pending) < 3 else b"".join(message(pending.pop()) for _ in range(3))

    with grpc_peer(answer, struct.pack(">HI", http2.MAX_CONCURRENT_STREAMS, streams)) as address:
        traffic = GrpcTraffic(address, INFER, MESSAGES, connections=1)
        outcome = play(traffic, np.zeros(30), seconds=0.0, patience=30, in_flight=in_flight)

    assert outcome.answered.all()
    assert (np.sort(outcome.ended)[:-3] <= outcome.sent[3:]).all()  # each has waited for the third before it


@pytest.mark.parametrize(
    ("window", "size", "count"), [(1_000, 5_000, 3), (100_000, 80_000, 3), (100_000, 5_000, 40), (100_000, 40, 4_000)]
)
def test_requests_arrive_whole_however_little_room_the_server_makes(window: int, size: int, count: int) -> None:
    """For a stream `window` bytes, for the connection 65,535, and more only once they are used up."""
    body = bytes(range(200)) * (size // 200) + bytes(size % 200)
    peer = Narrow(window)
    with peer as address:
        traffic = GrpcTraffic(address, INFER, framed([body]), connections=1)
        outcome = play(traffic, np.zeros(count), seconds=0.0, patience=60)

    assert outcome.answered.all() and not peer.overrun
    assert peer.messages == [*traffic.messages * count]


def test_what_is_refused_before_it_is_sent_whole_is_not_sent_on() -> None:
    peer = Hasty(window=1_000)
    with peer as address:
        traffic = GrpcTraffic(address, INFER, framed([bytes(5_000)]), connections=1)
        outcome = play(traffic, np.zeros(3), seconds=0.0, patience=60)

    assert outcome.answered.tolist() == [False, True, True]
    assert peer.messages == [*traffic.messages * 2] and peer.received(1) == 1_000


class Narrow:
    """A peer that lets a little through at a time, on a thread."""

    def __init__(self, window: int) -> None:
        self.messages: list[bytes] = []
        self.overrun = False
        """Whether more came than it had made room for."""
        self._window = window
        self._room = {0: http2.FIRST_WINDOW}
        self._parts: dict[int, bytes] = {}

    def __enter__(self) -> str:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        return f"127.0.0.1:{self._listener.getsockname()[1]}"

    def __exit__(self, *_: object) -> None:
        self._thread.join()
        self._listener.close()

    def _serve(self) -> None:
        peer, _ = self._listener.accept()
        with peer:
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            peer.sendall(http2.frame(http2.SETTINGS, 0, 0, struct.pack(">HI", http2.INITIAL_WINDOW_SIZE, self._window)))
            data = peer.recv(len(http2.PREFACE), socket.MSG_WAITALL)[:0]
            while received := peer.recv(1 << 16):
                data += received
                end = 0
                for one in http2.frames(data):
                    kind, flags, stream, begin, end = one
                    if kind == http2.DATA:
                        peer.sendall(self._take(stream, data[begin:end], last=bool(flags & http2.END_STREAM)))
                data = data[end:]

    def _take(self, stream: int, part: bytes, *, last: bool) -> bytes:
        """What it says to that."""
        said = b""
        self._parts[stream] = self._parts.get(stream, b"") + part
        for of, first in ((0, http2.FIRST_WINDOW), (stream, self._window)):
            self._room[of] = self._room.get(of, first) - len(part)
            self.overrun |= self._room[of] < 0
            if self._room[of] <= 0:
                self._room[of] += first
                said += http2.window_update(of, first)
        if last:
            self.messages.append(self._parts.pop(stream))
            said += message(stream)
        return said


class Hasty(Narrow):
    """As its parent, but refuses the first stream as soon as it has begun."""

    def received(self, stream: int) -> int:
        """Bytes of a message that never became whole."""
        return len(self._parts[stream])

    def _take(self, stream: int, part: bytes, *, last: bool) -> bytes:
        said = super()._take(stream, part, last=last)
        return (refusal(1) if stream == 1 else b"") + said


def test_several_processes_share_a_schedule() -> None:
    with grpc_peer(message) as address:
        due = constant(200, 0.2)
        outcome = play_apart(GrpcTraffic(address, INFER, MESSAGES), due, seconds=0.2, patience=60, processes=2)

    assert sorted(outcome.due.tolist()) == due.tolist()
    assert outcome.answered.all() and len(outcome.cpu_shares) == 2


def test_a_process_that_cannot_start_says_why() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
    with pytest.raises(LoadTestError, match="cannot connect"):
        play_apart(GrpcTraffic(address, INFER, MESSAGES), constant(50, 0.2), seconds=0.2, patience=1)


def test_a_closed_loop_sends_the_next_query_when_the_last_is_answered_whole() -> None:
    with grpc_peer(message) as address:
        outcome = play_queries(
            GrpcTraffic(address, INFER, MESSAGES, connections=1), seconds=0.1, patience=60, samples=4
        )

    assert outcome.scheduled % 4 == 0 and outcome.answered.all()
    queries = outcome.due.reshape(-1, 4)
    assert (queries == queries[:, :1]).all()
    assert (queries[1:, 0] >= outcome.ended.reshape(-1, 4).max(axis=1)[:-1]).all()


def test_http_requests_are_kept_alive_and_told_apart_by_their_status() -> None:
    with http_peer() as (address, seen):
        bodies = (b"good", b"bad", b"chunked", b"last")
        traffic = HttpTraffic(address, "/v2/x", bodies, (("Content-Type", "a/b"),), connections=1)
        outcome = play(traffic, constant(100, 0.06), seconds=0.06, patience=60)

    assert outcome.answered.tolist() == [True, False, True, True, True, False]
    head, _, body = seen[0][1].partition(b"\r\n\r\n")
    assert head.split(b"\r\n")[0] == b"POST /v2/x HTTP/1.1" and body == b"good"
    assert b"Content-Type: a/b" in head and b"Content-Length: 4" in head
    assert [connection for connection, _ in seen] == [0, 0, 0, 0, 1, 1]  # `last` closes


class http_peer:  # noqa: N801 -- used as a function
    """Answers each request by its body, on a thread; gives its address and (connection, request) as they came."""

    ANSWERS = {
        b"good": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"bad": b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n",
        b"chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"last": b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
    }

    def __enter__(self) -> tuple[str, list[tuple[int, bytes]]]:
        self.seen: list[tuple[int, bytes]] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        return f"127.0.0.1:{self._listener.getsockname()[1]}", self.seen

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def _serve(self) -> None:
        for connection in range(10):
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            with peer:
                while request := peer.recv(1 << 16):
                    self.seen.append((connection, request))
                    body = request.partition(b"\r\n\r\n")[2]
                    peer.sendall(self.ANSWERS[body])
                    if body == b"last":
                        break
