"""Files that somebody else names and puts into a folder: read without being held up, and without more memory than they
may have.

A pipe in the place of a file would block whoever opens it, and a file of holes may announce any size. So a file is
opened without blocking, and looked at before a byte of it is read.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from server.errors import LoadFailed

MAX_NAME_BYTES = 255
"""What file systems take."""


def problem_of_name(name: str) -> str:
    """Why a name cannot be that of a file or folder that is served; "" where it can, and is one component of a path."""
    if not name or name.startswith("."):
        return "a name must not be empty or begin with a dot"
    if "/" in name or "\\" in name or not name.isprintable():
        return "a name must not have slashes, backslashes or unprintable characters"
    if len(name.encode()) > MAX_NAME_BYTES:
        return f"a name must not be longer than {MAX_NAME_BYTES} bytes"
    return ""


@contextmanager
def given_by(flag: str, path: Path) -> Iterator[None]:
    """While a file that a flag names is opened. Raises `OSError` that names both, and says what is wrong."""
    try:
        yield
    except OSError as error:
        raise OSError(f"{flag} {path}: {error.strerror or error}") from error


def read_file(path: Path, most_bytes: int) -> bytes:
    """The contents of a regular file of at most so many bytes. Raises LoadFailed."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise LoadFailed(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:  # a zero byte in its name
        raise LoadFailed(f"{path}: cannot be read: {error}") from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise LoadFailed(f"{path}: is no regular file; put a file in its place")
        if status.st_size > most_bytes:
            raise LoadFailed(f"{path}: has {status.st_size} bytes, and {most_bytes} are read at most")
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(most_bytes)
    except OSError as error:
        raise LoadFailed(f"{path}: cannot be read: {error.strerror}") from error
    finally:
        os.close(descriptor)
