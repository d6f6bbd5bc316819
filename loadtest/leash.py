"""Becomes another program, which gets SIGTERM when the thread that started this one ends, with its process or before.

python -I -S leash.py PARENT COMMAND …

A program of its own, since `preexec_fn` would have the parent fork: gRPC's fork handlers run then, and abort at times.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1

if __name__ == "__main__":
    parent, *command = sys.argv[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != int(parent):  # gone already
            sys.exit(1)
    os.execvp(command[0], command)  # noqa: S606 -- there is nothing for a shell to do
