"""The generator over real sockets, at peers that answer as they are told."""

import socket
import struct
import threading

import numpy as np
import pytest

from loadtest import http2_frames as http2
from loadtest.errors import LoadTestError
from loadtest.open_loop import GrpcTraffic, HttpTraffic, constant, framed, play, play_apart, play_queries
from tests.grpc_peer import grpc_peer, message, refusal

MESSAGES = framed([b"abc", b"def"])


def test_answers_refusals_and_what_is_given_up_are_told_apart() -> None:
    said = {1: message(1), 3: refusal(3), 5: b"", 7: http2.frame(http2.RST_STREAM, 0, 7, bytes(4))}
    with grpc_peer(lambda stream: said[stream]) as address:
        traffic = GrpcTraffic(address, MESSAGES, connections=1)
        outcome = play(traffic, np.array([0.0, 0.001, 0.002, 0.003]), seconds=0.004, patience=0.3)

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
        outcome = play(GrpcTraffic(address, MESSAGES, connections=1), constant(50, 0.2), seconds=0.2, patience=20)

    assert outcome.answered.tolist() == [True, False, *[True] * 8]
    assert (outcome.refused, outcome.given_up) == (1, 0)


def test_a_server_that_is_gone_is_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
    with pytest.raises(LoadTestError, match="cannot connect"):
        play(GrpcTraffic(address, MESSAGES), constant(50, 0.2), seconds=0.2, patience=1)


def test_what_waits_for_a_place_is_marked_and_latencies_count_from_the_schedule() -> None:
    one_stream = struct.pack(">HI", http2.MAX_CONCURRENT_STREAMS, 1)
    with grpc_peer(lambda _: b"", one_stream) as address:
        traffic = GrpcTraffic(address, MESSAGES, connections=1)
        outcome = play(traffic, np.array([0.0, 0.0, 0.01]), seconds=0.02, patience=0.1)

    assert outcome.held_back.tolist() == [False, True, True]
    assert np.isfinite(outcome.sent).tolist() == [True, False, False]
    assert (outcome.waits_ms >= 100).all()


def test_no_more_are_under_way_than_it_is_told() -> None:
    pending: list[int] = []
    most = 0

    def answer(stream: int) -> bytes:
        nonlocal most
        pending.append(stream)
        most = max(most, len(pending))
        return b"" if len(pending) < 3 else b"".join(message(pending.pop()) for _ in range(3))

    with grpc_peer(answer) as address:
        traffic = GrpcTraffic(address, MESSAGES, connections=1)
        outcome = play(traffic, np.zeros(30), seconds=0.0, patience=30, in_flight=3)

    assert (most, outcome.given_up, outcome.refused) == (3, 0, 0)


@pytest.mark.parametrize(("window", "size"), [(1_000, 5_000), (100_000, 80_000)])
def test_messages_larger_than_the_windows_arrive_whole_as_the_server_makes_room(window: int, size: int) -> None:
    """A stream of 1,000 bytes or a connection of 65,535: the rest of each message waits for an update."""
    body = bytes(range(200)) * (size // 200)
    seen: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=_serve_in_windows, args=(listener, window, len(body) + 5, 3, seen))
        thread.start()
        traffic = GrpcTraffic(f"127.0.0.1:{listener.getsockname()[1]}", framed([body]), connections=1)
        outcome = play(traffic, np.zeros(3), seconds=0.0, patience=60)
        thread.join()

    assert outcome.answered.all()
    assert seen == [*traffic.messages * 3]


def _serve_in_windows(listener: socket.socket, window: int, size: int, count: int, seen: list[bytes]) -> None:
    """Never lets more pass than it has announced, and gives back what it was sent, frame by frame."""
    peer, _ = listener.accept()
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with peer:
        peer.sendall(http2.frame(http2.SETTINGS, 0, 0, struct.pack(">HI", http2.INITIAL_WINDOW_SIZE, window)))
        data = peer.recv(len(http2.PREFACE), socket.MSG_WAITALL)[:0]
        bodies: dict[int, bytes] = {}
        room = {0: http2.FIRST_WINDOW}
        while len(seen) < count:
            data += peer.recv(1 << 16)
            end = 0
            for kind, flags, stream, begin, end in http2.frames(data):
                if kind != http2.DATA:
                    continue
                bodies[stream] = bodies.get(stream, b"") + data[begin:end]
                for of in (0, stream):
                    room[of] = room.get(of, window) - (end - begin)
                    assert room[of] >= 0
                if flags & http2.END_STREAM:
                    assert len(bodies[stream]) == size
                    seen.append(bodies[stream])
                    peer.sendall(message(stream))
                for of in (0, stream):
                    room[of] += end - begin
                    peer.sendall(http2.window_update(of, end - begin))
            data = data[end:]


def test_several_processes_share_a_schedule() -> None:
    with grpc_peer(message) as address:
        due = constant(200, 0.2)
        outcome = play_apart(GrpcTraffic(address, MESSAGES), due, seconds=0.2, patience=60, processes=2)

    assert sorted(outcome.due.tolist()) == due.tolist()
    assert outcome.answered.all() and len(outcome.cpu_shares) == 2


def test_a_process_that_cannot_start_says_why() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
    with pytest.raises(LoadTestError, match="cannot connect"):
        play_apart(GrpcTraffic(address, MESSAGES), constant(50, 0.2), seconds=0.2, patience=1)


def test_a_closed_loop_sends_the_next_query_when_the_last_is_answered_whole() -> None:
    with grpc_peer(message) as address:
        outcome = play_queries(GrpcTraffic(address, MESSAGES, connections=1), seconds=0.1, patience=60, samples=4)

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
