"""Loads that fail for what the machine is short of, and not for their files: the same files may be tried again."""

from __future__ import annotations

from errno import EAGAIN, EIO, EMFILE, ENFILE, ENOMEM, ENOSPC

SHORTAGES = frozenset({EAGAIN, EIO, EMFILE, ENFILE, ENOMEM, ENOSPC})
"""What the system says where files are not to blame."""

NO_THREAD = ("can't start new thread", "pthread_create failed")
"""Python's words and ONNX Runtime's, where the system gives no thread."""


def is_passing(error: BaseException | None) -> bool:
    """Whether a load failed for what this machine was short of, which it may have again. Pure."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in SHORTAGES:
            return True
        if isinstance(error, MemoryError) or any(words in str(error) for words in NO_THREAD):
            return True
        error = error.__cause__
    return False
