"""How the C library keeps memory: large blocks that come and go with every large request should not cost page faults,
and what a model or many requests had should not stay with the process when they have gone.

glibc gives blocks from 128 KiB on back to the system as soon as they are freed, and whoever needs the next one has the
system clear as many pages again: a third of the CPU of a 600 KB request, and up to 13 ms for each 2 MiB on a virtual
machine (docs/performance.md). So it is asked to keep what is freed, and `freed_memory` says when that is too much.
What is left of loading a model is not to be kept: while one is loaded, large blocks come and go as they always do.

glibc's settings are those of the process, and so is what is known of them here.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3
M_MMAP_MAX = -4
M_ARENA_MAX = -8

NEVER = -1
MAPPED_BYTES = 1 << 20
"""Blocks from here on, weights among them, go back one by one if they were taken while a model was being loaded."""
MAPPED_BLOCKS = 1 << 16
"""glibc's own bound."""
PIECE_BYTES = 4 << 20

_libc = ctypes.CDLL(None)
_MADV_DONTNEED = 4
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_STATM = Path("/proc/self/statm")
_is_glibc = hasattr(_libc, "mallopt") and hasattr(_libc, "malloc_trim")
if _is_glibc:
    _libc.malloc.restype = _libc.sbrk.restype = ctypes.c_void_p
    _libc.malloc.argtypes = [ctypes.c_size_t]
    _libc.sbrk.argtypes = [ctypes.c_ssize_t]
    _libc.free.argtypes = [ctypes.c_void_p]
    _libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


class _Kept:
    """What is kept now."""

    asked = False
    loads = 0


def keep_freed_memory() -> None:
    """Ask glibc to, for blocks of any size and all threads together: what one has freed, another one can have.

    To be called before there are threads: each keeps the arena that it has. Does nothing under another C library.
    """
    if _is_glibc:
        _Kept.asked = True
        _libc.mallopt(M_ARENA_MAX, 1)
        _libc.mallopt(M_MMAP_THRESHOLD, MAPPED_BYTES)
        _libc.mallopt(M_MMAP_MAX, 0)
        _libc.mallopt(M_TRIM_THRESHOLD, NEVER)


@contextmanager
def loading() -> Iterator[None]:
    """Large blocks that are taken now go back as soon as they are freed. On the event loop's thread."""
    _Kept.loads += 1
    if _Kept.asked and _Kept.loads == 1:
        _libc.mallopt(M_MMAP_MAX, MAPPED_BLOCKS)
    try:
        yield
    finally:
        _Kept.loads -= 1
        if _Kept.asked and not _Kept.loads:
            _libc.mallopt(M_MMAP_MAX, 0)


def resident_bytes() -> int:
    """Of this process, now; 0 where the system does not say."""
    return int(_STATM.read_bytes().split()[1]) * _PAGE_BYTES if _STATM.exists() else 0


def give_back_freed_memory() -> None:
    """Ask glibc to, all of it. Does nothing under another C library.

    It takes 4 ms for 500 MB in large pages, 40 in small ones. glibc would let nobody have memory meanwhile, so pieces
    of 4 MiB go back first, one by one. Without it a process keeps the memory of ten models of 30 MB once they are
    unloaded, 740 MB: little of it is at the end of a heap.
    """
    if not _is_glibc:
        return
    if _Kept.asked:
        give_back_pieces()
    _libc.malloc_trim(0)


def give_back_pieces() -> None:
    """What is free in pieces of 4 MiB. They are all taken when the heap grows for the next one."""
    pieces: list[int] = []
    end = _libc.sbrk(0)
    for _ in range(resident_bytes() // PIECE_BYTES):  # also where the heap is not one, but grows by mappings
        piece = _libc.malloc(PIECE_BYTES)
        if piece is None or _libc.sbrk(0) != end:
            _libc.free(piece)
            break
        start = -(-piece // _PAGE_BYTES) * _PAGE_BYTES
        _libc.madvise(start, piece + PIECE_BYTES - start & -_PAGE_BYTES, _MADV_DONTNEED)
        pieces.append(piece)
    for piece in pieces:
        _libc.free(piece)
