"""A version with a response cache: hits, single flight, and who is answered when the one who leads leaves."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from server.cache.entries import Entry, copy_of
from server.cache.local import LocalStore
from server.cache.store import Found, StoreCounts
from server.errors import (
    Cancelled,
    ConvoyError,
    DeadlineExceeded,
    ExecutionFailed,
    InvalidRequest,
    NotReady,
    QueueFull,
    QueueTimeout,
    Reason,
    ShuttingDown,
)
from server.messages import RequestedOutput
from server.scheduling.budget import ByteBudget
from tests.unit.loaded import Bench, batching_config, doubled_and_negated, request, run, turn, values


class DistantStore:
    """A `cache.store.Store` that answers a lookup when a test says so."""

    is_shared = True

    def __init__(self) -> None:
        self.kept: dict[bytes, Entry] = {}
        self.asked: list[tuple[bytes, Found]] = []
        self.is_there = True

    def get(self, key: bytes) -> Entry | None:
        return None

    def fetch(self, key: bytes, found: Found) -> bool:
        if self.is_there:
            self.asked.append((key, found))
        return self.is_there

    def put(self, key: bytes, entry: Entry) -> None:
        self.kept[key] = copy_of(entry)

    def answer(self) -> None:
        asked, self.asked = self.asked, []
        for key, found in asked:
            found(self.kept.get(key))

    def counts(self) -> StoreCounts:
        return StoreCounts()

    def close(self) -> None:
        pass


def cached(store: Any = None, identity: bytes = b"m/3#0", **more: Any) -> Bench:
    return Bench(store=store or LocalStore(1 << 20), identity=identity, **more)


def hits_and_misses(bench: Bench) -> tuple[int, int]:
    statistics = bench.version.statistics
    return statistics.cache_hit.count, statistics.cache_miss.count


def rows_run(bench: Bench) -> int:
    return sum(shape["x"][0] for shape in bench.session.shapes)


def test_an_equal_request_is_answered_at_once_without_a_run() -> None:
    async def main() -> None:
        bench = cached()
        bench.gate.open(1)
        _, first = bench.submit([1.0, 2.0], request_id="a")
        answer = await first.response()
        work, second = bench.submit([1.0, 2.0], request_id="b")
        assert work is None
        [again] = second.answers
        assert (again.request_id, again.model_name, again.model_version) == ("b", "m", "3")
        assert values(again) == values(answer) == {"y": [[2.0, 4.0]], "z": [[-1.0, -2.0]]}
        statistics = bench.version.statistics
        assert hits_and_misses(bench) == (1, 1)
        assert (statistics.success.count, statistics.inference_count, statistics.execution_count) == (2, 1, 1)
        assert statistics.cache_hit.ns > 0 and statistics.cache_miss.ns > 0
        assert rows_run(bench) == 1
        await bench.finish()

    run(main)


def test_other_inputs_outputs_and_loads_are_misses() -> None:
    async def main() -> None:
        store = LocalStore(1 << 20)
        bench = cached(store)
        bench.gate.open(100)
        for rows, more in (
            ([[1.0]], {}),
            ([[2.0]], {}),
            ([[1.0], [1.0]], {}),
            ([[1.0]], {"outputs": [RequestedOutput("y")]}),
            ([[1.0, 2.0]], {"outputs": [RequestedOutput("y", 1)]}),
            ([[1.0, 2.0]], {"outputs": [RequestedOutput("y", 2)]}),
        ):
            await bench.submit(*rows, **more)[1].response()
        assert hits_and_misses(bench) == (0, 6)
        await bench.submit([1.0], priority=1, timeout_us=10_000_000)[1].response()
        assert hits_and_misses(bench) == (1, 6)
        other = cached(store, identity=b"m/3#1", function=lambda x: {"y": x["x"] * 5, "z": x["x"]})
        other.gate.open(1)
        assert values(await other.submit([1.0])[1].response())["y"] == [[5.0]]
        await bench.finish()
        await other.finish()

    run(main)


def test_a_refused_request_is_refused_as_without_a_cache_and_counts_as_neither() -> None:
    async def main() -> None:
        bench = cached()
        work, reply = bench.submit(*[[1.0]] * 9)
        assert work is None and isinstance(reply.answers[0], InvalidRequest)
        wrong = request([1.0])
        wrong.buffers = (b"123",)
        work = bench.version.submit(wrong, reply)
        assert work is None and isinstance(reply.answers[1], InvalidRequest)
        assert hits_and_misses(bench) == (0, 0)
        assert bench.version.in_flight == 0
        await bench.finish()

    run(main)


def test_equal_requests_in_progress_run_once() -> None:
    async def main() -> None:
        bench = cached()
        replies = [bench.submit([1.0], request_id=str(n))[1] for n in range(5)]
        await turn()
        assert bench.version.in_flight == 5
        await bench.finish()
        answers = [await reply.response() for reply in replies]
        assert [answer.request_id for answer in answers] == ["0", "1", "2", "3", "4"]
        assert all(values(answer)["y"] == [[2.0]] for answer in answers)
        assert rows_run(bench) == 1
        assert hits_and_misses(bench) == (4, 1)
        assert bench.version.statistics.cache_joined == 4
        assert bench.version.in_flight == 0

    run(main)


@pytest.mark.parametrize("is_running", [False, True])
def test_where_the_one_who_leads_is_cancelled_the_next_one_leads(is_running: bool) -> None:
    async def main() -> None:
        bench = cached()
        if not is_running:
            await bench.keep_busy()
        leader, unheard = bench.submit([1.0])
        second = bench.submit([1.0])[1]
        third = bench.submit([1.0])[1]
        await turn()
        assert leader is not None
        leader.cancel()
        leader.cancel()
        await bench.finish()
        assert unheard.answers == []
        assert values(await second.response())["y"] == values(await third.response())["y"] == [[2.0]]
        assert rows_run(bench) == 2  # the busy one and one more, or the one that nobody waits for and one more
        statistics = bench.version.statistics
        assert (statistics.failures[Reason.CANCELLED], statistics.success.count) == (1, 3 - is_running)

    run(main)


def test_where_the_one_who_leads_is_late_the_next_one_leads() -> None:
    async def main() -> None:
        bench = cached()
        await bench.keep_busy()
        late = bench.submit([1.0], deadline=1001.0)[1]
        patient = bench.submit([1.0], deadline=1100.0)[1]
        bench.clock.advance(2)
        assert isinstance(await late.error(), DeadlineExceeded)
        assert patient.answers == []
        await bench.finish()
        assert values(await patient.response())["y"] == [[2.0]]

    run(main)


def test_whoever_waits_keeps_its_own_deadline_and_timeout() -> None:
    async def main() -> None:
        bench = cached()
        leader = bench.submit([1.0])[1]
        await turn()
        follower = bench.submit([1.0], deadline=1001.0)[1]
        hasty = bench.submit([1.0], timeout_us=500_000)[1]
        bench.clock.advance(0.6)
        assert isinstance(hasty.answers[0], QueueTimeout)
        assert follower.answers == []
        bench.clock.advance(0.6)
        assert isinstance(follower.answers[0], DeadlineExceeded)
        await bench.finish()
        await leader.response()
        statistics = bench.version.statistics
        assert (statistics.failures[Reason.TOO_LATE], statistics.deadline_missed) == (2, 2)
        assert hits_and_misses(bench) == (0, 1)

    run(main)


def test_the_time_that_was_waited_counts_for_the_one_who_leads_next() -> None:
    async def main() -> None:
        bench = cached()
        await bench.keep_busy()
        leader, _ = bench.submit([1.0])
        follower = bench.submit([1.0], timeout_us=2_000_000)[1]
        bench.clock.advance(1.5)
        assert leader is not None
        leader.cancel()
        await turn()
        bench.clock.advance(1)
        assert isinstance(follower.answers[0], QueueTimeout)
        await bench.finish()

    run(main)


def test_where_the_run_fails_the_others_run_for_themselves() -> None:
    async def main() -> None:
        calls = 0

        def function(inputs: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == 1:
                raise RuntimeError("once")
            return doubled_and_negated(inputs)

        bench = cached(function=function)
        unlucky = bench.submit([1.0])[1]
        await turn()
        others = [bench.submit([1.0])[1] for _ in range(3)]
        await turn()
        bench.gate.open(10_000)
        first = await unlucky.answer()  # a lane runs a batch that failed once more
        for other in others:
            assert values(await other.response())["y"] == [[2.0]]
        assert not isinstance(first, ExecutionFailed) or rows_run(bench) >= 4
        await bench.finish()
        assert bench.version.in_flight == 0

    run(main)


def test_a_model_that_always_fails_fails_each_request_once() -> None:
    async def main() -> None:
        def function(inputs: Any) -> Any:
            raise RuntimeError("never")

        bench = cached(function=function)
        replies = [bench.submit([1.0], request_id=str(n))[1] for n in range(4)]
        await turn()
        await bench.finish()
        for reply in replies:
            assert isinstance(await reply.error(), ExecutionFailed)
        assert hits_and_misses(bench) == (0, 0)
        assert bench.version.statistics.failures[Reason.BACKEND] == 4

    run(main)


def test_where_the_queue_is_full_everybody_hears_it_of_its_own_request() -> None:
    async def main() -> None:
        store = DistantStore()
        bench = cached(store, config=batching_config(max_queue_size=1))
        replies = [bench.submit([1.0], request_id=str(n))[1] for n in range(2000)]
        busy = request([0.0], request_id="busy")
        store.is_there = False
        bench.version.submit(busy, lambda _: None)
        await turn()
        bench.submit([5.0])
        store.answer()
        errors = [reply.answers[0] for reply in replies]
        assert all(isinstance(error, QueueFull) for error in errors)
        assert str(errors[7]).startswith("[request id: 7] ")
        await bench.finish()
        assert bench.version.in_flight == 0

    run(main)


def test_a_distant_store_is_asked_once_and_answers_everybody() -> None:
    async def main() -> None:
        store = DistantStore()
        bench = cached(store)
        bench.gate.open(1)
        replies = [bench.submit([1.0])[1] for _ in range(3)]
        assert bench.version.pending == 3 and len(store.asked) == 1
        store.answer()
        for reply in replies:
            await reply.response()
        assert hits_and_misses(bench) == (2, 1)
        replies = [bench.submit([1.0])[1] for _ in range(3)]
        store.answer()
        assert [len(reply.answers) for reply in replies] == [1, 1, 1]
        assert hits_and_misses(bench) == (5, 1)
        assert rows_run(bench) == 1
        await bench.finish()

    run(main)


def test_a_lookup_that_nobody_waits_for_any_more_changes_nothing() -> None:
    async def main() -> None:
        store = DistantStore()
        bench = cached(store)
        work, _ = bench.submit([1.0])
        assert work is not None
        work.cancel()
        assert bench.version.in_flight == 0
        _, late = bench.submit([1.0], deadline=1001.0)
        bench.clock.advance(2)
        assert isinstance(late.answers[0], DeadlineExceeded)
        again = bench.submit([1.0])[1]
        assert len(store.asked) == 1  # the first lookup is still on its way
        store.answer()
        await bench.finish()
        await again.response()
        assert bench.version.statistics.failures[Reason.CANCELLED] == 1

    run(main)


def test_what_waits_for_a_lookup_counts_for_the_bytes_that_may_wait() -> None:
    async def main() -> None:
        budget = ByteBudget(10)
        store = DistantStore()
        bench = cached(store, budget=budget)
        first = bench.submit([1.0, 2.0])[1]
        assert budget.used == 8
        work, refused = bench.submit([3.0])
        assert work is None and isinstance(refused.answers[0], QueueFull)
        store.answer()
        await bench.finish()
        await first.response()
        assert budget.used == 0
        assert bench.version.in_flight == 0

    run(main)


def test_a_version_that_drains_answers_who_waits_first() -> None:
    async def main() -> None:
        store = DistantStore()
        bench = cached(store)
        bench.gate.open(10)
        reply = bench.submit([1.0])[1]
        draining = asyncio.ensure_future(bench.version.drain())
        await turn()
        assert not draining.done()
        store.answer()
        await draining
        assert values(await reply.response())["y"] == [[2.0]]

    run(main)


def test_a_version_that_is_taken_down_refuses_who_waits() -> None:
    async def main() -> None:
        bench = cached()
        busy = await bench.keep_busy()
        queued, follower = bench.submit([1.0])[1], bench.submit([1.0])[1]
        gone = asyncio.ensure_future(bench.version.abandon("gone"))
        await turn()
        assert isinstance(queued.answers[0], NotReady) and isinstance(follower.answers[0], NotReady)
        bench.gate.open(10)
        await gone
        await busy.response()
        assert bench.version.in_flight == 0

    run(main)


def test_an_answer_that_cannot_be_kept_is_answered_all_the_same(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(LocalStore):
        def put(self, key: bytes, entry: Entry) -> None:
            raise MemoryError

    async def main() -> None:
        bench = cached(Broken(1000))
        replies = [bench.submit([1.0])[1] for _ in range(2)]
        await turn()
        await bench.finish()
        for reply in replies:
            await reply.response()

    run(main)
    assert "cannot be kept" in caplog.text


def test_a_caller_whose_reply_raises_keeps_no_other_waiting(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        def broken(_: object) -> None:
            raise RuntimeError("gone")

        bench = cached()
        bench.version.submit(request([1.0]), broken)
        bench.version.submit(request([1.0]), broken)
        last = bench.submit([1.0])[1]
        await turn()
        await bench.finish()
        await last.response()

    run(main)
    assert caplog.text.count("was not taken") == 2


def test_a_split_request_is_kept_as_a_whole() -> None:
    async def main() -> None:
        bench = cached(config=batching_config(max_batch_size=2, split_oversize=True))
        bench.gate.open(100)
        rows = [[float(n)] for n in range(5)]
        first = await bench.submit(*rows)[1].response()
        again = bench.submit(*rows)[1]
        assert values(again.answers[0]) == values(first)
        await bench.finish()

    run(main)


def test_an_error_is_never_kept() -> None:
    async def main() -> None:
        bench = cached()
        await bench.keep_busy()
        late: ConvoyError = await _late(bench)
        assert isinstance(late, DeadlineExceeded)
        await bench.finish()
        assert hits_and_misses(bench) == (0, 1)

    async def _late(bench: Bench) -> ConvoyError:
        reply = bench.submit([7.0], deadline=1001.0)[1]
        bench.clock.advance(2)
        return await reply.error()

    run(main)


def test_whoever_leaves_when_the_server_goes_down_is_told_from_one_who_leaves() -> None:
    async def main() -> None:
        bench = cached(DistantStore())
        work, _ = bench.submit([1.0])
        bench.version.cut_off()
        assert work is not None
        work.cancel()
        assert bench.version.statistics.failures[Reason.SHUTDOWN] == 1
        assert Cancelled.reason is not Reason.SHUTDOWN

    run(main)


def test_whoever_waits_when_the_server_goes_down_is_refused_and_leads_no_more() -> None:
    async def main() -> None:
        bench = cached()
        await bench.keep_busy()
        replies = [bench.submit([1.0])[1] for _ in range(3)]
        bench.version.cut_off()
        assert [type(await reply.error()) for reply in replies] == [ShuttingDown] * 3
        assert bench.version.pending == 0
        await bench.finish()
        assert rows_run(bench) == 1

    run(main)
