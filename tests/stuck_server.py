"""The server, in which ONNX Runtime never comes back from opening the files of a model 'stuck', and hears of nothing:
in place of its own pool without threads, drivers that hang, and file systems at a distance that are away.

python -m tests.stuck_server FLAGS
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path

from server import __main__, app
from server.backends import onnx
from server.backends.base import Session, SessionOptions
from server.backends.run_memory import RunMemory

honest = onnx.open_session


def _hang(
    path: Path, settings: onnx.ort.SessionOptions, options: SessionOptions, run_memory: RunMemory | None = None
) -> Session:
    if path.parent.parent.name == "stuck":
        threading.Event().wait()
    return honest(path, settings, options, run_memory)


onnx.open_session = _hang
app.LAST_SECONDS = 1.0  # that it is over is what tests wait for

if __name__ == "__main__":
    sys.exit(__main__.main())
