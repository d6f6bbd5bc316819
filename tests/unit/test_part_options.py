"""What flags decide reaches the part that it is about."""

from __future__ import annotations

import pytest

from server.part_options import grpc_options, http_options
from server.settings import parse


@pytest.mark.parametrize("shared", [False, True])
def test_each_port_is_shared_as_its_flag_says(shared: bool) -> None:
    flags = [f"--reuse-http-port={shared}", f"--reuse-grpc-port={not shared}"]
    settings = parse(["--model-repository=models", *flags])
    assert (http_options(settings).reuse_port, grpc_options(settings).reuse_port) == (shared, not shared)


@pytest.mark.parametrize(("word", "level"), [(None, 0), ("none", 0), ("low", 1), ("Medium", 2), ("HIGH", 3)])
def test_answers_are_compressed_as_much_as_their_flag_says(word: str | None, level: int) -> None:
    flags = [] if word is None else [f"--grpc-infer-response-compression-level={word}"]
    assert grpc_options(parse(["--model-repository=models", *flags])).compression_level == level
