"""The server, whose runs cannot be interrupted: in place of operators that do not look up, and drivers that hang.

python -m tests.deaf_server FLAGS
"""

from __future__ import annotations

import sys

from server import __main__, app
from server.backends.onnx import OnnxSession


def _goes_on(_: OnnxSession) -> None:
    """As a run does that is inside of one operator."""


OnnxSession.interrupt = _goes_on  # type: ignore[method-assign]
app.LAST_SECONDS = 1.0  # that it is over is what tests wait for

if __name__ == "__main__":
    sys.exit(__main__.main())
