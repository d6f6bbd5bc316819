"""The process ends, whatever still runs in it: a thread inside of a runtime or a driver cannot be stopped, and the
interpreter would wait for it."""

from __future__ import annotations

import logging
import os
import sys
import threading

log = logging.getLogger(__name__)

LEFT_BEHIND = 1
"""The exit status where something had to be left behind."""


def leave_within(seconds: float) -> None:
    """End the process after so many seconds, unless it has ended by then. Nothing that is left to do is done."""
    timer = threading.Timer(seconds, _leave)
    timer.daemon = True
    timer.start()


def _leave() -> None:
    names = ", ".join(sorted(t.name for t in threading.enumerate() if t is not threading.current_thread()))
    log.error("stopping: what runs does not end, and the process leaves it behind; its threads are %s", names)
    logging.shutdown()
    sys.stdout.flush()
    os._exit(LEFT_BEHIND)
