"""Runs that fail one after another. Pure: a counter, and whom to tell."""

from __future__ import annotations

from collections.abc import Callable

SUSPICIOUS_RUNS = 8
"""So many failures without a success between them may be the session's fault. Or one caller's, of bad inputs: whoever
is told finds out which before anything is done."""


class FailureStreak:
    """The runs of one version that failed since the last that did not."""

    __slots__ = ("length", "told", "when_suspicious")

    def __init__(self) -> None:
        self.length = 0
        self.when_suspicious: Callable[[], None] | None = None
        """Called when the streak has become `SUSPICIOUS_RUNS` long, once until it is `forgiven`."""
        self.told = False

    def add(self, runs: int) -> None:
        """So many more have failed."""
        self.length += runs
        if self.length >= SUSPICIOUS_RUNS and self.when_suspicious and not self.told:
            self.told = True
            self.when_suspicious()

    def end(self) -> None:
        """A run has succeeded."""
        self.length = 0

    def forgive(self) -> None:
        """It was not the session's fault: count from the start."""
        self.length = 0
        self.told = False
