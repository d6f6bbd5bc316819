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
