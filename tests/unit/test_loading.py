"""Which ONNX Runtime opens sessions beside other threads."""

from __future__ import annotations

import pytest

from server.backends.loading import holds_up_others


@pytest.mark.parametrize(
    ("version", "holds"),
    [("1.22.1", True), ("1.30.0", True), ("1.31.0", False), ("1.32.0.dev20261123001", False), ("2.0.0", False)],
)
def test_onnx_runtime_opens_sessions_beside_others_since_1_31(version: str, holds: bool) -> None:
    assert holds_up_others(version) is holds
