"""What all exporters share: where a model and its case go. Imported by scripts, each in an environment of its own."""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import numpy as np


class Writer:
    """Writes the models of one exporter, and notes where they come from."""

    def __init__(self, packages: tuple[str, ...]) -> None:
        """`packages` are the distributions whose versions say how the models were made."""
        self._out = Path(sys.argv[1])
        self._exporter = Path(sys.argv[0]).stem
        self._versions = {"python": platform.python_version()} | {name: version(name) for name in packages}
        self._models: dict[str, str] = {}

    def served(self, name: str, how: str = "") -> Path:
        """Where the file of a model that can be served is. `how` says what it is and which call made it."""
        return self._path("served", name, how)

    def refused(self, name: str, how: str = "") -> Path:
        """As `served`, for a model that no server takes."""
        return self._path("refused", name, how)

    def config(self, name: str, text: str) -> None:
        """Give a model a config.pbtxt; most do without."""
        (self._out / "served" / name / "config.pbtxt").write_text(text)

    def case(
        self, name: str, inputs: Mapping[str, np.ndarray], outputs: Mapping[str, np.ndarray], number: int = 1
    ) -> None:
        """Keep a request, and the answer that the framework itself gave to it."""
        arrays = {f"in {key}": value for key, value in inputs.items()}
        arrays |= {f"out {key}": value for key, value in outputs.items()}
        assert not any(array.dtype == object for array in arrays.values()), "texts are kept as fixed-width strings"
        folder = self._out / "cases" / name
        folder.mkdir(parents=True, exist_ok=True)
        # Names of files inside an archive cannot hold every character: the arrays are numbered, and named beside.
        np.savez_compressed(folder / f"{number}.npz", *arrays.values(), names=np.array(list(arrays)))

    def _path(self, repository: str, name: str, how: str) -> Path:
        if how:
            self._models[name] = how
        path = self._out / repository / name / "1" / "model.onnx"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def finish(self) -> None:
        """Write what made these models, and with which versions."""
        note = {"versions": self._versions, "models": self._models}
        folder = self._out / "provenance"
        folder.mkdir(exist_ok=True)
        (folder / f"{self._exporter}.json").write_text(json.dumps(note, indent=2, sort_keys=True) + "\n")
