"""An ensemble with a response cache: what is kept is of the models that it has, and of no others."""

from __future__ import annotations

import asyncio
from itertools import count

from server.cache.local import LocalStore
from server.errors import DeadlineExceeded, ExecutionFailed, InvalidRequest, QueueTimeout, Reason, ShuttingDown
from server.models.ensemble_run import Members
from server.records import Record
from tests.fakes import OneReply
from tests.unit.ensembling import CHAIN, Bench, array, request
from tests.unit.loaded import run, turn, values


def cached() -> Bench:
    numbers = count()

    def identify(_: Members) -> bytes:
        return f"e#{next(numbers)}".encode()

    return Bench(CHAIN, store=LocalStore(1 << 20), identify=identify)


def answer(bench: Bench, value: float) -> None:
    """Let the last request of each model be answered, the second with `value`."""
    bench.members["one"].given[-1].answer(array(0))
    bench.members["two"].given[-1].answer(array(value))


def hits_and_misses(bench: Bench) -> tuple[int, int]:
    statistics = bench.version.statistics
    return statistics.cache_hit.count, statistics.cache_miss.count


def test_an_equal_request_is_answered_at_once_and_no_step_runs() -> None:
    async def main() -> None:
        bench = cached()
        _, first = bench.submit([1.0], request_id="a")
        answer(bench, 5)
        assert values(await first.response()) == {"y": [[5.0]]}
        record = Record("ModelInfer", "e", 0, lambda *_: None)
        work, second = bench.submit([1.0], request_id="b", record=record)
        assert work is None
        [again] = second.answers
        assert (again.request_id, again.model_name, values(again)) == ("b", "e", {"y": [[5.0]]})
        assert (record.cache, record.version, record.steps) == ("hit", "1", ())
        assert bench.given() == {"one": 1, "two": 1}
        statistics = bench.version.statistics
        assert hits_and_misses(bench) == (1, 1)
        assert (statistics.success.count, statistics.inference_count, statistics.execution_count) == (2, 1, 1)
        bench.check_idle()
        await bench.version.drain()

    run(main)


def test_another_load_of_a_model_answers_for_itself() -> None:
    async def main() -> None:
        bench = cached()
        bench.submit([1.0])
        answer(bench, 5)
        bench.swap("two")
        _, reply = bench.submit([1.0])
        answer(bench, 6)
        assert values(await reply.response()) == {"y": [[6.0]]}
        _, again = bench.submit([1.0])
        assert values(await again.response()) == {"y": [[6.0]]}
        assert hits_and_misses(bench) == (1, 2)
        bench.check_idle()

    run(main)


def test_whoever_waits_keeps_the_models_that_it_came_to() -> None:
    async def main() -> None:
        bench = cached()
        leader, _ = bench.submit([1.0])
        _, follower = bench.submit([1.0])
        assert (bench.version.pending, bench.version.in_flight) == (1, 2)
        old = bench.swap("two")
        _, newcomer = bench.submit([1.0])  # no answer of the old model is for it
        assert bench.given() == {"one": 2}
        assert (bench.version.pending, bench.version.in_flight) == (1, 3)
        drain = asyncio.create_task(bench.version.drain())
        leader.cancel()
        await turn()
        assert not drain.done()
        one, fresh = bench.members["one"].given, bench.members["two"]
        assert len(one) == 3 and one[0].cancelled  # the follower leads
        one[2].answer(array(0))
        old.given[0].answer(array(5))
        one[1].answer(array(0))
        fresh.given[0].answer(array(6))
        assert values(await follower.response()) == {"y": [[5.0]]}
        assert values(await newcomer.response()) == {"y": [[6.0]]}
        await drain
        assert not old.holds
        bench.check_idle()

    run(main)


def test_a_request_of_an_ensemble_around_it_is_answered_by_the_models_that_it_came_to() -> None:
    async def main() -> None:
        bench = cached()
        before = bench.version.members
        release = bench.version.hold()
        bench.submit([1.0])
        bench.submit([1.0])
        old = bench.swap("two")
        bench.submit([2.0])
        joined, alone = OneReply(), OneReply()
        bench.version.submit_on(before, request({"x": [[1.0]]}), joined)  # somebody waits for the same
        bench.members["one"].given[0].answer(array(0))
        old.given[0].answer(array(5))
        assert values(await joined.response()) == {"y": [[5.0]]}
        bench.swap("two")
        bench.submit([3.0])
        bench.version.submit_on(before, request({"x": [[1.0]]}), alone)  # nobody waits any more: it runs
        bench.members["one"].given[-1].answer(array(0))
        old.given[1].answer(array(6))
        assert values(await alone.response()) == {"y": [[6.0]]}
        release()

    run(main)


def test_whoever_waits_keeps_to_its_deadline_and_timeout() -> None:
    async def main() -> None:
        bench = cached()
        _, leader = bench.submit([1.0])
        _, late = bench.submit([1.0], deadline=1002)
        _, impatient = bench.submit([1.0], timeout_us=1_000_000)
        bench.clock.advance(1.5)
        assert isinstance(await impatient.error(), QueueTimeout)
        assert not late.answers
        bench.clock.advance(1)
        assert isinstance(await late.error(), DeadlineExceeded)
        answer(bench, 5)
        assert values(await leader.response()) == {"y": [[5.0]]}
        assert bench.version.statistics.fail.count == 2
        bench.check_idle()

    run(main)


def test_where_the_run_failed_the_others_run_for_themselves() -> None:
    async def main() -> None:
        bench = cached()
        replies = [bench.submit([1.0])[1] for _ in range(3)]
        bench.work("one").fail(ExecutionFailed("no"))
        assert str(await replies[0].error()) == "in ensemble 'e', no"
        for work in bench.members["one"].given[1:]:
            work.answer(array(0))
        for work in bench.members["two"].given:
            work.answer(array(5))
        assert [values(await reply.response())["y"] for reply in replies[1:]] == [[[5.0]]] * 2
        assert bench.version.statistics.fail.count == 1
        bench.check_idle()

    run(main)


def test_a_bad_request_is_refused_and_counted_once() -> None:
    async def main() -> None:
        bench = cached()
        _, reply = bench.submit([1.0, 2.0])
        assert isinstance(await reply.error(), InvalidRequest)
        assert bench.version.statistics.fail.count == 1
        assert hits_and_misses(bench) == (0, 0)

    run(main)


def test_whoever_waits_when_the_server_goes_down_is_refused_and_leads_no_more() -> None:
    async def main() -> None:
        bench = cached()
        leader, _ = bench.submit([1.0])
        _, follower = bench.submit([1.0])
        bench.version.cut_off()
        assert isinstance(await follower.error(), ShuttingDown)
        leader.cancel()
        assert bench.given() == {"one": 1}
        assert bench.version.statistics.failures[Reason.SHUTDOWN] == 2
        bench.check_idle()

    run(main)
