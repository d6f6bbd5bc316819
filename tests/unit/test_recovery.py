"""A session that goes bad: found out, taken down, loaded again. Lanes are threads; time moves when a test says so."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from server.backends.base import Devices, SessionOptions
from server.backends.loading import LoadAttempt
from server.control import ControlPlane, ControlSettings
from server.engine import Engine
from server.errors import ExecutionFailed, LoadFailed, NotReady
from server.models.lifecycle import State
from server.models.model import LoadedVersion
from server.models.recovery import Backoff
from server.models.registry import Registry
from server.models.streak import SUSPICIOUS_RUNS, FailureStreak
from server.tensors import Array
from tests.fakes import Gate, OneReply, PuppetClock, PuppetSession, fp32
from tests.unit.loaded import request, run, turn, values

CONFIG = 'max_batch_size: 4 parameters { key: "fail_on_nan" value { string_value: "true" } }'
BAD = [99.0, 0.0]
NAN = [98.0, 0.0]
HELD = [97.0, 0.0]
"""A row that runs until the gate opens, also on a broken session."""


class Sessions:
    """A backend of sessions that double, until a test breaks them; every load gives a new one."""

    def __init__(self, columns: int) -> None:
        self.columns = columns
        self.gate = Gate()
        self.held = 0
        """Runs that the gate has held back so far."""
        self.trial_gate: Gate | None = None
        """Holds back runs of zeros."""
        self.loadable = True
        self.broken: dict[int, str] = {}
        """By the number of the session, counted from 0: what it says."""
        self.opened: list[weakref.ref[PuppetSession]] = []
        self.tried: list[int] = []
        """The number of the session of every run of zeros."""

    def devices(self) -> Devices:
        return Devices()

    def load(self, path: Path, _: SessionOptions, attempt: LoadAttempt) -> PuppetSession:
        if not self.loadable:
            raise LoadFailed(f"{path}: not a model")
        number = len(self.opened)

        def function(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
            x = inputs["x"]
            if not x.any():
                self.tried.append(number)
                if self.trial_gate:
                    self.trial_gate.wait()
            if (x == HELD[0]).any():
                self.held += 1
                self.gate.wait()
            elif number in self.broken:
                raise RuntimeError(self.broken[number])
            if (x == BAD[0]).any():
                raise RuntimeError("bad input")
            return {"y": np.where(x == NAN[0], np.nan, x * 2)}

        session = PuppetSession([fp32("x", -1, self.columns)], [fp32("y", -1, self.columns)], function)
        self.opened.append(weakref.ref(session))
        return session


class Bench:
    """Model 'm' of one version, behind the control plane and the engine."""

    def __init__(self, root: Path, columns: int = 2, config: str = CONFIG) -> None:
        (root / "m" / "1").mkdir(parents=True)
        (root / "m" / "1" / "model.onnx").touch()
        (root / "m" / "config.pbtxt").write_text(config)
        self.sessions = Sessions(columns)
        self.registry = Registry()
        self.clock = PuppetClock()
        settings = ControlSettings((root,), None, default_max_batch_size=4, autocomplete=True)
        self.plane = ControlPlane(settings, self.registry, self.sessions, self.clock)
        self.engine = Engine(self.registry)
        self.engine.begin_service()
        self._changed = asyncio.Event()
        self.registry.subscribe(self._changed.set)

    @property
    def version(self) -> LoadedVersion:
        return self.registry.find("m", "1")

    @property
    def reason(self) -> str:
        return self.registry.entry("m").statuses[1].reason

    def send(self, *rows: list[float]) -> OneReply:
        reply = OneReply()
        self.engine.infer(request(*rows), reply)
        return reply

    async def fail(self, times: int, row: list[float] = BAD) -> None:
        """So many requests, one after another, that fail."""
        for _ in range(times):
            assert isinstance(await self.send(row).error(), ExecutionFailed)

    async def until(self, state: State) -> None:
        """Wait for the next time that the version comes to a state."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            if self.registry.entry("m").statuses[1].state is state:
                return

    async def go_bad(self) -> None:
        """Break the session that serves, and wait until it is taken down."""
        self.sessions.broken[len(self.sessions.opened) - 1] = "device lost"
        await self.fail(SUSPICIOUS_RUNS, [1.0, 1.0])
        await self.until(State.UNAVAILABLE)


async def examined(version: LoadedVersion) -> None:
    """Wait until nothing is suspected any more."""
    while version.streak.told:
        await turn()


