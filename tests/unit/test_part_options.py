"""What flags decide reaches the part that it is about."""

from __future__ import annotations

import pytest

from server.frontends.statuses import AS_TRITON
from server.memory_budget import MemoryBudget
from server.part_options import grpc_options, http_options, memory_budget
from server.settings import parse


@pytest.mark.parametrize("shared", [False, True])
def test_each_port_is_shared_as_its_flag_says(shared: bool) -> None:
    flags = [f"--reuse-http-port={shared}", f"--reuse-grpc-port={not shared}"]
    settings = parse(["--model-repository=models", *flags])
    memory = MemoryBudget()
    http, grpc = http_options(settings, memory, AS_TRITON), grpc_options(settings, memory, AS_TRITON)
    assert (http.reuse_port, grpc.reuse_port) == (shared, not shared)


def test_the_memory_budget_is_what_its_flag_says() -> None:
    assert memory_budget(parse(["--model-repository=models", "--memory-budget=3G"])).limit == 3 << 30


def test_without_a_flag_the_memory_budget_has_room_for_some_of_the_largest_requests() -> None:
    flags = ["--grpc-max-message-bytes=1099511627776"]  # more than any machine has
    assert memory_budget(parse(["--model-repository=models", *flags])).limit == 4 << 40
