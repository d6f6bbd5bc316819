"""Optimised graphs kept on disk, for models that ask for it: a later start skips ONNX Runtime's optimisers.

    <folder>/<key>/model.onnx, weights.bin

The key is a digest of everything that the graph was made of, so an entry is never stale and may be deleted at any
time. An entry is written under another name and then renamed: readers see a whole one or none, and of two servers
that write the same, one wins. Whoever may write to the folder may change what is served.
"""

from __future__ import annotations

import hashlib
import logging
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from server.errors import LoadFailed

log = logging.getLogger(__name__)

MODEL = "model.onnx"
WEIGHTS = "weights.bin"

_CPUINFO = Path("/proc/cpuinfo")

Opened = TypeVar("Opened")


def cache_key(files: Iterable[Path], *facts: object) -> str:
    """A digest of the contents of `files`, the processor's abilities, and `facts`, which must print what they are.

    Raises LoadFailed where a file cannot be read.
    """
    parts = [platform.machine(), _processor_flags(), *(repr(fact) for fact in facts)]
    for file in files:
        try:
            with file.open("rb") as content:
                parts += [file.name, hashlib.file_digest(content, "sha256").hexdigest()]
        except OSError as error:
            raise LoadFailed(f"{file}: cannot be read: {error.strerror}") from error
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def open_through_cache(
    folder: Path, key: str, open_entry: Callable[[Path], Opened], open_and_save: Callable[[Path | None], Opened]
) -> Opened:
    """Open the entry `key`, or open the model itself and make the entry.

    `open_entry` gets the entry's model file. `open_and_save` writes its optimised graph to the path that it gets, and
    gets None once it is clear that it cannot: a cache out of order costs time and no model. Raises what
    `open_and_save(None)` raises.
    """
    entry = folder / key
    if (entry / MODEL).is_file():
        try:
            return open_entry(entry / MODEL)
        except LoadFailed as error:
            log.warning("a cached graph cannot be used and is made anew: %s", error)
            shutil.rmtree(entry, ignore_errors=True)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{key[:16]}.", dir=folder))
    except OSError as error:
        log.warning("--model-cache-dir %s cannot be written, so the optimised graph is not kept: %s", folder, error)
        return open_and_save(None)
    try:
        opened = open_and_save(temporary / MODEL)
        _publish(temporary, entry)
    except LoadFailed as error:
        opened = open_and_save(None)  # where the model itself is at fault, this raises
        log.warning("the optimised graph is not kept: %s", error)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return opened


def _publish(temporary: Path, entry: Path) -> None:
    try:
        os.rename(temporary, entry)
    except OSError as error:
        if not entry.is_dir():  # else another server was quicker, with the same content
            log.warning("%s cannot be written, so the optimised graph is not kept: %s", entry, error)


def _processor_flags() -> str:
    """Graphs optimised in full are laid out for the instructions that the processor has."""
    try:
        found = re.search(r"^(?:flags|Features)\s*:(.*)$", _CPUINFO.read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found[1] if found else platform.processor()
