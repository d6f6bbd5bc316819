"""A control plane in explicit mode, and callers who ask it for models."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from server.backends.base import SessionOptions
from server.backends.loading import LoadAttempt
from server.models.overrides import Override
from tests.fakes import PuppetSession
from tests.unit.controlling import TREBLING, Bench
from tests.unit.loaded import run


def files(text: str = TREBLING, config: str = "{}", path: str = "7/model.onnx") -> Override:
    return Override(config, {path: text.encode()})


def asking(root: Path, test: Callable[[Bench], Coroutine[None, None, None]], **settings: Any) -> None:
    """Run a test on a bench in explicit mode whose repository has model 'm' with version 1, not loaded."""

    async def main() -> None:
        bench = Bench(root, load_models=(), on_request=True, **settings)
        bench.gate.open(1_000)
        bench.add("m", 1)
        await bench.plane.load_all()
        await test(bench)
        await bench.plane.unload_all()
        assert kept(bench) == []

    run(main)


def kept(bench: Bench) -> list[str]:
    """The folders of files that came along with loads, by the model's name."""
    root = bench.plane._overrides._root
    return [] if root is None else sorted(path.name for path in root.glob("*/*"))


async def refusal(steps: Coroutine[Any, Any, None], kind: type[Exception]) -> str:
    with pytest.raises(kind) as caught:
        await steps
    assert type(caught.value) is kind
    return str(caught.value)


class Held:
    """Loads of models by name that wait until they are let go."""

    def __init__(self, bench: Bench, *names: str) -> None:
        self._honest = bench.backend.load
        self.gates = {name: asyncio.Event() for name in names}
        self._loop = asyncio.get_running_loop()
        bench.backend.load = self._load  # type: ignore[method-assign]

    def _load(self, path: Path, options: SessionOptions, attempt: LoadAttempt) -> PuppetSession:
        gate = self.gates.get(path.parent.parent.name)
        if gate is not None:
            asyncio.run_coroutine_threadsafe(gate.wait(), self._loop).result(20)
        return self._honest(path, options, attempt)
