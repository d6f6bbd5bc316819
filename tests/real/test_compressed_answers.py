"""Answers over gRPC that are compressed where a server is told to, as the wire has them: for whom, and how much."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests import onnx_models
from tests.hostile import frames
from tests.hostile.peer import connected
from tests.real.clients import Client, answer_of, infer_request
from tests.real.conftest import ENGINES, RunningServer, connect, start
from tests.repositories import add_model

INFER = "/inference.GRPCInferenceService/ModelInfer"
ACCEPT = b"grpc-accept-encoding"
FRAME_BYTES = 16 << 10
LENGTHS = [1_000, 100_000]
"""Of answers: to compress at once, and to compress on a thread."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    add_model(folder, "identity", onnx_models.identity("FP32"))
    return folder


@pytest.fixture(scope="module")
def server(engine: str, root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    flag = "--grpc-infer-response-compression-level=Medium"
    server = start(tmp_path_factory.mktemp("server"), *ENGINES[engine], flag, model_repository=root)
    yield server
    assert server.terminate() == 0


def ask(server: RunningServer, length: int, *headers: frames.Header) -> tuple[bool, int]:
    """Whether the answer, of `length` zeros, is compressed, and how many bytes it has."""
    request = frames.message(infer_request("identity", {"x": np.zeros((1, length), np.float32)}).SerializeToString())
    parts = [request[start : start + FRAME_BYTES] for start in range(0, len(request), FRAME_BYTES)]
    with connected(server.ports["grpc"]) as peer:
        peer.send(frames.hello() + frames.headers(1, frames.call_headers(INFER, *headers)))
        for part in parts:
            peer.send(frames.data(1, part, end=part is parts[-1]))
        answer = peer.read_until(lambda frame: frame.type == frames.DATA).payload
    return bool(answer[0]), int.from_bytes(answer[1:5], "big")


@pytest.mark.parametrize("accepted", [b"identity,deflate,gzip", b"gzip", b"deflate"])
@pytest.mark.parametrize("length", LENGTHS)
def test_an_answer_is_compressed_for_who_understands_it(server: RunningServer, length: int, accepted: bytes) -> None:
    is_compressed, size = ask(server, length, (ACCEPT, accepted))
    assert is_compressed and size < 4 * length / 10


@pytest.mark.parametrize("headers", [(), ((ACCEPT, b"identity"),), ((ACCEPT, b"br"),)])
def test_an_answer_is_sent_as_it_is_to_who_does_not(server: RunningServer, headers: tuple[frames.Header, ...]) -> None:
    is_compressed, size = ask(server, LENGTHS[-1], *headers)
    assert not is_compressed and size > 4 * LENGTHS[-1]


def test_the_official_client_gets_what_it_asked_for(server: RunningServer) -> None:
    rows = np.arange(LENGTHS[-1], dtype=np.float32).reshape(1, -1)
    with connect(server) as channel:
        client = Client(channel)
        calls = [client.start_infer("identity", {"x": rows + i}) for i in range(8)]
        assert all(np.array_equal(answer_of(call)["y"], rows + i) for i, call in enumerate(calls))
        assert client.refusal("ModelInfer", infer_request("nobody", {"x": rows})).message
