"""`python -m server`: flags in, a running server until SIGTERM. `--help` lists the flags."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Sequence

from server import logs, malloc, settings

SWITCH_SECONDS = 200e-6
"""How long the event loop and the lanes' threads may keep the interpreter from each other. Python's own 5 ms are longer
than most batches run (docs/performance.md)."""


UNBALANCED = 3


def main(argv: Sequence[str] | None = None) -> int:
    """Serve. Returns the exit status: 0 after a clean stop, 1 where the server could not start, `UNBALANCED` where a
    request was not answered exactly once."""
    flags = settings.parse(sys.argv[1:] if argv is None else argv)
    # Until the event loop listens to it. A container's first process would go on regardless without a handler: the
    # kernel gives it only those signals that it handles.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    malloc.keep_freed_memory()
    try:
        import onnxruntime  # noqa: F401 -- asked for before anything else, to say how it is installed
    except ImportError:
        print("ONNX Runtime is not installed: pip install 'convoy[cpu]' or 'convoy[gpu]'", file=sys.stderr)
        return 1

    import uvloop

    from server import app
    from server.errors import LoadFailed

    try:
        log = logs.configure(flags)
        sys.setswitchinterval(SWITCH_SECONDS)
        balances = uvloop.run(app.serve(flags, log))
    except (OSError, LoadFailed) as error:
        logging.getLogger(__name__).debug("start failed", exc_info=True)
        print(f"cannot start: {error}", file=sys.stderr)
        return 1
    return 0 if balances else UNBALANCED


if __name__ == "__main__":
    sys.exit(main())
