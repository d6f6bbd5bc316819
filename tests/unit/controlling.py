"""A control plane on a repository of puppet models."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from server.control import ControlPlane, ControlSettings
from server.engine import Engine
from server.models.registry import Registry
from server.remote.store import Store
from server.tensors import Array
from server.urls import RepositoryUrl
from tests.fakes import Gate, OneReply, PuppetBackend, PuppetClock, PuppetSession, fp32
from tests.unit.loaded import request, run, values

DOUBLING = "doubling"
TREBLING = "trebling it"
"""The texts of model files that the puppet backend knows. No two are of one size."""
LONG = "a file that is no model at all"
TWO_VERSIONS = "version_policy { latest { num_versions: 2 } }"


class Bench:
    """A repository, a backend that can open two kinds of files, and the plane between them."""

    def __init__(
        self,
        root: Path,
        *,
        load_models: tuple[str, ...] | None = None,
        autocomplete: bool = True,
        poll: bool = False,
        on_request: bool = False,
        stores: Mapping[str, Store] | None = None,
        **more: Any,
    ) -> None:
        """`stores` are repositories at a distance, by URL; `more` are further settings."""
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
        self._settings = ControlSettings(
            (root,), load_models, 4, autocomplete=autocomplete, poll=poll, urls=urls, on_request=on_request, **more
        )
        self.plane = ControlPlane(self._settings, self.registry, self.backend, self.clock, lambda url: stores[url.text])

    def settings(self, **changes: Any) -> ControlSettings:
        """Those of the plane, with changes: for another one."""
        return replace(self._settings, **changes)

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


def following(root: Path, test: Callable[[Bench], Coroutine[None, None, None]]) -> None:
    """Run a test on a bench that polls and has model 'm' with version 1."""

    async def main() -> None:
        bench = Bench(root, poll=True)
        bench.gate.open(1_000)
        bench.add("m", 1)
        await bench.plane.load_all()
        await test(bench)
        await bench.plane.unload_all()

    run(main)


async def settle(bench: Bench) -> None:
    """What is on disk now is seen twice."""
    await bench.plane.poll()
    await bench.plane.poll()


async def until(bench: Bench, condition: Callable[[], bool]) -> None:
    """Wait for a change of the registry after which this holds."""
    changed = asyncio.Event()
    leave = bench.registry.subscribe(changed.set)
    while not condition():
        await changed.wait()
        changed.clear()
    leave()


def write(bench: Bench, version: int, text: str = DOUBLING) -> None:
    folder = bench.root / "m" / str(version)
    folder.mkdir(exist_ok=True)
    (folder / "model.onnx").write_text(text)


async def answer(bench: Bench, version: str = "") -> object:
    reply = OneReply()
    asked = request([1.0, 2.0])
    asked.model_version = version
    Engine(bench.registry).infer(asked, reply)
    return values(await reply.response())["y"]


def loads(bench: Bench) -> list[str]:
    """The versions that were opened, in order."""
    return [path.parent.name for path, _ in bench.backend.opened]
