"""A peer of load generators that speaks gRPC frames, on a thread: what becomes of a request is a function of choice."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from loadtest import http2_frames as http2

Answer = Callable[[int], bytes]
"""From the stream to the frames that answer it."""


def message(stream: int, body: bytes = bytes(5)) -> bytes:
    """A whole answer."""
    head, data = http2.frame(http2.HEADERS, http2.END_HEADERS, stream), http2.frame(http2.DATA, 0, stream, body)
    return head + data + refusal(stream)


def refusal(stream: int) -> bytes:
    """A status alone."""
    return http2.frame(http2.HEADERS, http2.END_HEADERS | http2.END_STREAM, stream)


@contextmanager
def grpc_peer(answer: Answer, settings: bytes = b"", opening: bytes = b"") -> Iterator[str]:
    """Listens until the block ends; gives its address. It says `settings` and `opening` to every connection.

    An answer that begins with b"CLOSE" closes the connection.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_accept, args=(listener, answer, settings, opening), daemon=True).start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)


def _accept(listener: socket.socket, answer: Answer, settings: bytes, opening: bytes) -> None:
    while True:
        try:
            peer, _ = listener.accept()
        except OSError:
            return
        hello = http2.frame(http2.SETTINGS, 0, 0, settings) + opening
        threading.Thread(target=_talk, args=(peer, answer, hello), daemon=True).start()


def _talk(peer: socket.socket, answer: Answer, hello: bytes) -> None:
    with peer:
        try:
            peer.sendall(hello)
            data = peer.recv(len(http2.PREFACE), socket.MSG_WAITALL)[:0]
            while received := peer.recv(1 << 16):
                data += received
                end = 0
                for one in http2.frames(data):
                    kind, flags, stream, _, end = one
                    if kind == http2.DATA and flags & http2.END_STREAM:
                        said = answer(stream)
                        if said.startswith(b"CLOSE"):
                            return
                        peer.sendall(said)
                data = data[end:]
        except OSError:
            return
