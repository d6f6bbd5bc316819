"""Loads that take too long: they are stopped, or left behind, and hold up nobody else."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from math import inf
from pathlib import Path
from typing import Any

import pytest

from server.backends.base import SessionOptions
from server.backends.loading import LoadAttempt, LoadTurns
from server.errors import LoadFailed
from server.models.load_threads import MAX_LEFT_BEHIND, LoadWatch
from server.scheduling.watched_lane import INTERRUPT_SECONDS, LATE_SECONDS, Verdict
from server.tensors import Array
from tests.fakes import Gate, PuppetSession, fp32
from tests.unit.controlling import Bench
from tests.unit.loaded import run, turn

LIMIT = 90.0
STUCK = "a file that is never opened to its end"
ENDLESS = "a graph without an end"
LIMITED = 'parameters { key: "run_timeout_ms" value { string_value: "500" } }'
FIRST_RUNS_SECONDS = 5.0
"""How long a run may take that has 500 ms once the version serves."""
NOT_STOPPED = "; that cannot be stopped, and its thread is left behind"


class Endless(PuppetSession):
    """A session whose runs last until they are interrupted or, where it is deaf, until the gate opens."""

    def __init__(self, gate: Gate, *, deaf: bool) -> None:
        super().__init__([fp32("x", -1, 2)], [fp32("y", -1, 2)], self._run)
        self.begun = threading.Event()
        self._gate = gate
        self._deaf = deaf
        self._interrupted = threading.Event()

    def interrupt(self) -> None:
        self._interrupted.set()

    def _run(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        self.begun.set()
        if self._deaf:
            self._gate.wait()
        elif self._interrupted.wait(20):
            raise RuntimeError("Exiting due to terminate flag being set to true")
        return {"y": inputs["x"]}


class Stuck:
    """Loads of `STUCK` files that hang until they are interrupted or, where they are deaf, until the gate opens."""

    def __init__(self, bench: Bench, *, deaf: bool) -> None:
        self.begun = threading.Semaphore(0)
        self.gate = Gate()
        self._deaf = deaf
        self._honest = bench.backend.load
        bench.backend.load = self._load  # type: ignore[method-assign, assignment]

    def _load(self, path: Path, options: SessionOptions, attempt: LoadAttempt) -> PuppetSession:
        if path.read_text() != STUCK:
            return self._honest(path, options, attempt)
        ended = threading.Event()
        with attempt.interruptible(ended.set):
            self.begun.release()
            if self._deaf:
                self.gate.wait()
            else:
                ended.wait(20)
        raise LoadFailed("it ended by itself, which nobody expects")


async def begun(event: threading.Event | threading.Semaphore) -> None:
    wait = event.wait if isinstance(event, threading.Event) else event.acquire
    assert await asyncio.to_thread(wait, timeout=20)


async def until(condition: Callable[[], Any]) -> None:
    while not condition():
        await turn()


@asynccontextmanager
async def bench_of(root: Path, **more: Any) -> AsyncIterator[Bench]:
    """With one thread for loads, and model 'm', which can be loaded."""
    bench = Bench(root, load_timeout_secs=LIMIT, **more)
    bench.add("m", 1)
    yield bench
    await bench.plane.unload_all()


def test_a_load_at_start_that_takes_too_long_is_stopped_and_the_others_go_on(tmp_path: Path) -> None:
    async def main() -> None:
        async with bench_of(tmp_path) as bench:
            stuck = Stuck(bench, deaf=False)
            bench.add("a", 1, text=STUCK)
            loading = asyncio.ensure_future(bench.plane.load_all())
            await begun(stuck.begun)
            bench.clock.advance(LIMIT)
            await loading
            assert bench.states() == {"a": {1: "UNAVAILABLE"}, "m": {1: "READY"}}
            assert bench.reason("a") == "it took longer to load than --model-load-timeout-secs 90"
            assert bench.plane.left_behind == 0

    run(main)


def test_what_cannot_be_stopped_is_left_behind_and_another_thread_loads(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with bench_of(tmp_path) as bench:
            stuck = Stuck(bench, deaf=True)
            bench.add("a", 1, text=STUCK)
            loading = asyncio.ensure_future(bench.plane.load_all())
            await begun(stuck.begun)
            bench.clock.advance(LIMIT + INTERRUPT_SECONDS)
            await loading
            assert bench.states() == {"a": {1: "UNAVAILABLE"}, "m": {1: "READY"}}
            assert bench.reason("a") == f"it took longer to load than --model-load-timeout-secs 90{NOT_STOPPED}"
            assert bench.plane.left_behind == 1
            stuck.gate.open()
            await until(lambda: bench.plane.left_behind == 0)
            assert bench.states()["a"] == {1: "UNAVAILABLE"}

    run(main)
    assert "model 'a' version 1: a load came back that was left behind" in caplog.text


def test_who_asked_for_such_a_load_is_told_and_what_served_serves_on(tmp_path: Path) -> None:
    async def main() -> None:
        async with bench_of(tmp_path, on_request=True) as bench:
            stuck = Stuck(bench, deaf=True)
            await bench.plane.load_all()
            (tmp_path / "m" / "1" / "model.onnx").write_text(STUCK)
            loading = asyncio.ensure_future(bench.plane.load("m"))
            await begun(stuck.begun)
            bench.clock.advance(LIMIT + INTERRUPT_SECONDS)
            with pytest.raises(LoadFailed, match=r"took longer to load than .* left behind"):
                await loading
            assert bench.states() == {"m": {1: "READY"}}
            stuck.gate.open()

    run(main)


def test_a_load_that_took_too_long_is_not_tried_again_at_once(tmp_path: Path) -> None:
    async def main() -> None:
        async with bench_of(tmp_path, load_retries=3) as bench:
            stuck = Stuck(bench, deaf=False)
            bench.add("a", 1, text=STUCK)
            loading = asyncio.ensure_future(bench.plane.load_all())
            await begun(stuck.begun)
            bench.clock.advance(LIMIT)
            await loading
            assert not stuck.begun.acquire(blocking=False)

    run(main)


def test_no_more_loads_are_left_behind_than_the_process_can_bear(tmp_path: Path) -> None:
    async def main() -> None:
        async with bench_of(tmp_path, on_request=True, load_models=()) as bench:
            stuck = Stuck(bench, deaf=True)
            bench.add("a", 1, text=STUCK)
            await bench.plane.load_all()
            for _ in range(MAX_LEFT_BEHIND):
                loading = asyncio.ensure_future(bench.plane.load("a"))
                await begun(stuck.begun)
                bench.clock.advance(LIMIT + INTERRUPT_SECONDS)
                with pytest.raises(LoadFailed, match="left behind"):
                    await loading
            with pytest.raises(LoadFailed, match=r"8 loads hang, .*: no other one is begun; restart the server"):
                await bench.plane.load("a")
            stuck.gate.open(MAX_LEFT_BEHIND)
            await until(lambda: bench.plane.left_behind == 0)

    run(main)


@pytest.mark.parametrize("deaf", [False, True])
def test_a_run_before_a_version_serves_has_a_limit_of_its_own(tmp_path: Path, deaf: bool) -> None:
    async def main() -> None:
        async with bench_of(tmp_path, load_threads=2) as bench:
            gate = Gate()
            session = bench.backend.sessions[ENDLESS] = Endless(gate, deaf=deaf)
            bench.add("a", 1, text=ENDLESS, config=LIMITED)
            loading = asyncio.ensure_future(bench.plane.load_all())
            await begun(session.begun)
            await until(lambda: any(alarm.when == FIRST_RUNS_SECONDS for alarm in bench.clock.alarms))
            bench.clock.advance(FIRST_RUNS_SECONDS + (INTERRUPT_SECONDS if deaf else 0))
            await loading
            assert bench.states() == {"a": {1: "UNAVAILABLE"}, "m": {1: "READY"}}
            assert bench.reason("a").startswith("a run before it serves took longer than 5000 ms: run_timeout_ms, and")
            assert bench.reason("a").endswith(NOT_STOPPED) == deaf
            gate.open(100)

    run(main)


def test_a_server_that_stops_does_not_wait_for_a_load_that_hangs(tmp_path: Path) -> None:
    async def main() -> None:
        bench = Bench(tmp_path, on_request=True)
        bench.add("a", 1, text=STUCK)
        stuck = Stuck(bench, deaf=True)
        loading = asyncio.ensure_future(bench.plane.load_all())
        await begun(stuck.begun)
        await bench.plane.unload_all()
        await loading
        assert bench.reason("a") == "given up, because the server stops"
        stuck.gate.open()

    run(main)


def test_a_load_waits_for_its_turn_until_who_has_it_is_left_behind() -> None:
    turns, first, second = LoadTurns(), LoadAttempt(), LoadAttempt()
    has_turn = threading.Event()

    def wait() -> None:
        with turns.turn(second) as mine:
            assert mine
            has_turn.set()

    with turns.turn(first):
        waiting = threading.Thread(target=wait)
        waiting.start()
        while not second.waits:
            assert not has_turn.wait(0.001)
        first.leave()
        waiting.join(20)
        assert has_turn.is_set()


def test_a_turn_that_does_not_come_is_done_without() -> None:
    turns = LoadTurns()
    with turns.turn(LoadAttempt()):
        with turns.turn(LoadAttempt(), at_most=0.01) as mine:
            assert not mine
        with turns.turn(LoadAttempt(), at_most=0.01) as mine:  # who had none has given none back
            assert not mine
    with turns.turn(LoadAttempt()) as mine:
        assert mine


def test_who_waits_for_a_turn_is_interrupted() -> None:
    turns, attempt = LoadTurns(), LoadAttempt()
    attempt.interrupt(LoadFailed("enough"))
    with turns.turn(LoadAttempt()), pytest.raises(LoadFailed, match="enough"), turns.turn(attempt):
        pass


def look(watch: LoadWatch, now: float, run: int = 0, limit: float = 0.0, *, waits: bool = False) -> Verdict:
    return watch.look(now, run, limit, waits=waits)[0]


def test_a_load_without_a_limit_lasts_as_long_as_it_likes() -> None:
    watch = LoadWatch(inf, 0.0)
    assert (look(watch, 1e9), watch.due) == (Verdict.WAIT, inf)


def test_while_a_load_waits_for_others_no_time_goes_by() -> None:
    watch = LoadWatch(LIMIT, 0.0)
    assert look(watch, LIMIT, waits=True) is Verdict.WAIT
    assert (look(watch, 2 * LIMIT - 1), watch.due) == (Verdict.WAIT, 2 * LIMIT)
    assert look(watch, 2 * LIMIT) is Verdict.INTERRUPT


def test_every_run_has_its_own_time_and_what_lies_between_has_the_loads() -> None:
    watch = LoadWatch(LIMIT, 0.0)
    assert look(watch, 1.0, 0, 5.0) is Verdict.WAIT
    assert watch.due == LIMIT
    for number in range(1, 4):
        assert look(watch, 4.0 * number, number, 5.0) is Verdict.WAIT
        assert watch.due == 4.0 * number + 5.0
    assert look(watch, 17.0, 3, 5.0) is Verdict.INTERRUPT
    assert look(watch, 17.0 + INTERRUPT_SECONDS, 3, 5.0) is Verdict.GIVE_UP


def test_who_stood_still_with_the_machine_gets_his_time_again() -> None:
    watch = LoadWatch(LIMIT, 0.0)
    assert look(watch, LIMIT + 2 * LATE_SECONDS) is Verdict.WAIT
    assert watch.due == 2 * LIMIT + 2 * LATE_SECONDS
