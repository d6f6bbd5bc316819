"""Loads in progress: each can be ended from another thread, and some go on one after another."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from server.errors import LoadFailed

OPENS_BESIDE_OTHERS = (1, 31)
"""The first ONNX Runtime that lets go of the interpreter while it opens a session (docs/performance.md)."""


class LoadAttempt:
    """One load, as its thread, and those who watch it from another one, know of it."""

    def __init__(self, changed: Callable[[], None] = lambda: None) -> None:
        """`changed` is called on the load's thread when the first run with a limit begins."""
        self.runs = 0
        """The number of the latest run of the model."""
        self.run_limit = 0.0
        """Seconds that a run may take from now on; 0: as many as it likes."""
        self.waits = False
        """Whether it waits for its turn."""
        self.error: LoadFailed | None = None
        """What it fails with, since it was interrupted."""
        self.left = False
        """Whether nobody waits for its thread any more."""
        self._changed = changed
        self._lock = threading.Lock()
        self._ends: list[Callable[[], None]] = []

    def check(self) -> None:
        """Raise `LoadFailed` where the load was interrupted."""
        if self.error is not None:
            raise self.error

    def next_run(self) -> None:
        """The model is about to run. Raises `LoadFailed` where the load was interrupted."""
        self.check()
        self.runs += 1
        if self.runs == 1 and self.run_limit:
            self._changed()

    @contextmanager
    def limited_runs(self, seconds: float) -> Iterator[None]:
        """While each run may take so long; 0: as long as it likes."""
        self.run_limit = seconds
        try:
            yield
        finally:
            self.run_limit = 0.0

    @contextmanager
    def interruptible(self, end: Callable[[], None]) -> Iterator[None]:
        """While `end` makes what is being done end as soon as may be: it raises `LoadFailed` then. `end` is called from
        another thread, perhaps twice, and must not wait."""
        with self._lock:
            self.check()
            self._ends.append(end)
        try:
            yield
        except Exception as error:
            if self.error is None or error is self.error:
                raise
            raise self.error from None
        finally:
            with self._lock:
                self._ends.remove(end)
        self.check()

    def interrupt(self, error: LoadFailed) -> None:
        """End the load as soon as may be: it fails with this error, or the one of the first interruption."""
        with self._lock:
            self.error = self.error or error
            ends = tuple(self._ends)
        for end in ends:
            end()

    def leave(self) -> None:
        """Nobody waits for the load's thread any more: others take the turns that it has."""
        self.left = True
        with self._lock:
            ends = tuple(self._ends)
        for end in ends:
            end()


class LoadTurns:
    """Loads that go on one after another. A load that was left behind holds up nobody."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._holder: LoadAttempt | None = None

    @contextmanager
    def turn(self, attempt: LoadAttempt, at_most: float | None = None) -> Iterator[bool]:
        """Wait for a turn, for so many seconds at most, and hold it. Gives whether there is one. Raises `LoadFailed`
        where the load is interrupted."""
        with attempt.interruptible(self._wake):
            with self._changed:
                attempt.waits = True
                mine = self._changed.wait_for(lambda: attempt.error is not None or self._is_free(), at_most)
                attempt.waits = False
                attempt.check()
                if mine:
                    self._holder = attempt
            try:
                yield mine
            finally:
                with self._changed:
                    if self._holder is attempt:
                        self._holder = None
                        self._changed.notify_all()

    def _is_free(self) -> bool:
        return self._holder is None or self._holder.left

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()


def holds_up_others(version: str) -> bool:
    """Whether this ONNX Runtime ("1.32.0") keeps every other thread waiting while it opens a session."""
    major, minor = version.split(".")[:2]
    return (int(major), int(minor)) < OPENS_BESIDE_OTHERS
