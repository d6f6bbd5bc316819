"""What every target asks of the code under it, beyond that nothing unexpected is raised."""

from __future__ import annotations

from server.errors import MAX_MESSAGE_LENGTH, ConvoyError
from server.frontends.statuses import STATUSES

TELLING_BYTES = 12
"""Shorter contents may stand in a message by chance."""


def check_refusal(error: ConvoyError, *hidden: bytes, beside: bytes = b"", source: str = "") -> None:
    """An error that a caller may be told: it has a status, and says what is wrong in one line of bounded length.

    `hidden` are contents of tensors, which it must not quote; those that stand in `beside` too may be names. `source`
    is what it must begin with.
    """
    assert type(error) in STATUSES, type(error)
    assert str(error).startswith(source)
    check_message(str(error), *hidden, beside=beside)


def check_message(text: str, *hidden: bytes, beside: bytes = b"") -> None:
    """As `check_refusal`, of the sentence alone."""
    assert text, "an error without words"
    assert len(text) <= MAX_MESSAGE_LENGTH, f"a message of {len(text)} characters: {text[:200]}"
    assert text.isprintable(), f"a message of more than one line: {text!r}"
    for contents in hidden:
        if len(contents) >= TELLING_BYTES and contents not in beside:
            assert contents.decode("latin-1") not in text, "a message quotes a tensor"
