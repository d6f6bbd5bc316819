"""A model's folder, and a place for shared memory, that are there for as long as this process is."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

from server.models.repository import ModelFolder

LABELS = "labels.txt"
SHARED_KEY = "k"
"""Of an object in shared memory, of 64 bytes."""


class Folder:
    """It is the process's that made it: those that are forked off leave it alone."""

    def __init__(self) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="convoy-fuzz-"))
        self.path = self.root / "m"
        self.shared_memory = self.root / "shm"
        for folder in (self.path / "1", self.path / "initial_state", self.shared_memory):
            folder.mkdir(parents=True)
        (self.path / LABELS).write_text("zero\none\n")
        (self.path / "1" / "model.onnx").touch()
        (self.path / "initial_state" / "s").write_bytes(bytes(8))
        (self.shared_memory / SHARED_KEY).write_bytes(bytes(64))
        self.model = ModelFolder("m", self.path, (1,))
        self._owner = os.getpid()
        atexit.register(self._remove)

    def _remove(self) -> None:
        if os.getpid() == self._owner:
            shutil.rmtree(self.root, ignore_errors=True)


FOLDER = Folder()
