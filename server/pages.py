"""First touches of large blocks, on a thread of their own.

The first write to a page has the system find one and clear it, which the event loop would wait for while it reads a
body: 0.2 ms for each 2 MiB, and 4 to 13 ms on a virtual machine whose host took free memory back (free page reporting).
"""

from __future__ import annotations

import ctypes
from asyncio import AbstractEventLoop
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

POPULATED_BYTES = 4 << 20
"""The least that is worth a thread: NumPy and `http2_shim.c` ask for large pages from here on."""
SLICE_BYTES = 2 << 20
"""One large page. Whoever maps or unmaps memory meanwhile waits for one slice at most."""

_PAGE_BYTES = 4096
_MADV_POPULATE_WRITE = 23
_libc = ctypes.CDLL(None)


def populate(address: int, length: int) -> bool:
    """Make the pages of a block, whose contents stay what they are. Returns whether the system did: Linux from 5.14 on.

    Harmless where the block has been freed by now.
    """
    start, end = address & -_PAGE_BYTES, address + length
    while start < end:
        stop = min((start & -SLICE_BYTES) + SLICE_BYTES, end)
        if _libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(stop - start), _MADV_POPULATE_WRITE):
            return False
        start = stop
    return True


def address_of(block: memoryview) -> int:
    """Where a writable block begins."""
    return ctypes.addressof(ctypes.c_char.from_buffer(block))


class Populator:
    """The thread."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="pages")

    def start(self) -> None:
        """Have the thread run before anyone is served: whoever starts one waits until it does."""
        self._thread.submit(int)

    def populate(self, loop: AbstractEventLoop, address: int, length: int, then: Callable[[], None]) -> None:
        """Make the pages of a block, and call `then` on the event loop when they are there, or cannot be."""
        self.run(loop, partial(populate, address, length), then)

    def run(self, loop: AbstractEventLoop, function: Callable[[], object], then: Callable[[], None]) -> None:
        """Have the thread do something, after what it was asked before, and call `then` on the event loop."""
        loop.run_in_executor(self._thread, function).add_done_callback(lambda _: then())

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)
