"""Sessions that are being opened: they can be given up, and they should not hold up whoever serves meanwhile."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnxruntime as ort

from server.errors import LoadFailed

log = logging.getLogger(__name__)

OPENS_BESIDE_OTHERS = (1, 31)
"""The first ONNX Runtime that lets go of the interpreter while it opens a session (docs/performance.md)."""


class Loads:
    """The loads in progress of one backend. Used from any thread."""

    def __init__(self) -> None:
        self._in_progress: set[ort.SessionOptions] = set()
        self._given_up = False

    @contextmanager
    def in_progress(self, path: Path, settings: ort.SessionOptions) -> Iterator[None]:
        """While a session with these options is opened. Raises `LoadFailed` where it was given up."""
        self._in_progress.add(settings)  # before the question, so that none slips through between the two
        try:
            if not self._given_up:
                log.debug("%s: being opened", path)
                yield
                return
        except LoadFailed:
            if not self._given_up:
                raise
        finally:
            self._in_progress.discard(settings)
        log.info("%s: given up, because the server stops", path)  # who waited for it may be gone
        raise LoadFailed(f"{path}: given up, because the server stops")

    def give_up(self) -> None:
        """End the loads in progress at their next step, and all that come at once."""
        self._given_up = True
        for settings in tuple(self._in_progress):
            settings.set_load_cancellation_flag(True)


def holds_up_others(version: str) -> bool:
    """Whether this ONNX Runtime ("1.32.0") keeps every other thread waiting while it opens a session."""
    major, minor = version.split(".")[:2]
    return (int(major), int(minor)) < OPENS_BESIDE_OTHERS
