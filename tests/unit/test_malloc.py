"""Memory that was freed is kept, and goes back to the system when it is asked to."""

from __future__ import annotations

import ctypes
import re
import subprocess
import sys
from pathlib import Path

import pytest

from server.malloc import give_back_freed_memory

BLOCK_BYTES, BLOCKS = 100_000, 1_000
"""Below what glibc takes from the system one by one."""
KEPT_EVERY = 50
"""So that no large run of blocks is free at the end of the heap."""
PATIENCE_SECONDS = 60

KEEPING = """
import threading
from server import malloc

malloc.keep_freed_memory()

def large():
    return b"x" * (60 << 20)

def in_thread(work):
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()

def tell_growth(work):
    before = malloc.resident_bytes()
    work()
    print((malloc.resident_bytes() - before) >> 20)
"""
"""A block of 60 MiB comes and goes. `tell_growth` says how many MiB are resident afterwards that were not before."""
LITTLE, MUCH = 10, 50
needs_glibc = pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "mallopt") or not Path("/proc/self/statm").exists(),
    reason="the C library is not glibc, or there is no /proc to look at",
)


def printed(script: str) -> list[int]:
    """What a process says that keeps freed memory."""
    command = [sys.executable, "-c", KEEPING + script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=True)
    return [int(word) for word in done.stdout.split()]


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


@needs_glibc
def test_a_large_block_that_was_freed_serves_any_thread() -> None:
    first, *others = printed("for work in large, large, lambda: in_thread(large): tell_growth(work)")
    assert first > MUCH
    assert max(others) < LITTLE


@needs_glibc
@pytest.mark.parametrize("give_back", ["give_back_freed_memory", "give_back_pieces"])
def test_what_is_kept_goes_back_when_it_is_asked_to(give_back: str) -> None:
    [growth] = printed(f"large(); tell_growth(malloc.{give_back})")
    assert growth < -MUCH


@needs_glibc
def test_pieces_that_go_back_leave_alone_what_is_in_use() -> None:
    script = """
blocks = [bytes([i]) * (7 << 20) for i in range(16)]
del blocks[::2]
malloc.give_back_pieces()
print(sum(block == bytes([block[0]]) * (7 << 20) for block in blocks))
"""
    assert printed(script) == [8]


@needs_glibc
def test_what_is_taken_while_models_are_loaded_goes_back_when_it_is_freed() -> None:
    script = """
with malloc.loading():
    with malloc.loading():
        tell_growth(large)
    tell_growth(large)
tell_growth(large)
"""
    in_both, in_one, later = printed(script)
    assert max(in_both, in_one) < LITTLE
    assert later > MUCH