def test_a_session_gone_bad_is_taken_down_with_its_reason_and_loaded_again(tmp_path: Path) -> None:
    async def main() -> None:
        bench = Bench(tmp_path)
        await bench.plane.load_all()
        await bench.go_bad()
        assert bench.reason == (
            "8 runs failed in a row, and a run with zeros, which it answered when it was loaded: device lost; "
            "loading it again in 1 s"
        )
        assert not bench.registry.all_ready()
        bench.clock.advance(0.999)
        await turn()
        assert len(bench.sessions.opened) == 1
        bench.clock.advance(0.001)
        await bench.until(State.READY)
        assert bench.registry.all_ready()
        assert values(await bench.send([1.0, 2.0]).response()) == {"y": [[2.0, 4.0]]}
        assert bench.version.statistics.reloads == 1
        await bench.plane.unload_all()

    run(main)


@pytest.mark.parametrize("row", [BAD, NAN], ids=["an error", "NaN"])
def test_bad_requests_take_nothing_down_for_the_others(tmp_path: Path, row: list[float]) -> None:
    async def main() -> None:
        bench = Bench(tmp_path)
        await bench.plane.load_all()
        before = len(bench.sessions.tried)
        for _ in range(5):
            await bench.fail(2 * SUSPICIOUS_RUNS, row)
            await examined(bench.version)
        assert len(bench.sessions.tried) > before
        assert values(await bench.send([1.0, 2.0]).response()) == {"y": [[2.0, 4.0]]}
        assert bench.registry.all_ready()
        assert (len(bench.sessions.opened), bench.version.statistics.failed_runs) == (1, 10 * SUSPICIOUS_RUNS)
        await bench.plane.unload_all()

    run(main)


def test_a_success_in_between_is_as_good_as_a_probe(tmp_path: Path) -> None:
    async def main() -> None:
        bench = Bench(tmp_path)
        await bench.plane.load_all()
        when_it_was_loaded = list(bench.sessions.tried)
        for _ in range(3):
            await bench.fail(SUSPICIOUS_RUNS - 1)
            await bench.send([1.0, 1.0]).response()
        assert bench.sessions.tried == when_it_was_loaded
        await bench.plane.unload_all()

    run(main)


def test_a_model_of_free_dimensions_has_no_zeros_and_is_never_taken_down(tmp_path: Path) -> None:
    async def main() -> None:
        bench = Bench(tmp_path, columns=-1)
        await bench.plane.load_all()
        bench.sessions.broken[0] = "device lost"
        await bench.fail(3 * SUSPICIOUS_RUNS)
        assert bench.registry.all_ready()
        assert bench.sessions.tried == []
        await bench.plane.unload_all()

    run(main)


def test_a_model_that_fails_for_zeros_when_it_is_loaded_serves_and_is_never_taken_down(tmp_path: Path) -> None:
    async def main() -> None:
        bench = Bench(tmp_path)
        bench.sessions.broken[0] = "zeros are no good"
        await bench.plane.load_all()
        when_it_was_loaded = list(bench.sessions.tried)
        await bench.fail(3 * SUSPICIOUS_RUNS)
        assert bench.registry.all_ready()
        assert bench.sessions.tried == when_it_was_loaded
        await bench.plane.unload_all()

    run(main)


def test_what_waits_is_refused_as_retriable_and_what_runs_is_answered(tmp_path: Path) -> None:
    async def main() -> None:
        bench = Bench(tmp_path)
        await bench.plane.load_all()
        bench.sessions.trial_gate = Gate()
        bench.sessions.broken[0] = "device lost"
        await bench.fail(SUSPICIOUS_RUNS, [1.0, 1.0])
        running = bench.send(HELD)
        await turn()
        assert bench.version.pending == 0
        waiting = [bench.send([float(n), 1.0]) for n in range(20)]
        bench.sessions.trial_gate.open()
        await bench.until(State.DRAINING)
        errors = [await reply.error() for reply in waiting]
        assert {type(error) for error in errors} == {NotReady}
        assert str(errors[0]) == "Request for unknown model: 'm' version 1 is not at ready state"
        assert running.answers == []
        bench.sessions.gate.open()
        assert values(await running.response())["y"] == [[2 * HELD[0], 0.0]]
        await bench.until(State.UNAVAILABLE)
        await bench.plane.unload_all()

    run(main)


def test_nobody_is_told_that_a_model_is_unknown_while_it_is_reloaded(tmp_path: Path) -> None:
    async def main() -> None:
        bench = Bench(tmp_path)
        await bench.plane.load_all()
        await bench.go_bad()
        error = await bench.send([1.0, 1.0]).error()
        assert type(error) is NotReady
        assert str(error).endswith("'m' has no version at ready state; one is being reloaded")
        bench.clock.advance(1)
        await bench.until(State.READY)
        await bench.plane.unload_all()
        assert "unknown model: 'm' has no available versions" in str(await bench.send([1.0, 1.0]).error())

    run(main)


