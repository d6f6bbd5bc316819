"""How the C library keeps memory: large buffers that come and go with every large request should not cost page faults,
and what a model had should not stay with the process when the model has gone.

glibc gives blocks from 128 KiB on back to the system as soon as they are freed, and the next request has the system
clear as many pages again: a third of the CPU of a 600 KB request (docs/performance.md).
"""

from __future__ import annotations

import ctypes

M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3

KEPT_BYTES = 128 << 20
"""Free memory at the end of the heap that the process may keep."""
LARGEST_KEPT_BLOCK = 32 << 20
"""The most that glibc takes; larger blocks go back to the system when they are freed."""


def keep_freed_memory() -> None:
    """Ask glibc to. Does nothing under another C library."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGEST_KEPT_BLOCK)
        mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)


def give_back_freed_memory() -> None:
    """Ask glibc to, all of it. Some milliseconds for a model of 30 MB. Does nothing under another C library.

    Without it a process keeps the memory of ten such models once they are unloaded, 740 MB: little of it is at the end
    of a heap.
    """
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(0)
