"""Sessions while repositories change: those that were replaced, and those that went bad and are being recovered."""

from __future__ import annotations

import asyncio
import gc
import shutil
import threading
import weakref
from collections.abc import Mapping
from pathlib import Path

from server.backends.base import SessionOptions
from server.backends.loading import LoadAttempt
from server.control import ControlPlane
from server.engine import Engine
from server.models.overrides import Override
from server.models.recovery import FIRST_DELAY_SECONDS
from server.models.streak import SUSPICIOUS_RUNS
from server.tensors import Array
from tests.fakes import Gate, OneReply, PuppetSession, fp32
from tests.unit.controlling import (
    DOUBLING,
    TREBLING,
    Bench,
    answer,
    following,
    loads,
    settle,
    until,
    write,
)
from tests.unit.loaded import request, run, turn


def test_a_version_that_was_replaced_or_unloaded_lets_go_of_its_session(tmp_path: Path) -> None:
    class Backend:
        """Every load gives a new session."""

        def __init__(self, bench: Bench) -> None:
            self.devices = bench.backend.devices
            self.gone: list[threading.Event] = []

        def load(self, path: Path, options: SessionOptions, attempt: LoadAttempt) -> PuppetSession:
            session = PuppetSession([fp32("x", -1, 2)], [fp32("y", -1, 2)], lambda inputs: {"y": inputs["x"]})
            self.gone.append(threading.Event())
            weakref.finalize(session, self.gone[-1].set)
            return session

    async def main() -> None:
        bench = Bench(tmp_path, poll=True)
        backend = Backend(bench)
        bench.plane = ControlPlane(bench.plane._settings, bench.registry, backend, bench.clock)
        bench.add("m", 1)
        await bench.plane.load_all()
        write(bench, 1, TREBLING)
        await settle(bench)
        write(bench, 2)
        await settle(bench)
        assert bench.states() == {"m": {2: "READY"}}
        assert await asyncio.to_thread(lambda: all(gone.wait(20) for gone in backend.gone[:2]))
        assert not backend.gone[2].is_set()
        await bench.plane.unload_all()

    gc.collect()
    gc.disable()
    try:
        run(main)
    finally:
        gc.enable()


class Sick:
    """Makes the runs of one text's session fail, zeros included."""

    def __init__(self, bench: Bench, text: str) -> None:
        self.session = bench.backend.sessions[text]
        self.healthy, self.session.function = self.session.function, self.fail
        self.trial: Gate | None = None
        """Holds back runs of zeros."""

    def fail(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        if self.trial and not inputs["x"].any():
            self.trial.wait()
        raise RuntimeError("the device is gone")

    def heal(self) -> None:
        self.session.function = self.healthy


async def fail(bench: Bench) -> None:
    """So many runs that the session is tried."""
    for _ in range(SUSPICIOUS_RUNS):
        reply = OneReply()
        Engine(bench.registry).infer(request([1.0, 2.0]), reply)
        await reply.error()


async def take_down(bench: Bench, text: str = DOUBLING) -> Sick:
    """The version of 'm' that serves is UNAVAILABLE because its session went bad, and about to be loaded again."""
    sick = Sick(bench, text)
    version = bench.registry.find("m", "").version
    await fail(bench)
    await until(bench, lambda: bench.states() == {"m": {version: "UNAVAILABLE"}})
    return sick


def test_a_version_that_is_being_recovered_is_left_to_the_recovery(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        sick = await take_down(bench)
        write(bench, 1, TREBLING)
        await settle(bench)
        assert bench.states() == {"m": {1: "UNAVAILABLE"}}
        assert not bench.registry.all_ready()
        sick.heal()
        bench.clock.advance(FIRST_DELAY_SECONDS)
        await until(bench, lambda: bench.states() == {"m": {1: "READY"}})
        await turn()
        assert await answer(bench) == [[3.0, 6.0]]
        await settle(bench)
        assert loads(bench) == ["1", "1"], "what the recovery has loaded is what is there"

    following(tmp_path, test)


def test_a_model_that_goes_while_its_session_is_tried_does_not_come_back(tmp_path: Path) -> None:
    async def main() -> None:
        bench = Bench(tmp_path, poll=True)
        bench.add("m", 1)
        await bench.plane.load_all()
        sick = Sick(bench, DOUBLING)
        sick.trial = Gate()
        await fail(bench)
        shutil.rmtree(tmp_path / "m")
        await bench.plane.poll()
        poll = asyncio.create_task(bench.plane.poll())
        await asyncio.wait({poll}, timeout=0.2)  # it waits for the trial; were it done, the model would come back below
        sick.trial.open()
        await asyncio.gather(poll, *bench.plane._loader.recovery._tasks)
        assert not bench.registry.has("m")

    run(main)


def test_a_version_that_is_being_recovered_may_be_removed(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        await take_down(bench)
        shutil.rmtree(tmp_path / "m")
        await settle(bench)
        assert bench.states() == {}
        bench.clock.advance(100)
        await turn()
        assert bench.states() == {} and loads(bench) == ["1"]

    following(tmp_path, test)


def test_a_version_is_recovered_from_what_came_along_with_its_load(tmp_path: Path) -> None:
    async def main() -> None:
        bench = Bench(tmp_path, load_models=(), on_request=True)
        bench.gate.open(1_000)
        await bench.plane.load_all()
        await bench.plane.load("m", Override('{"max_batch_size": 2}', {"7/model.onnx": TREBLING.encode()}))
        sick = await take_down(bench, TREBLING)
        sick.heal()
        bench.clock.advance(FIRST_DELAY_SECONDS)
        await until(bench, lambda: bench.states() == {"m": {7: "READY"}})
        assert bench.registry.find("m", "7").config.max_batch_size == 2
        assert await answer(bench) == [[3.0, 6.0]]
        await bench.plane.unload_all()

    run(main)


def test_a_version_that_is_being_recovered_is_loaded_at_once_where_that_is_asked_for(tmp_path: Path) -> None:
    async def main() -> None:
        bench = Bench(tmp_path, load_models=("m",), on_request=True)
        bench.gate.open(1_000)
        bench.add("m", 1)
        await bench.plane.load_all()
        sick = await take_down(bench)
        sick.heal()
        await bench.plane.load("m")
        assert bench.states() == {"m": {1: "READY"}}
        await take_down(bench)
        await bench.plane.unload("m")
        bench.clock.advance(100)
        await turn()
        assert bench.states() == {"m": {1: "UNAVAILABLE"}} and loads(bench) == ["1", "1"]
        assert bench.registry.all_ready()
        await bench.plane.unload_all()

    run(main)
