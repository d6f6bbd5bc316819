"""What can go wrong for the person who runs a load test."""

from __future__ import annotations


class LoadTestError(Exception):
    """The test could not be carried out; the message says why. Not a verdict."""


class WrongAnswerError(Exception):
    """A server answered with something that cannot be the answer to what it was sent."""


class BadEndError(LoadTestError):
    """A server that was started here did not end as it should when it was told to."""
