"""Files that are there whole or not at all, and the one error that a command of this room reports."""

from __future__ import annotations

import os
from pathlib import Path


class TrainingError(Exception):
    """A command cannot do what it was asked. The message says what happened, to which file, and what to do."""


def first_line(error: Exception) -> str:
    """What a library says before it goes on for a page."""
    said = (str(error) or "it is empty").splitlines()[0]
    return f"KeyError: {said}" if isinstance(error, KeyError) else said


def write_atomically(path: Path, content: bytes) -> None:
    """Write to a hidden file beside `path`, on disk before it takes the name: a kill leaves the old file or the new."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        raise TrainingError(f"{path} cannot be written: {error.strerror}.") from error
