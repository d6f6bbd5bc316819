"""POSIX shared memory objects, read and written by `pread` and `pwrite`."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from server.errors import InvalidRequest, SharedMemoryFailed
from server.tensors import Buffer

FOLDER = Path("/dev/shm")  # noqa: S108 -- where Linux has these objects, shm_overview(7)
MAX_KEY_BYTES = 255  # NAME_MAX, shm_open(3)


class PosixRegion:
    """A part of an object, held open from registration until nobody has this any more.

    Its caller may write to the object, cut it off or remove it at any time: that is seen in what is read, or raised as
    `SharedMemoryFailed`.
    """

    def __init__(self, key: str, offset: int, byte_size: int, folder: Path = FOLDER) -> None:
        """Raises `InvalidRequest` for a key that no object can have, `SharedMemoryFailed` where it cannot be opened.

        `offset` is where in the object the region begins, in bytes.
        """
        self.key = key
        self.offset = offset
        self.byte_size = byte_size
        self._fd = _open(folder / file_name(key), key)
        self.object_bytes = os.fstat(self._fd).st_size
        """The whole object's size when it was opened."""

    def __del__(self) -> None:
        if hasattr(self, "_fd"):
            os.close(self._fd)

    def read_into(self, offset: int, target: memoryview) -> None:
        """Fill `target`, bytes, from `offset` on. Raises `SharedMemoryFailed` where the object ends before."""
        start, done = self.offset + offset, 0
        try:
            while done < len(target):
                count = os.preadv(self._fd, [target[done:]], start + done)
                if not count:
                    raise SharedMemoryFailed(f"the object '{self.key}' has become smaller than its region")
                done += count
        except OSError as error:
            raise SharedMemoryFailed(f"the object '{self.key}' cannot be read: {error.strerror}") from error

    def write(self, offset: int, data: Buffer) -> None:
        """Write bytes from `offset` on. Raises `SharedMemoryFailed`."""
        view, start = memoryview(data), self.offset + offset
        try:
            # A write past the end would make the object grow again. Where it is cut off between, it does: no harm.
            if os.fstat(self._fd).st_size < start + len(view):
                raise SharedMemoryFailed(f"the object '{self.key}' has become smaller than its region")
            while view:
                count = os.pwrite(self._fd, view, start)
                view, start = view[count:], start + count
        except OSError as error:
            raise SharedMemoryFailed(f"the object '{self.key}' cannot be written to: {error.strerror}") from error


def file_name(key: str) -> str:
    """The file of an object. One slash may come first, as in `shm_open`. Raises `InvalidRequest`."""
    name = key.removeprefix("/")
    if not name or "/" in name or "\0" in name or name in (".", "..") or len(name.encode()) > MAX_KEY_BYTES:
        raise InvalidRequest(
            f"invalid shared memory key {key[:MAX_KEY_BYTES]!r}: it must be a name of at most {MAX_KEY_BYTES} bytes "
            "without a slash but a leading one"
        )
    return name


def _open(path: Path, key: str) -> int:
    # Neither through a link nor, where it is a pipe, for ever.
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        fd = os.open(path, flags)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise SharedMemoryFailed(f"Unable to open shared memory region: '{key}': {why}") from error
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise SharedMemoryFailed(f"Unable to open shared memory region: '{key}': it is no shared memory object")
    return fd
