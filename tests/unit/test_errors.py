"""Every way to fail has a reason, and every reason a meaning to Triton's clients."""

from __future__ import annotations

import pytest

from server.errors import TRITON_REASONS, ConvoyError, FailureReason, Reason
from tests.unit.error_classes import every


@pytest.mark.parametrize("kind", every(ConvoyError), ids=lambda kind: kind.__name__)
def test_every_error_has_a_reason(kind: type[ConvoyError]) -> None:
    assert isinstance(kind.reason, Reason)


def test_every_reason_belongs_to_an_error() -> None:
    a_bug = {Reason.INTERNAL}  # of which no error tells
    assert {kind.reason for kind in every(ConvoyError)} == set(Reason) - a_bug


def test_tritons_reasons_cover_ours() -> None:
    assert set(TRITON_REASONS) == set(Reason)
    assert set(TRITON_REASONS.values()) == set(FailureReason)
