"""Memory that was freed goes back to the system when it is asked to."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from server.malloc import give_back_freed_memory

BLOCK_BYTES, BLOCKS = 100_000, 1_000
"""Below what glibc takes from the system one by one."""
KEPT_EVERY = 50
"""So that no large run of blocks is free at the end of the heap."""


def resident_bytes() -> int:
    found = re.search(r"VmRSS:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) << 10


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="there is no /proc to look at")
def test_freed_memory_goes_back_though_blocks_among_it_are_in_use() -> None:
    blocks = [bytes(BLOCK_BYTES + i) for i in range(BLOCKS)]
    kept = blocks[::KEPT_EVERY]
    blocks.clear()
    before = resident_bytes()
    give_back_freed_memory()
    assert before - resident_bytes() > BLOCK_BYTES * BLOCKS // 2
    assert len(kept) == BLOCKS // KEPT_EVERY
