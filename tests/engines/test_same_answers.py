"""The same server on both engines, side by side, with real ONNX Runtime: callers cannot tell which one they talk to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from proto import grpc_service_pb2 as pb
from proto.grpc_health.v1 import health_pb2
from tests import onnx_models
from tests.engines.hosting import why_missing
from tests.real.clients import SERVICE, infer_request
from tests.real.conftest import connect, start
from tests.repositories import add_model

STREAM_INFER = f"{SERVICE}/ModelStreamInfer"
HEALTH = "/grpc.health.v1.Health"
MAX_MESSAGE_BYTES = 1 << 20
SECONDS = 30
FLOATS = np.arange(8, dtype=np.float32).reshape(2, 4)
STRINGS = np.array([[b"one", "zwei ☃".encode()]], dtype=object)


@dataclass(frozen=True)
class Answer:
    """All that a caller learns."""

    messages: tuple[bytes, ...]
    status: grpc.StatusCode
    details: str
    initial: tuple[tuple[str, str | bytes], ...]
    trailing: tuple[tuple[str, str | bytes], ...]


@pytest.fixture(scope="module")
def channels(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[grpc.Channel, grpc.Channel]]:
    """A connection to a server of each engine; both serve the same repository."""
    if reason := why_missing("nghttp2"):
        pytest.skip(reason)
    root = _repository(tmp_path_factory.mktemp("models"))
    with ExitStack() as stack:
        opened = []
        for engine in ("nghttp2", "grpcio"):
            folder = tmp_path_factory.mktemp(engine)
            server = start(
                folder,
                f"--grpc-engine={engine}",
                "--strict-readiness=false",
                f"--grpc-max-message-bytes={MAX_MESSAGE_BYTES}",
                model_repository=root,
            )
            stack.callback(server.terminate)
            opened.append(stack.enter_context(connect(server)))
        yield opened[0], opened[1]


def _repository(root: Path) -> Path:
    add_model(root, "add_sub", onnx_models.add_sub(), "max_batch_size: 8")
    add_model(root, "strings", onnx_models.identity("BYTES", ("N", 2)))
    add_model(root, "lookup", onnx_models.lookup())
    add_model(root, "network", onnx_models.mlp())
    add_model(root, "late", onnx_models.affine(), "max_batch_size: 8 dynamic_batching { max_queue_delay_microseconds: "
              "600000000 default_queue_policy { default_timeout_microseconds: 20000 } }")  # fmt: skip
    add_model(root, "broken", b"this is no model")
    return root


def infer(model: str, inputs: dict[str, Any], **fields: Any) -> bytes:
    return infer_request(model, inputs, id="same", **fields).SerializeToString()


PAIR = {"a": FLOATS, "b": FLOATS}
INFERENCES = {
    "add_sub": infer("add_sub", PAIR),
    "one output": infer("add_sub", PAIR, outputs=[pb.ModelInferRequest.InferRequestedOutputTensor(name="sum")]),
    "strings": infer("strings", {"x": STRINGS}),
    "network": infer("network", {"x": np.linspace(-1, 1, 32, dtype=np.float32).reshape(1, 32)}),
    "by version": infer("add_sub", PAIR, model_version="1"),
    "unknown model": infer("nothing ☃", PAIR),
    "unknown version": infer("add_sub", PAIR, model_version="7"),
    "no version": infer("add_sub", PAIR, model_version="newest"),
    "broken model": infer("broken", PAIR),
    "missing input": infer("add_sub", {"a": FLOATS}),
    "strange input": infer("add_sub", PAIR | {"c": FLOATS}),
    "strange output": infer("add_sub", PAIR, outputs=[pb.ModelInferRequest.InferRequestedOutputTensor(name="x")]),
    "wrong datatype": infer("add_sub", {"a": FLOATS.astype(np.int32), "b": FLOATS}),
    "wrong shape": infer("add_sub", {"a": FLOATS[:, :2], "b": FLOATS}),
    "different batches": infer("add_sub", {"a": FLOATS[:1], "b": FLOATS}),
    "too many rows": infer("add_sub", {"a": FLOATS.repeat(8, 0), "b": FLOATS.repeat(8, 0)}),
    "a run that fails": infer("lookup", {"x": np.array([[99]], np.int64)}),
    "expired in the queue": infer("late", {"x": np.array([[1]], np.int64)}),
    "no protobuf": b"\xff\xff\xff\xff",
    "empty": b"",
}
UNARY = {
    **{f"ModelInfer: {name}": (f"{SERVICE}/ModelInfer", message) for name, message in INFERENCES.items()},
    **{
        method: (f"{SERVICE}/{method}", b"")
        for method in ("ServerLive", "ServerReady", "ServerMetadata", "RepositoryIndex", "TraceSetting", "LogSettings")
    },
    **{
        f"{method}: {name or 'none'}": (
            f"{SERVICE}/{method}",
            getattr(pb, f"{method}Request")(name=name).SerializeToString(),
        )
        for method in ("ModelReady", "ModelMetadata", "ModelConfig")
        for name in ("add_sub", "broken", "unknown", "")
    },
    "ModelStatistics: unknown": (
        f"{SERVICE}/ModelStatistics",
        pb.ModelStatisticsRequest(name="unknown").SerializeToString(),
    ),
    "ModelReady: no protobuf": (f"{SERVICE}/ModelReady", b"\x0a\xff"),
    "Check": (f"{HEALTH}/Check", b""),
    "Check: unknown": (f"{HEALTH}/Check", health_pb2.HealthCheckRequest(service="unknown").SerializeToString()),
    "unknown method": (f"{SERVICE}/ModelGuess", b""),
    "unknown service": ("/unknown.Service/Method", b""),
}
STREAMS = {
    "unknown streaming method": ("/unknown.Service/Stream", []),
    "reflection": (
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        [b"\x3a\x00", b"\x22" + bytes([len(SERVICE) - 1]) + SERVICE[1:].encode(), b"\x22\x03abc"],
    ),
    "reflection: no protobuf": ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", [b"\xff"]),
    "ModelStreamInfer": (STREAM_INFER, [INFERENCES["add_sub"], INFERENCES["strings"], INFERENCES["network"]]),
    "ModelStreamInfer: errors among answers": (STREAM_INFER, list(INFERENCES.values())),
    "ModelStreamInfer: nothing sent": (STREAM_INFER, []),
    "Watch: nothing sent": (f"{HEALTH}/Watch", []),
    "Watch: no protobuf": (f"{HEALTH}/Watch", [b"\xff"]),
}


@pytest.mark.parametrize(("path", "message"), UNARY.values(), ids=UNARY)
def test_a_unary_call_is_answered_the_same(
    channels: tuple[grpc.Channel, grpc.Channel], path: str, message: bytes
) -> None:
    ours, theirs = (_ask(channel, path, message) for channel in channels)
    assert ours == theirs


@pytest.mark.parametrize(("path", "messages"), STREAMS.values(), ids=STREAMS)
def test_a_stream_is_answered_the_same(
    channels: tuple[grpc.Channel, grpc.Channel], path: str, messages: list[bytes]
) -> None:
    ours, theirs = (_converse(channel, path, messages) for channel in channels)
    assert ours == theirs


@pytest.mark.parametrize("flag", ["true", "false"])
def test_a_stream_of_triton_grpc_errors_is_answered_the_same(
    channels: tuple[grpc.Channel, grpc.Channel], flag: str
) -> None:
    messages = [INFERENCES["add_sub"], INFERENCES["unknown model"], INFERENCES["strings"]]
    ours, theirs = (
        _converse(channel, STREAM_INFER, messages, metadata=[("triton_grpc_error", flag)]) for channel in channels
    )
    assert ours == theirs


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate], ids=["gzip", "deflate"])
def test_a_compressed_call_is_answered_the_same(
    channels: tuple[grpc.Channel, grpc.Channel], compression: grpc.Compression
) -> None:
    ours, theirs = (
        _ask(channel, f"{SERVICE}/ModelInfer", INFERENCES["add_sub"], compression=compression) for channel in channels
    )
    assert ours == theirs
    assert ours.status == grpc.StatusCode.OK


@pytest.mark.parametrize("compression", [None, grpc.Compression.Gzip], ids=["plain", "gzip"])
def test_a_call_that_is_too_large_has_the_same_status(
    channels: tuple[grpc.Channel, grpc.Channel], compression: grpc.Compression | None
) -> None:
    """The engines see it at different moments, and say so in other words."""
    request = bytes(MAX_MESSAGE_BYTES + 1)
    for channel in channels:
        answer = _ask(channel, f"{SERVICE}/ModelInfer", request, compression=compression)
        assert (answer.status, answer.trailing) == (grpc.StatusCode.RESOURCE_EXHAUSTED, ())


def _ask(channel: grpc.Channel, path: str, message: bytes, **options: Any) -> Answer:
    call = channel.unary_unary(path).future(message, timeout=SECONDS, **options)
    return _seen(call, [] if call.exception() else [call.result()])


def _converse(channel: grpc.Channel, path: str, messages: list[bytes], **options: Any) -> Answer:
    call = channel.stream_stream(path)(iter(messages), timeout=SECONDS, **options)
    answers: list[bytes] = []
    with suppress(grpc.RpcError):
        answers.extend(call)
    return _seen(call, answers)


def _seen(call: Any, answers: list[bytes]) -> Answer:
    initial, trailing = (
        tuple((key, value) for key, value in metadata)
        for metadata in (call.initial_metadata(), call.trailing_metadata())
    )
    return Answer(tuple(answers), call.code(), call.details(), initial, trailing)
