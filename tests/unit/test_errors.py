"""Every way to fail has a reason, and every reason a meaning to Triton's clients."""

from __future__ import annotations

import pytest

from server.errors import (
    MAX_MESSAGE_LENGTH,
    TRITON_REASONS,
    ConvoyError,
    FailureReason,
    InvalidRequest,
    Reason,
    one_line,
)
from tests.unit.error_classes import every


@pytest.mark.parametrize("kind", every(ConvoyError), ids=lambda kind: kind.__name__)
def test_every_error_has_a_reason(kind: type[ConvoyError]) -> None:
    assert isinstance(kind.reason, Reason)


def test_every_reason_belongs_to_an_error() -> None:
    assert {kind.reason for kind in every(ConvoyError)} == set(Reason)


def test_tritons_reasons_cover_ours() -> None:
    assert set(TRITON_REASONS) == set(Reason)
    assert set(TRITON_REASONS.values()) == set(FailureReason)


def test_a_name_of_any_length_makes_a_message_of_bounded_length() -> None:
    error = InvalidRequest(f"unexpected inference input '{'x' * 1_000_000}'")
    assert len(str(error)) == MAX_MESSAGE_LENGTH
    assert str(error).startswith("unexpected inference input 'xxx") and str(error).endswith("xxx...")
    assert len(str(error.within("elsewhere: "))) == MAX_MESSAGE_LENGTH
    assert len(error.logged_as("y" * 1_000_000).for_logs) == MAX_MESSAGE_LENGTH


@pytest.mark.parametrize(
    ("name", "told"),
    [("a\nb", "a\\nb"), ("\x1b[2J", "\\x1b[2J"), ("\u2028", "\\u2028"), ("größe ×", "größe ×"), ("\ud800", "\\ud800")],
)
def test_what_would_begin_a_line_of_its_own_in_the_log_is_spelled_out(name: str, told: str) -> None:
    assert str(InvalidRequest(f"no '{name}'")) == f"no '{told}'"
    assert len(one_line(name * 10_000)) <= MAX_MESSAGE_LENGTH
