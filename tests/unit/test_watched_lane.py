"""Runs that take too long: interrupted first, left behind where that is of no use. Time moves when a test says so."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from server.scheduling.watched_lane import INTERRUPT_SECONDS, LOOK_SECONDS, RunWatch, Verdict, WatchedLane
from tests.fakes import NamedTicket, PuppetClock

LIMIT = 0.75
BATCH = [NamedTicket("a")]


def test_a_run_is_let_be_then_interrupted_once_and_then_given_up() -> None:
    watch = RunWatch(LIMIT)
    watch.begin(7, 100.0)
    assert (watch.look(7, 100.7), watch.due) == (Verdict.WAIT, 100.75)
    assert (watch.look(7, 100.75), watch.due) == (Verdict.INTERRUPT, 101.5)
    assert (watch.look(7, 101.5), watch.due) == (Verdict.WAIT, 102.25)
    assert (watch.look(7, 102.25), watch.due) == (Verdict.WAIT, 100.75 + INTERRUPT_SECONDS)
    assert watch.look(7, 100.75 + INTERRUPT_SECONDS) is Verdict.GIVE_UP


def test_a_short_limit_does_not_make_for_many_looks() -> None:
    watch = RunWatch(0.001)
    watch.begin(7, 100.0)
    assert (watch.look(7, 100.1), watch.due) == (Verdict.INTERRUPT, 100.1 + LOOK_SECONDS)


def test_time_in_which_the_process_stood_still_does_not_count() -> None:
    watch = RunWatch(LIMIT)
    watch.begin(7, 100.0)
    assert (watch.look(7, 101.1), watch.due) == (Verdict.WAIT, 101.1 + LIMIT)
    assert watch.look(7, 101.1 + LIMIT) is Verdict.INTERRUPT
    assert (watch.look(7, 150.0), watch.due) == (Verdict.WAIT, 150.0 + INTERRUPT_SECONDS)
    assert watch.look(7, 150.0 + INTERRUPT_SECONDS) is Verdict.GIVE_UP


@pytest.mark.parametrize("interrupted", [False, True])
def test_each_run_of_a_batch_has_the_whole_time(interrupted: bool) -> None:
    watch = RunWatch(LIMIT)
    watch.begin(7, 100.0)
    if interrupted:
        assert watch.look(7, 100.75) is Verdict.INTERRUPT
    assert (watch.look(8, 103.0), watch.due) == (Verdict.WAIT, 103.75)
    assert watch.look(8, 103.7) is Verdict.WAIT
    assert watch.look(8, 103.75) is Verdict.INTERRUPT


class HeldLane:
    """A lane, and its runs: each batch is one run, and ends when a test says so."""

    def __init__(self) -> None:
        self.number = 0
        self.done: list[Callable[[Any], None]] = []
        self.interrupted: list[tuple[int, Exception]] = []
        self.closed = False
        self.ended = False
        """Whether the latest run has ended, and its outcome is on its way."""

    def submit(self, batch: Sequence[NamedTicket], done: Callable[[Any], None]) -> None:
        self.number += 1
        self.done.append(done)

    def close(self) -> None:
        self.closed = True

    def interrupt_run(self, number: int, overdue: Callable[[], Exception]) -> Exception | None:
        if self.ended:
            return None
        self.interrupted.append((number, overdue()))
        return self.interrupted[-1][1]


class Bench:
    """A watched lane; what it tells is kept."""

    def __init__(self, out_of_order: Exception | None = None) -> None:
        self.clock = PuppetClock(now=50.0)
        self.lanes = [HeldLane()]
        self.late = TimeoutError("too long")
        self.hung: list[int] = []
        self.outcomes: list[object] = []
        self.out_of_order = out_of_order

        self.no_more: Exception | None = None

        def another() -> tuple[HeldLane, HeldLane]:
            if self.no_more is not None:
                raise self.no_more
            self.lanes.append(HeldLane())
            return self.lanes[-1], self.lanes[-1]

        def tell(change: int) -> Exception | None:
            self.hung.append(change)
            return self.out_of_order if change > 0 else None

        first = self.lanes[0]
        self.lane: WatchedLane[NamedTicket, str] = WatchedLane(
            first, first, LIMIT, self.clock, another=another, overdue=lambda: self.late, hung=tell
        )

    def submit(self) -> None:
        self.lane.submit(BATCH, self.outcomes.append)

    def leave_one_behind(self) -> None:
        self.submit()
        self.clock.advance(LIMIT + INTERRUPT_SECONDS)


def test_runs_within_the_limit_are_not_touched_and_share_an_alarm() -> None:
    bench = Bench()
    first_due = bench.clock.now() + LIMIT
    for _ in range(10):
        bench.submit()
        bench.lanes[0].done[-1]("fine")
        bench.clock.advance(LIMIT / 20)
        assert bench.clock.alarms[0].when == first_due
    bench.submit()
    bench.clock.advance(0.9 * LIMIT)
    bench.lanes[0].done[-1]("fine")
    assert bench.outcomes == ["fine"] * 11
    assert bench.lanes[0].interrupted == []


def test_a_run_that_ends_when_it_is_interrupted_keeps_its_lane() -> None:
    bench = Bench()
    bench.submit()
    bench.clock.advance(LIMIT)
    assert bench.lanes[0].interrupted == [(1, bench.late)]
    bench.lanes[0].done[0](bench.late)
    bench.clock.advance(INTERRUPT_SECONDS)
    bench.submit()
    bench.lanes[0].done[1]("fine")
    assert bench.outcomes == [bench.late, "fine"]
    assert (bench.hung, len(bench.lanes)) == ([], 1)


def test_a_run_that_has_ended_in_time_is_not_given_up_because_the_loop_was_late() -> None:
    bench = Bench()
    bench.submit()
    bench.lanes[0].ended = True
    bench.clock.advance(LIMIT + 2 * INTERRUPT_SECONDS)
    bench.lanes[0].done[0]("fine")
    assert (bench.outcomes, bench.hung) == (["fine"], [])


def test_a_run_that_does_not_end_is_answered_and_another_lane_takes_its_place() -> None:
    bench = Bench()
    bench.leave_one_behind()
    assert bench.outcomes == [bench.late]
    assert bench.hung == [1]
    assert bench.lanes[0].closed
    bench.submit()
    bench.lanes[1].done[0]("fine")
    assert bench.outcomes == [bench.late, "fine"]


@pytest.mark.parametrize("busy", [False, True])
def test_a_run_that_comes_back_after_all_answers_nobody_a_second_time(busy: bool) -> None:
    bench = Bench()
    bench.leave_one_behind()
    if busy:
        bench.submit()
    bench.lanes[0].done[0]("late")
    assert bench.outcomes == [bench.late]
    assert bench.hung == [1, -1]
    if busy:
        bench.lanes[1].done[0]("fine")
        assert bench.outcomes == [bench.late, "fine"]


def test_a_lane_without_another_in_its_place_refuses_what_comes() -> None:
    async def main() -> None:
        bench = Bench(out_of_order=RuntimeError("no more"))
        bench.leave_one_behind()
        bench.submit()
        assert bench.outcomes == [bench.late]
        await asyncio.sleep(0)
        assert bench.outcomes == [bench.late, bench.out_of_order]
        assert len(bench.lanes) == 1

    asyncio.run(main())


def test_where_no_thread_can_be_had_what_comes_is_refused_and_not_lost() -> None:
    async def main() -> None:
        bench = Bench()
        bench.no_more = RuntimeError("can't start new thread")
        bench.leave_one_behind()
        bench.submit()
        await asyncio.sleep(0)
        assert bench.outcomes == [bench.late, bench.no_more]

    asyncio.run(main())


def test_closing_closes_the_lane_and_the_alarm() -> None:
    bench = Bench()
    bench.lane.close()
    assert bench.lanes[0].closed
    assert bench.clock.alarms[0].closed
