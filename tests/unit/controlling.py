"""A control plane on a repository of puppet models."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from server.control import ControlPlane, ControlSettings
from server.models.registry import Registry
from tests.fakes import Gate, PuppetBackend, PuppetClock, PuppetSession, fp32

DOUBLING = "doubling"
"""The text of a model file that the puppet backend knows."""


class Bench:
    """A repository, a backend that can open one kind of file, and the plane between them."""

    def __init__(self, root: Path, *, load_models: tuple[str, ...] | None = None, autocomplete: bool = True) -> None:
        self.root = root
        self.gate = Gate()
        session = PuppetSession([fp32("x", -1, 2)], [fp32("y", -1, 2)], self._doubled)
        self.backend = PuppetBackend({DOUBLING: session})
        self.registry = Registry()
        settings = ControlSettings((root,), load_models, default_max_batch_size=4, autocomplete=autocomplete)
        self.plane = ControlPlane(settings, self.registry, self.backend, PuppetClock())

    def add(self, name: str, *versions: int, config: str | None = None, text: str = DOUBLING) -> None:
        (self.root / name).mkdir()
        if config is not None:
            (self.root / name / "config.pbtxt").write_text(config)
        for version in versions:
            (self.root / name / str(version)).mkdir()
            (self.root / name / str(version) / "model.onnx").write_text(text)

    def states(self) -> dict[str, dict[int, str]]:
        return {e.name: {n: str(s.state) for n, s in sorted(e.statuses.items())} for e in self.registry}

    def reason(self, name: str) -> str:
        """Why a model, or its only version, cannot serve."""
        entry = self.registry.entry(name)
        return entry.problem or next(status.reason for status in entry.statuses.values())

    def _doubled(self, inputs: object) -> dict[str, np.ndarray]:
        assert isinstance(inputs, dict)
        if inputs["x"].any():  # what is run before READY is zeros, and passes
            self.gate.wait()
        return {"y": inputs["x"] * 2}


def operators(filename: str) -> str:
    return f'model_operations {{ op_library_filename: "{filename}" }}'
