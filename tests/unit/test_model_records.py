"""What a loaded version notes of requests that are watched: which of its runs each was in, and that it was answered."""

from __future__ import annotations

import numpy as np

from server.errors import Cancelled, ConvoyError, ExecutionFailed
from server.records import Record
from tests.unit.loaded import Bench, batching_config, doubled_and_negated, run, turn
from tests.unit.test_model_failures import FAIL_ON_NAN, rooted


class Records:
    """Records, and how those that are done have ended."""

    def __init__(self) -> None:
        self.ended: list[tuple[Record, ConvoyError | None]] = []

    def new(self) -> Record:
        return Record("ModelInfer", "m", 1, self._finished)

    def _finished(self, record: Record, error: ConvoyError | None) -> None:
        record.ended_ns = 1
        self.ended.append((record, error))


def runs(record: Record) -> list[tuple[int, int]]:
    """Rows and requests of the runs that it was in."""
    return [(computation.rows, computation.requests) for computation in record.computations]


def test_a_request_that_is_run_again_by_itself_was_in_no_other_run() -> None:
    async def main() -> None:
        records = Records()
        bench = Bench(batching_config(parameters=FAIL_ON_NAN), rooted)
        await bench.keep_busy()
        good, bad = records.new(), records.new()
        _, first = bench.submit([4.0], record=good)
        _, poisoned = bench.submit([9.0], [-1.0], record=bad)
        await bench.finish()
        await first.response()
        assert type(await poisoned.error()) is ExecutionFailed
        assert (runs(good), runs(bad)) == ([(1, 1)], [])
        assert bad.started_ns > 0
        assert bad.rows == 2

    run(main)


def test_the_runs_of_all_parts_are_the_whole_requests() -> None:
    async def main() -> None:
        records = Records()
        bench = Bench(batching_config(max_batch_size=2, split_oversize=True), doubled_and_negated)
        whole = records.new()
        _, reply = bench.submit(*([float(n)] for n in range(5)), record=whole)
        await bench.finish()
        await reply.response()
        assert sorted(runs(whole)) == [(1, 1), (2, 1), (2, 1)]
        assert (whole.rows, whole.version) == (5, "3")

    run(main)


def test_a_part_that_runs_on_after_its_request_is_given_up_is_not_noted() -> None:
    async def main() -> None:
        records = Records()
        bench = Bench(batching_config(max_batch_size=2, split_oversize=True))
        whole = records.new()
        work, _ = bench.submit(*([float(n)] for n in range(5)), record=whole)
        await turn()
        assert work is not None
        work.cancel()
        assert [record for record, _ in records.ended] == [whole]
        await bench.finish()
        assert runs(whole) == []

    run(main)


def test_answers_that_are_held_back_keep_their_runs() -> None:
    async def main() -> None:
        records = Records()
        bench = Bench(batching_config(preserve_ordering=True, instances=2, max_batch_size=1))
        held = [records.new() for _ in range(3)]
        replies = [bench.submit([float(n)], record=record)[1] for n, record in enumerate(held)]
        await bench.finish()
        for reply in replies:
            await reply.response()
        assert [runs(record) for record in held] == [[(1, 1)]] * 3

    run(main)


def test_the_record_of_a_caller_that_has_left_is_finished_by_the_model() -> None:
    async def main() -> None:
        records = Records()
        bench = Bench()
        running, waiting = records.new(), records.new()
        first, _ = bench.submit([1.0], record=running)
        await turn()
        second, _ = bench.submit([2.0], record=waiting)
        assert first is not None
        assert second is not None
        second.cancel()
        first.cancel()
        assert [record for record, _ in records.ended] == [waiting]
        await bench.finish()
        assert [record for record, _ in records.ended] == [waiting, running]
        assert {type(error) for _, error in records.ended} == {Cancelled}
        assert (runs(waiting), runs(running)) == ([], [(1, 1)])
        assert waiting.started_ns == 0

    run(main)


def test_a_refusal_notes_the_version() -> None:
    async def main() -> None:
        bench, record = Bench(), Records().new()
        work, _ = bench.submit(*np.zeros((9, 1)), record=record)
        assert work is None
        assert (record.version, record.arrived_ns) == ("3", 0)
        await bench.finish()

    run(main)
