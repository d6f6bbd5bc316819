"""The log: one line an event, for people or as JSON. Tensor contents are never logged."""

from __future__ import annotations

import logging
import sys

from pythonjsonlogger.json import JsonFormatter

from server.settings import LogFormat, Settings


def configure(settings: Settings) -> None:
    """Send this process's log where the flags say. Raises `OSError` where the log file cannot be opened."""
    handler = logging.FileHandler(settings.log_file) if settings.log_file else logging.StreamHandler(sys.stderr)
    if settings.log_format is LogFormat.JSON:
        fields = ("asctime", "levelname", "name", "message")
        handler.setFormatter(JsonFormatter(fields, rename_fields={"asctime": "time", "levelname": "level"}))
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname).1s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.DEBUG if settings.log_verbose > 0 else logging.INFO)
    logging.getLogger("uvicorn").setLevel(logging.DEBUG if settings.log_verbose > 1 else logging.WARNING)
