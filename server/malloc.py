"""How the C library keeps memory: large blocks that come and go with every large request should not cost page faults,
and what a model or many requests had should not stay with the process when they have gone.

glibc gives blocks from 128 KiB on back to the system as soon as they are freed, and whoever needs the next one has the
system clear as many pages again: a third of the CPU of a 600 KB request, and up to 13 ms for each 2 MiB on a virtual
machine (docs/performance.md). So it is asked to keep what is freed, and `freed_memory` says when that is too much.
"""

from __future__ import annotations

import ctypes

M_TRIM_THRESHOLD = -1
M_MMAP_MAX = -4
M_ARENA_MAX = -8

NEVER = -1


def keep_freed_memory() -> None:
    """Ask glibc to, for blocks of any size and all threads together: what one has freed, another one can have.

    To be called before there are threads: each keeps the arena that it has. Does nothing under another C library.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_ARENA_MAX, 1)
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, NEVER)


def give_back_freed_memory() -> None:
    """Ask glibc to, all of it. Milliseconds: 1 to 4 for 540 MB in large pages, some for 30 MB in small ones; meanwhile
    whoever needs memory waits. Does nothing under another C library.

    Without it a process keeps the memory of ten such models once they are unloaded, 740 MB: little of it is at the end
    of a heap.
    """
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(0)
