"""What can go wrong for the person who runs a load test."""

from __future__ import annotations


class LoadTestError(Exception):
    """The test could not be carried out; the message says why. Not a verdict."""


class WrongAnswerError(Exception):
    """A server answered with something that cannot be the answer to what it was sent."""
