"""Deadlines that the server keeps by itself, for a caller that set one and never says that it has given up."""

from __future__ import annotations

import pytest

from server.frontends.calls import StatusCode
from tests.engines.conftest import Serve
from tests.engines.methods import STREAM, Held
from tests.engines.raw_peer import Frame, RawPeer

HEADERS, RST_STREAM = 1, 3
END_STREAM, END_HEADERS = 1, 4


def literal(name: str, value: str) -> bytes:
    """A header field for HPACK, never indexed and without Huffman coding."""
    return b"\x10" + bytes((len(name),)) + name.encode() + bytes((len(value),)) + value.encode()


def stream_request(timeout: str) -> Frame:
    fields = {
        ":method": "POST",
        ":scheme": "http",
        ":path": STREAM,
        ":authority": "localhost",
        "content-type": "application/grpc",
        "te": "trailers",
        "grpc-timeout": timeout,
    }
    return Frame(HEADERS, END_HEADERS, 1, b"".join(literal(name, value) for name, value in fields.items()))


def is_end(frame: Frame) -> bool:
    return frame.stream_id == 1 and (
        frame.kind == RST_STREAM or (frame.kind == HEADERS and bool(frame.flags & END_STREAM))
    )


def test_a_stream_is_ended_at_its_callers_deadline(serve: Serve, held: Held) -> None:
    peer = RawPeer(serve(held.methods))
    peer.send(stream_request("200m"))
    call = held.next_call()
    assert call.next_heard() == ("cancelled", b"")
    assert any(is_end(frame) for frame in peer.frames())
    peer.close()


@pytest.mark.parametrize("timeout", ["10S", "1H"])
def test_a_stream_goes_on_before_its_deadline(serve: Serve, held: Held, timeout: str) -> None:
    peer = RawPeer(serve(held.methods))
    peer.send(stream_request(timeout))
    held.next_call().fail(StatusCode.ABORTED, "by the method")
    ending = next(frame for frame in peer.frames() if is_end(frame))
    assert ending.kind == HEADERS  # trailers, and no reset
    peer.close()