def test_it_is_tried_again_with_growing_delays_until_it_can_be_loaded(tmp_path: Path) -> None:
    async def main() -> None:
        bench = Bench(tmp_path)
        await bench.plane.load_all()
        bench.sessions.loadable = False
        await bench.go_bad()
        model = tmp_path / "m" / "1" / "model.onnx"
        for delay, following in ((1, 2), (2, 4), (4, 8), (8, 16), (16, 32), (32, 60), (60, 60)):
            bench.clock.advance(delay - 0.001)
            await turn()
            assert bench.reason.endswith(f"loading it again in {delay} s")
            bench.clock.advance(0.001)
            await bench.until(State.UNAVAILABLE)
            assert bench.reason == f"{model}: not a model; loading it again in {following} s"
        bench.sessions.loadable = True
        bench.clock.advance(60)
        await bench.until(State.READY)
        assert bench.version.statistics.reloads == 1
        await bench.plane.unload_all()

    run(main)


def test_it_is_not_ready_before_it_answers_zeros_again(tmp_path: Path) -> None:
    async def main() -> None:
        bench = Bench(tmp_path)
        await bench.plane.load_all()
        bench.sessions.broken[1] = "device still lost"
        await bench.go_bad()
        bench.clock.advance(1)
        await bench.until(State.UNAVAILABLE)
        assert bench.reason == (
            "it can be loaded, and a run with zeros fails as before: device still lost; loading it again in 2 s"
        )
        bench.clock.advance(2)
        await bench.until(State.READY)
        await bench.plane.unload_all()

    run(main)


def test_one_that_soon_goes_bad_again_waits_longer(tmp_path: Path) -> None:
    async def main() -> None:
        bench = Bench(tmp_path)
        await bench.plane.load_all()
        for delay, well in ((1, 59), (2, 59), (4, 60), (1, 0)):
            await bench.go_bad()
            assert bench.reason.endswith(f"loading it again in {delay} s")
            bench.clock.advance(delay)
            await bench.until(State.READY)
            bench.clock.advance(well)
        assert bench.version.statistics.reloads == 4
        await bench.plane.unload_all()

    run(main)


def test_nobody_waits_for_zeros_that_hang(tmp_path: Path) -> None:
    async def main() -> None:
        bench = Bench(tmp_path)
        await bench.plane.load_all()
        bench.sessions.trial_gate = Gate()
        tried = len(bench.sessions.tried)
        await bench.fail(SUSPICIOUS_RUNS)
        while len(bench.sessions.tried) == tried:
            await turn()
        async with asyncio.timeout(15):  # the gate holds for longer
            await bench.plane.unload_all()
        assert bench.registry.entry("m").statuses[1].state is State.UNAVAILABLE
        bench.sessions.trial_gate.open()

    run(main)


def test_the_old_session_is_gone_before_the_new_one_is_loaded(tmp_path: Path) -> None:
    async def main() -> None:
        bench = Bench(tmp_path)
        await bench.plane.load_all()
        gc.collect()
        gc.disable()  # the server freezes what is loaded: no collection will find it
        try:
            session = bench.sessions.opened[0]()
            assert session
            gone = threading.Event()
            weakref.finalize(session, gone.set)
            del session
            await bench.go_bad()
            assert await asyncio.to_thread(gone.wait, 10)
        finally:
            gc.enable()
        await bench.plane.unload_all()

    run(main)


def test_a_server_that_goes_down_does_not_wait_for_the_next_try(tmp_path: Path) -> None:
    async def main() -> None:
        bench = Bench(tmp_path)
        await bench.plane.load_all()
        await bench.go_bad()
        await bench.plane.unload_all()
        bench.clock.advance(100)
        await turn()
        assert len(bench.sessions.opened) == 1
        assert bench.registry.entry("m").statuses[1].state is State.UNAVAILABLE

    run(main)


def test_a_server_that_goes_down_takes_no_version_down_for_its_failures(tmp_path: Path) -> None:
    async def main() -> None:
        bench = Bench(tmp_path)
        await bench.plane.load_all()
        bench.sessions.broken[0] = "device lost"
        await bench.fail(SUSPICIOUS_RUNS, [1.0, 1.0])
        await bench.plane.unload_all()
        assert bench.reason == "unloaded"

    run(main)


def test_a_streak_tells_once_until_it_is_forgiven() -> None:
    told: list[int] = []
    streak = FailureStreak()
    streak.when_suspicious = lambda: told.append(streak.length)
    streak.add(SUSPICIOUS_RUNS - 1)
    assert told == []
    streak.add(3)
    streak.add(1)
    assert told == [SUSPICIOUS_RUNS + 2]
    streak.forgive()
    streak.add(SUSPICIOUS_RUNS)
    assert told == [SUSPICIOUS_RUNS + 2, SUSPICIOUS_RUNS]


def test_delays_double_up_to_a_minute_and_start_again_after_a_good_one() -> None:
    backoff = Backoff()
    assert [backoff.next(now) for now in range(0, 800, 100)] == [1, 2, 4, 8, 16, 32, 60, 60]
    backoff.well_since = 800
    assert backoff.next(859) == 60
    backoff.well_since = 900
    assert backoff.next(960) == 1
