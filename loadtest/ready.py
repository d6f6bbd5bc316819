"""How a process that was started here says that it is ready: a file that appears whole. Read by `processes.running`."""

from __future__ import annotations

import json
import os
from pathlib import Path


def say_ready(ports_file: Path, **ports: int) -> None:
    """Writes `ports` as JSON, and the file is there only once all of it is."""
    written = ports_file.with_suffix(".part")
    written.write_text(json.dumps(ports))
    os.replace(written, ports_file)
