"""The process ends, whatever still runs in it: a thread inside of a runtime or a driver cannot be stopped, and the
interpreter would wait for it."""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import math
import os
import sys
import threading
import time
from queue import Empty, SimpleQueue

log = logging.getLogger(__name__)

LEFT_BEHIND = 1
"""The exit status where something had to be left behind."""

GRACE_SECONDS = 2.0
"""How much later the process ends where a library keeps the interpreter's lock for good, so that no thread of Python
can say so: `faulthandler` writes what each thread was at."""


class LastExit:
    """A thread that ends the process in the end. It starts at once: later there may be none to be had."""

    def __init__(self) -> None:
        self._deadlines: SimpleQueue[float] = SimpleQueue()
        self._soonest = math.inf
        threading.Thread(target=self._wait, name="last exit", daemon=True).start()

    def leave_within(self, seconds: float) -> None:
        """End the process after so many seconds, unless it has ended by then. The soonest of several calls counts."""
        deadline = time.monotonic() + seconds
        self._deadlines.put(deadline)
        if deadline < self._soonest:
            self._soonest = deadline
            with contextlib.suppress(RuntimeError):  # no threads to be had
                faulthandler.dump_traceback_later(seconds + GRACE_SECONDS, exit=True)

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
