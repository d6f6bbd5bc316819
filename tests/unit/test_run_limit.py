"""A model whose runs may take so long: who hears of one that takes longer, and what becomes of the version."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from server.errors import ExecutionFailed, NotReady, RunTimedOut, ShuttingDown
from server.messages import InferenceResponse, SequenceFlags
from server.models.execution import CALLER_GONE, SERVER_GONE, BatchResult
from server.models.lifecycle import State
from server.models.model import LoadedVersion
from server.models.run_limit import MAX_HUNG_RUNS, Remedy, WatchedSession, remedy
from server.scheduling.watched_lane import INTERRUPT_SECONDS
from server.tensors import Array
from tests.fakes import OneReply, PuppetClock, PuppetSession, fp32
from tests.unit import loaded, test_recovery
from tests.unit.loaded import batching_config, doubled_and_negated, request, run, turn, values
from tests.unit.test_recovery import HELD

LIMIT = 2.0
ENDLESS = -7.0


class Obedient(PuppetSession):
    """A session on which the row `ENDLESS` runs until it is interrupted, as an endless Loop of ONNX Runtime does."""

    def __init__(self, deaf: int = 0) -> None:
        """The first `deaf` of its `interruptible` ones do not hear of it."""
        super().__init__([fp32("x", -1, -1)], [fp32("y", -1, -1), fp32("z", -1, -1)], self._compute)
        self.begun = threading.Semaphore(0)
        self.deaf = deaf
        self._hears = True
        self._interrupted = threading.Event()

    def interruptible(self) -> Obedient:
        other = Obedient()
        other.begun, other._hears = self.begun, not self.deaf
        self.deaf = max(0, self.deaf - 1)
        return other

    def interrupt(self) -> None:
        if self._hears:
            self._interrupted.set()

    def _compute(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        self.begun.release()
        if (inputs["x"] == ENDLESS).any():
            self._interrupted.wait(20)  # then it is answered, which nobody expects
        if self._interrupted.is_set():
            raise RuntimeError("Exiting due to terminate flag being set to true")
        return doubled_and_negated(inputs)


class Bench:
    """Version 3 of model 'm', of one instance, on an obedient session."""

    def __init__(self, run_limit: float = LIMIT, deaf: int = 0) -> None:
        self.clock = PuppetClock(now=1000)
        self.session = Obedient(deaf)
        self.version = LoadedVersion(
            batching_config(), 3, [self.session], self.clock, tiny_batch_seconds=0.0, run_limit=run_limit
        )

    def send(self, *rows: list[float]) -> OneReply:
        reply = OneReply()
        self.version.submit(request(*rows), reply)
        return reply

    async def begun(self) -> None:
        """Wait until the next run has begun."""
        while not self.session.begun.acquire(blocking=False):
            await turn()

    async def close(self) -> None:
        await self.version.drain()


def test_a_request_whose_run_takes_too_long_is_told_so_and_the_next_is_answered() -> None:
    async def main() -> None:
        bench = Bench()
        endless = bench.send([ENDLESS])
        await bench.begun()
        bench.clock.advance(LIMIT)
        error = await endless.error()
        assert isinstance(error, RunTimedOut)
        assert str(error) == "model 'm' version 3: the run took longer than run_timeout_ms 2000"
        assert values(await bench.send([1.0]).response())["y"] == [[2.0]]
        statistics = bench.version.statistics
        assert (statistics.run_timeouts, statistics.hung_runs, statistics.failed_runs) == (1, 0, 1)
        await bench.close()

    run(main)


def test_in_a_batch_only_the_guilty_fails() -> None:
    async def main() -> None:
        bench = Bench()
        replies = [bench.send([1.0]), bench.send([ENDLESS]), bench.send([3.0])]
        await bench.begun()
        bench.clock.advance(LIMIT)
        for _ in range(2):  # the first of them alone, and the guilty
            await bench.begun()
        bench.clock.advance(LIMIT)  # seen, whose time is that of the batch
        bench.clock.advance(LIMIT)
        assert values(await replies[0].response())["y"] == [[2.0]]
        assert isinstance(await replies[1].error(), RunTimedOut)
        assert values(await replies[2].response())["y"] == [[6.0]]
        await bench.close()

    run(main)


def test_an_interruption_that_comes_too_late_harms_no_other_run() -> None:
    session = WatchedSession(Obedient())
    inputs = {"x": np.ones((1, 1), np.float32)}
    session.run(inputs, ["y"])
    assert session.interrupt_run(session.number, lambda: RuntimeError("late")) is None
    assert session.run(inputs, ["y"])[0].item() == 2.0


def test_a_failure_of_its_own_is_no_timeout() -> None:
    def fail(_: Mapping[str, Array]) -> Mapping[str, Array]:
        raise ValueError("bad input")

    session = WatchedSession(PuppetSession([fp32("x", -1, 1)], [fp32("y", -1, 1)], fail))
    with pytest.raises(ValueError, match="bad input"):
        session.run({"x": np.ones((1, 1), np.float32)}, ["y"])


@pytest.mark.parametrize("run_limit", [0.0, LIMIT])
def test_when_the_server_must_go_runs_are_interrupted_and_their_callers_told_why(run_limit: float) -> None:
    async def main() -> None:
        bench = Bench(run_limit)
        endless = bench.send([ENDLESS])
        await bench.begun()
        behind = bench.send([1.0])
        bench.version.cut_off()
        assert isinstance(await endless.error(), ShuttingDown)
        assert isinstance(await behind.error(), ShuttingDown)
        await bench.close()

    run(main)


def test_the_session_that_took_the_place_of_one_that_hangs_is_interrupted_too() -> None:
    async def main() -> None:
        bench = Bench(deaf=1)
        hung = bench.send([ENDLESS])
        await bench.begun()
        bench.clock.advance(LIMIT)
        bench.clock.advance(INTERRUPT_SECONDS)
        assert isinstance(await hung.error(), RunTimedOut)
        endless = bench.send([ENDLESS])
        await bench.begun()
        bench.version.cut_off()
        assert isinstance(await endless.error(), ShuttingDown)
        await bench.close()

    run(main)


def test_when_the_server_must_go_who_waits_behind_a_run_that_hangs_is_told_so() -> None:
    async def main() -> None:
        bench = loaded.Bench()
        await bench.keep_busy()
        _, behind = bench.submit([1.0])
        bench.version.cut_off()
        assert [type(answer) for answer in behind.answers] == [ShuttingDown]
        await bench.finish()

    run(main)


def test_what_was_answered_before_the_server_had_to_go_stays_so() -> None:
    answered = InferenceResponse("m", "3", "", [])
    result = BatchResult([answered, ExecutionFailed("interrupted"), CALLER_GONE], [], 0, failed_runs=1)
    assert result.going_down().answers == [answered, SERVER_GONE, CALLER_GONE]


def test_a_drained_version_holds_no_session() -> None:
    async def main() -> None:
        session = PuppetSession([fp32("x", -1, -1)], [fp32("y", -1, -1), fp32("z", -1, -1)], doubled_and_negated)
        version = LoadedVersion(batching_config(), 3, [session], PuppetClock(), tiny_batch_seconds=0.0, run_limit=LIMIT)
        reply, gone = OneReply(), threading.Event()
        version.submit(request([1.0]), reply)
        await reply.response()
        weakref.finalize(session, gone.set)
        del session
        assert version.run_limit is not None
        version.run_limit.when_hung = lambda *_: None
        await version.drain()
        assert version.run_limit.when_hung is None
        assert gone.wait(10)
        assert version.in_flight == 0

    run(main)


@pytest.mark.parametrize(
    ("hung", "keeps_states", "chosen"),
    [
        (1, False, Remedy.REPLACE),
        (MAX_HUNG_RUNS, False, Remedy.REPLACE),
        (MAX_HUNG_RUNS + 1, False, Remedy.GIVE_UP),
        (1, True, Remedy.RELOAD),
        (MAX_HUNG_RUNS, True, Remedy.RELOAD),
        (MAX_HUNG_RUNS + 1, True, Remedy.GIVE_UP),
    ],
)
def test_what_becomes_of_a_version_with_runs_that_hang(hung: int, keeps_states: bool, chosen: Remedy) -> None:
    assert remedy(hung, keeps_states=keeps_states) is chosen


CONFIG = 'max_batch_size: 4 parameters { key: "run_timeout_ms" value { string_value: "2000" } }'


async def leave_one_behind(bench: test_recovery.Bench) -> OneReply:
    """Send a request whose run does not end, until it is answered all the same."""
    reply = bench.send(HELD)
    hung = bench.sessions.held + 1
    while bench.sessions.held < hung:
        await turn()
    bench.clock.advance(2.0)
    bench.clock.advance(INTERRUPT_SECONDS)
    assert isinstance(await reply.error(), RunTimedOut)
    return reply


def test_runs_that_cannot_be_stopped_are_left_behind_and_the_version_serves_on(tmp_path: Path) -> None:
    async def main() -> None:
        bench = test_recovery.Bench(tmp_path, config=CONFIG)
        await bench.plane.load_all()
        replies = [await leave_one_behind(bench) for _ in range(MAX_HUNG_RUNS)]
        assert bench.registry.all_ready()
        assert bench.reason == "3 of its runs took longer than run_timeout_ms and cannot be stopped"
        assert values(await bench.send([1.0, 2.0]).response()) == {"y": [[2.0, 4.0]]}
        bench.sessions.gate.open(MAX_HUNG_RUNS)
        while bench.version.statistics.hung_runs:
            await turn()
        assert bench.reason == ""
        assert [len(reply.answers) for reply in replies] == [1] * MAX_HUNG_RUNS
        await bench.plane.unload_all()

    run(main)


def test_a_version_with_too_many_of_them_is_taken_down_until_it_is_loaded_anew(tmp_path: Path) -> None:
    async def main() -> None:
        bench = test_recovery.Bench(tmp_path, config=CONFIG)
        await bench.plane.load_all()
        for _ in range(MAX_HUNG_RUNS):
            await leave_one_behind(bench)
        reply = bench.send(HELD)
        while bench.sessions.held <= MAX_HUNG_RUNS:
            await turn()
        waiting = bench.send([1.0, 2.0])
        bench.clock.advance(2.0)
        bench.clock.advance(INTERRUPT_SECONDS)
        await bench.until(State.UNAVAILABLE)
        assert isinstance(await reply.error(), RunTimedOut)
        assert isinstance(await waiting.error(), NotReady)
        assert bench.reason == (
            "4 of its runs took longer than run_timeout_ms and cannot be stopped; it is not loaded again by itself: "
            "restart the server, or load it anew"
        )
        assert not bench.registry.all_ready()
        bench.sessions.gate.open(MAX_HUNG_RUNS + 1)
        await bench.plane.unload_all()

    run(main)


def test_a_model_of_sequences_is_loaded_again_since_a_hung_run_may_still_write_their_states(tmp_path: Path) -> None:
    async def main() -> None:
        bench = test_recovery.Bench(tmp_path, config=f"{CONFIG} sequence_batching {{ }}")
        await bench.plane.load_all()
        reply = OneReply()
        bench.engine.infer(request(HELD, sequence=SequenceFlags(7, start=True)), reply)
        while not bench.sessions.held:
            await turn()
        bench.clock.advance(2.0)
        bench.clock.advance(INTERRUPT_SECONDS)
        assert isinstance(await reply.error(), RunTimedOut)
        await bench.until(State.UNAVAILABLE)
        assert bench.reason == (
            "1 of its runs took longer than run_timeout_ms and cannot be stopped; loading it again in 1 s"
        )
        bench.clock.advance(1.0)
        await bench.until(State.READY)
        assert len(bench.sessions.opened) == 2
        bench.sessions.gate.open()
        await bench.plane.unload_all()

    run(main)


def test_a_model_of_sequences_that_is_being_unloaded_is_not_loaded_again(tmp_path: Path) -> None:
    async def main() -> None:
        bench = test_recovery.Bench(tmp_path, config=f"{CONFIG} sequence_batching {{ }}")
        await bench.plane.load_all()
        reply = OneReply()
        bench.engine.infer(request(HELD, sequence=SequenceFlags(7, start=True)), reply)
        while not bench.sessions.held:
            await turn()
        unloading = asyncio.ensure_future(bench.plane.unload_all())
        await bench.until(State.DRAINING)
        bench.clock.advance(2.0)
        bench.clock.advance(INTERRUPT_SECONDS)
        await unloading
        assert bench.reason == "unloaded"
        assert isinstance(await reply.error(), RunTimedOut)
        bench.sessions.gate.open()

    run(main)
