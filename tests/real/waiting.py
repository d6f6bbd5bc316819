"""Waiting for another process: the one place where tests look at a real clock."""

from __future__ import annotations

import time
from collections.abc import Callable

POLL_SECONDS = 0.02


def wait_until(condition: Callable[[], bool], seconds: float) -> None:
    """Return as soon as `condition()` holds. Raises TimeoutError after `seconds`."""
    give_up = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > give_up:
            raise TimeoutError(f"waited {seconds} s in vain")
        time.sleep(POLL_SECONDS)
