"""A control plane on a repository of puppet models."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from server.control import ControlPlane, ControlSettings
from server.models.registry import Registry
from server.remote.store import Store
from server.tensors import Array
from server.urls import RepositoryUrl
from tests.fakes import Gate, PuppetBackend, PuppetClock, PuppetSession, fp32

DOUBLING = "doubling"
TREBLING = "trebling it"
"""The texts of model files that the puppet backend knows. No two are of one size."""


class Bench:
    """A repository, a backend that can open two kinds of files, and the plane between them."""

    def __init__(
        self,
        root: Path,
        *,
        load_models: tuple[str, ...] | None = None,
        autocomplete: bool = True,
        poll: bool = False,
        stores: Mapping[str, Store] | None = None,
    ) -> None:
        """`stores` are repositories at a distance, by URL."""
        self.root = root
        self.gate = Gate()
        sessions = {
            text: PuppetSession([fp32("x", -1, 2)], [fp32("y", -1, 2)], partial(self._times, factor))
            for text, factor in ((DOUBLING, 2), (TREBLING, 3))
        }
        self.backend = PuppetBackend(sessions)
        self.registry = Registry()
        self.clock = PuppetClock()
        stores = stores or {}
        urls = tuple(map(RepositoryUrl, stores))
        settings = ControlSettings((root,), load_models, 4, autocomplete=autocomplete, poll=poll, urls=urls)
        self.plane = ControlPlane(settings, self.registry, self.backend, self.clock, lambda url: stores[url.text])

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

    def _times(self, factor: int, inputs: Mapping[str, Array]) -> dict[str, Array]:
        if inputs["x"].any():  # what is run before READY is zeros, and passes
            self.gate.wait()
        return {"y": inputs["x"] * factor}


def operators(filename: str) -> str:
    return f'model_operations {{ op_library_filename: "{filename}" }}'
