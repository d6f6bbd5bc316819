"""Pages of large blocks are made on another thread, and nothing else changes."""

from __future__ import annotations

import asyncio
import ctypes
import mmap
import sys
import threading

import pytest

from server.pages import SLICE_BYTES, Populator, address_of, populate

PAGE_BYTES = mmap.PAGESIZE
PATIENCE_SECONDS = 30
BLOCK_BYTES = 2 * SLICE_BYTES + 3 * PAGE_BYTES
needs_populate = pytest.mark.skipif(
    not sys.platform.startswith("linux") or not populate(address_of(memoryview(bytearray(1))), 1),
    reason="the system does not populate pages on demand (Linux before 5.14)",
)


def resident_pages(block: mmap.mmap) -> int:
    """How many of a block's pages are there."""
    found = (ctypes.c_ubyte * (len(block) // PAGE_BYTES))()
    libc = ctypes.CDLL(None, use_errno=True)
    address = ctypes.c_void_p(address_of(memoryview(block)))
    assert libc.mincore(address, ctypes.c_size_t(len(block)), found) == 0
    return sum(page & 1 for page in found)


@needs_populate
def test_every_page_of_a_block_is_there_afterwards() -> None:
    with mmap.mmap(-1, BLOCK_BYTES) as block:
        assert resident_pages(block) == 0
        assert populate(address_of(memoryview(block)) + 1, BLOCK_BYTES - 2)
        assert resident_pages(block) == BLOCK_BYTES // PAGE_BYTES


@needs_populate
def test_what_was_written_already_stays() -> None:
    block = bytearray(b"head") + bytearray(BLOCK_BYTES)
    populate(address_of(memoryview(block)), len(block))
    assert block == b"head" + bytes(BLOCK_BYTES)


def test_a_block_that_is_gone_is_let_be() -> None:
    with mmap.mmap(-1, BLOCK_BYTES) as block:
        address = address_of(memoryview(block))
    assert not populate(address, BLOCK_BYTES)


def test_whoever_waits_hears_of_it_on_the_event_loop() -> None:
    async def wait() -> int:
        loop, heard = asyncio.get_running_loop(), asyncio.Event()
        threads: list[int] = []

        def then() -> None:
            threads.append(threading.get_ident())
            heard.set()

        block = bytearray(BLOCK_BYTES)
        populator = Populator()
        populator.populate(loop, address_of(memoryview(block)), len(block), then)
        async with asyncio.timeout(PATIENCE_SECONDS):
            await heard.wait()
        populator.close()
        return threads.pop()

    assert asyncio.run(wait()) == threading.get_ident()
