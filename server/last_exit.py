"""The process ends, whatever still runs in it: a thread inside of a runtime or a driver cannot be stopped, and the
interpreter would wait for it."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from queue import Empty, SimpleQueue

log = logging.getLogger(__name__)

LEFT_BEHIND = 1
"""The exit status where something had to be left behind."""


class LastExit:
    """A thread that ends the process in the end. It starts at once: later there may be none to be had."""

    def __init__(self) -> None:
        self._deadlines: SimpleQueue[float] = SimpleQueue()
        threading.Thread(target=self._wait, name="last exit", daemon=True).start()

    def leave_within(self, seconds: float) -> None:
        """End the process after so many seconds, unless it has ended by then. The soonest of several calls counts."""
        self._deadlines.put(time.monotonic() + seconds)

    def _wait(self) -> None:
        deadline = self._deadlines.get()
        while (left := deadline - time.monotonic()) > 0:
            try:
                deadline = min(deadline, self._deadlines.get(timeout=left))
            except Empty:
                break
        names = ", ".join(sorted(t.name for t in threading.enumerate() if t is not threading.current_thread()))
        log.error("stopping: what runs does not end, and the process leaves it behind; its threads are %s", names)
        logging.shutdown()
        sys.stdout.flush()
        os._exit(LEFT_BEHIND)
