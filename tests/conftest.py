"""For all tests."""

from __future__ import annotations

import gc


def pytest_collection_finish() -> None:
    """Thousands of tests and what they import stay to the end: no collection of garbage need look through them."""
    gc.freeze()
