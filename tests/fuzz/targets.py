"""The targets by name: what each does with its bytes, where its seeds lie, and how they are mutated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.fuzz import config_targets, file_targets, grpc_targets, http1_targets, infer_targets, mutators, word_targets
from tests.fuzz.dictionaries import CONFIG, HTTP, INFER, JSON, ONNX, WIRE, WORDS
from tests.fuzz.mutators import Mutate, by_parts

SEEDS = Path(__file__).parent / "seeds"
MIN_BYTES = 2
"""Of an input: most targets' first bytes are their own choices."""


@dataclass(frozen=True)
class Target:
    """One thing to fuzz."""

    run: Callable[[bytes], None]
    """Returns, or the code under it has a bug."""
    seeds: str
    """The folder of its seeds."""
    prefix: bytes = b""
    """What a target's own choices are for a seed, which is what would come over the wire."""
    dictionary: tuple[bytes, ...] = ()
    mutate: Mutate | None = None
    """None leaves all to libFuzzer."""
    max_bytes: int = 4096
    """Of an input."""

    def inputs(self) -> dict[str, bytes]:
        """Its seeds by name, as inputs."""
        return {path.name: self.prefix + path.read_bytes() for path in sorted((SEEDS / self.seeds).iterdir())}

    def __call__(self, data: bytes) -> None:
        """One input."""
        if MIN_BYTES <= len(data) <= self.max_bytes:
            self.run(data)


def _protobuf(prefix_bytes: int = 0) -> Mutate:
    return by_parts(
        mutators.split_protobuf, mutators.join_protobuf, prefix_bytes, nested=True, respell=mutators.longer_varint
    )


_WIRE = by_parts(mutators.split_messages, mutators.join_messages, 2)
_MESSAGES = by_parts(mutators.split_messages, mutators.join_messages, 1)
_FRAMES = by_parts(mutators.split_frames, mutators.join_frames, 2)
_PICTURE = by_parts(mutators.split_picture, mutators.join_picture, 1)

TARGETS: dict[str, Target] = {
    "messages": Target(grpc_targets.fuzz_messages, "wire", b"\x40\x01", WIRE, _WIRE),
    "headers": Target(grpc_targets.fuzz_headers, "wire", b"\x40\x01", WIRE),
    "texts": Target(grpc_targets.fuzz_texts, "wire", b"\x40\x01", WIRE),
    "connection": Target(grpc_targets.fuzz_connection, "http2", b"\x40\x01", mutate=_FRAMES, max_bytes=8192),
    "sessions": Target(grpc_targets.fuzz_sessions, "http2", b"\x40\x01", mutate=_FRAMES, max_bytes=8192),
    "infer": Target(infer_targets.fuzz_infer, "infer", b"", INFER, _protobuf()),
    "stream": Target(infer_targets.fuzz_stream, "stream", b"", INFER, _MESSAGES),
    "http_body": Target(infer_targets.fuzz_http_body, "http_body", b"", JSON),
    "json_tensor": Target(infer_targets.fuzz_json_tensor, "json_tensor", b"", JSON),
    "generate": Target(infer_targets.fuzz_generate, "generate", b"", JSON),
    "http1": Target(http1_targets.fuzz_http1, "http1", b"\x06", HTTP),
    "routes": Target(http1_targets.fuzz_routes, "routes", b"", (*HTTP, *JSON)),
    "codings": Target(http1_targets.fuzz_codings, "codings", b"\0\xff"),
    "config_text": Target(config_targets.fuzz_config_text, "config_text", b"", CONFIG),
    "config": Target(config_targets.fuzz_config, "config", b"", CONFIG, _protobuf()),
    "config_json": Target(config_targets.fuzz_config_json, "config_json", b"", CONFIG),
    "onnx": Target(file_targets.fuzz_onnx, "onnx", b"", ONNX, _protobuf()),
    "labels": Target(file_targets.fuzz_labels, "labels"),
    "load": Target(file_targets.fuzz_load, "load", mutate=by_parts(mutators.split_messages, mutators.join_messages)),
    "pictures": Target(file_targets.fuzz_pictures, "pictures", b"\0", mutate=_PICTURE, max_bytes=8192),
    "words": Target(word_targets.fuzz_words, "words", b"", WORDS),
    "rpcs": Target(word_targets.fuzz_rpcs, "rpcs", b"", INFER, _protobuf(1)),
}

RUNS = {
    "messages": 250_000, "headers": 2_000_000, "texts": 2_000_000, "connection": 45_000, "sessions": 20_000,
    "infer": 250_000, "stream": 200_000, "http_body": 800_000, "json_tensor": 1_000_000, "generate": 1_000_000,
    "http1": 150_000, "routes": 150_000, "codings": 1_000_000, "config_text": 350_000, "config": 200_000,
    "config_json": 700_000, "onnx": 120_000, "labels": 300_000, "load": 250_000, "pictures": 400_000,
    "words": 200_000, "rpcs": 800_000,
}  # fmt: skip
"""Inputs of each target that take about a minute of one core: numbers, so that they are the same on every machine."""
