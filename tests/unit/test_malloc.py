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
PATIENCE_SECONDS = 60
KEPT_EVERY = 50
"""So that no large run of blocks is free at the end of the heap."""

LARGE_BLOCKS = """
import resource, threading
from server.malloc import give_back_freed_memory, keep_freed_memory

def faults(take):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    take()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def large():
    b"x" * (60 << 20)

def large_elsewhere():
    thread = threading.Thread(target=large)
    thread.start()
    thread.join()

keep_freed_memory()
large()
kept = faults(large), faults(large_elsewhere)
give_back_freed_memory()
print(*kept, faults(large))
"""
"""Page faults of 60 MiB that were freed before, on two threads; then, of 60 MiB that went back."""
needs_glibc = pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="the C library is not glibc")


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
def test_large_blocks_come_from_memory_that_was_freed_by_any_thread_until_it_goes_back() -> None:
    command = [sys.executable, "-c", LARGE_BLOCKS]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=True)
    same_thread, other_thread, given_back = map(int, done.stdout.split())
    assert max(same_thread, other_thread) < 1_000
    assert given_back > 10_000
