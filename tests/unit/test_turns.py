"""Who may run a batch where more want to than may: rule by rule, with takers that only note that they were called."""

from __future__ import annotations

from math import inf

import pytest

from server.scheduling.turns import Taker, Turns


class Caller:
    """A model that begins a batch whenever it is called, unless it does not want to any more."""

    def __init__(self, turns: Turns, log: list[str], name: str) -> None:
        self.turns = turns
        self.log = log
        self.name = name
        self.wants = True
        self.taker = Taker(self._called)

    def run(self, seconds: float) -> None:
        """Have a turn, and run for so long."""
        self.turns.end(self.taker, self.turns.begin(self.taker), seconds)

    def wait(self, due: float = 0.0, deadline: float = inf) -> None:
        self.turns.wait(self.taker, due, deadline)

    def _called(self) -> None:
        if self.wants:
            self.turns.begin(self.taker)
            self.log.append(self.name)


class Bench:
    """Models that share turns, and the order in which they began after having waited."""

    def __init__(self, limit: float, names: str) -> None:
        self.turns = Turns(limit)
        self.began: list[str] = []
        self.callers = {name: Caller(self.turns, self.began, name) for name in names}

    def __getitem__(self, name: str) -> Caller:
        return self.callers[name]

    def end(self, name: str, seconds: float = 1.0) -> None:
        """End a batch that had a turn, and call whoever is next."""
        self.turns.end(self[name].taker, True, seconds)
        self.turns.call_next()


@pytest.mark.parametrize("limit", [0, -1, 0.5, float("nan")])
def test_a_limit_below_one_is_refused(limit: float) -> None:
    with pytest.raises(ValueError, match="at least one batch must be able to run"):
        Turns(limit)


def test_without_a_limit_nobody_waits() -> None:
    bench = Bench(inf, "a")
    assert all(bench.turns.begin(bench["a"].taker) for _ in range(1000))
    assert bench.turns.running == 1000


def test_a_turn_beyond_the_limit_is_refused() -> None:
    bench = Bench(1, "ab")
    bench.turns.begin(bench["a"].taker)
    assert not bench.turns.may_begin(bench["b"].taker)
    with pytest.raises(RuntimeError, match=r"^a batch began out of turn: 1 of 1 run$"):
        bench.turns.begin(bench["b"].taker)


def test_what_has_not_begun_cannot_end() -> None:
    bench = Bench(1, "ab")
    bench.turns.begin(bench["a"].taker)
    with pytest.raises(RuntimeError, match=r"^a batch ended that had not begun$"):
        bench.turns.end(bench["b"].taker, True, 1.0)
    assert bench.turns.running == 1


def test_whoever_is_called_and_asks_again_without_having_begun_is_an_error() -> None:
    turns = Turns(1)
    other, taker = Taker(lambda: None), Taker(lambda: turns.wait(taker, 0, inf))
    turns.begin(other)
    turns.wait(taker, 0, inf)
    turns.end(other, True, 1.0)
    with pytest.raises(RuntimeError, match=r"^a taker that was called neither began nor let it be$"):
        turns.call_next()


def test_nobody_jumps_the_line() -> None:
    bench = Bench(1, "abc")
    bench.turns.begin(bench["a"].taker)
    bench["b"].wait()
    bench.turns.end(bench["a"].taker, True, 1.0)
    assert not bench.turns.may_begin(bench["c"].taker)
    bench.turns.call_next()
    assert bench.began == ["b"]


def test_within_a_round_the_earliest_deadline_goes_first_and_none_counts_as_a_second_after_it_was_due() -> None:
    bench = Bench(1, "xabcd")
    bench.turns.begin(bench["x"].taker)
    bench["a"].wait(due=5.0)
    bench["b"].wait(due=5.0, deadline=6.5)
    bench["c"].wait(due=5.0, deadline=5.5)
    bench["d"].wait(due=4.8)
    for ended in "xcda":
        bench.end(ended)
    assert bench.began == ["c", "d", "a", "b"]


def test_equally_urgent_ones_go_in_the_order_in_which_they_came() -> None:
    bench = Bench(1, "xabc")
    bench.turns.begin(bench["x"].taker)
    for name in "bca":
        bench[name].wait()
    for ended in "xbc":
        bench.end(ended)
    assert bench.began == ["b", "c", "a"]


def test_whoever_had_a_turn_goes_behind_everyone_who_had_none_however_urgent_it_is() -> None:
    bench = Bench(1, "abc")
    bench.turns.begin(bench["a"].taker)
    bench["a"].wait(due=-100)
    bench["b"].wait(due=0)
    bench["c"].wait(due=1)
    bench.end("a")
    bench["b"].wait(due=-200)
    for ended in "bcb":
        bench.end(ended)
    assert bench.began == ["b", "c", "b", "a"]


def test_whoever_does_not_want_its_turn_any_more_passes_it_on() -> None:
    bench = Bench(1, "abc")
    bench.turns.begin(bench["a"].taker)
    bench["b"].wait()
    bench["c"].wait()
    bench["b"].wants = False
    bench.end("a")
    assert (bench.began, bench.turns.running) == (["c"], 1)


def test_whoever_let_its_turn_be_may_wait_for_another() -> None:
    bench = Bench(1, "ab")
    bench.turns.begin(bench["a"].taker)
    bench["b"].wait()
    bench["b"].wants = False
    bench.end("a")
    bench["b"].wants = True
    bench["b"].wait()
    bench.turns.call_next()
    assert bench.began == ["b"]


def test_whoever_left_is_not_called() -> None:
    bench = Bench(1, "abc")
    bench.turns.begin(bench["a"].taker)
    bench["b"].wait()
    bench["c"].wait()
    bench.turns.leave(bench["b"].taker)
    bench.turns.leave(bench["b"].taker)
    bench.end("a")
    assert bench.began == ["c"]


def test_a_batch_that_is_short_beside_what_runs_needs_no_turn() -> None:
    bench = Bench(1, "ab")
    bench["a"].run(0.100)
    bench["b"].run(0.024)
    bench.turns.begin(bench["a"].taker)
    assert bench.turns.may_begin(bench["b"].taker)
    assert not bench.turns.begin(bench["b"].taker)
    assert bench.turns.running == 1
    assert not bench.turns.may_begin(bench["b"].taker), "one batch at a time"


@pytest.mark.parametrize("seconds", [0.025, 0.100, 1.0])
def test_a_batch_that_is_not_short_beside_what_runs_waits(seconds: float) -> None:
    bench = Bench(1, "ab")
    bench["a"].run(0.100)
    bench["b"].run(seconds)
    bench.turns.begin(bench["a"].taker)
    assert not bench.turns.may_begin(bench["b"].taker)


def test_a_first_batch_is_taken_neither_for_a_short_one_nor_for_a_long_one() -> None:
    bench = Bench(1, "abc")
    bench["c"].run(0.001)
    bench.turns.begin(bench["a"].taker)
    assert not bench.turns.may_begin(bench["b"].taker)
    assert not bench.turns.may_begin(bench["c"].taker)


def test_whoever_waits_is_called_at_once_when_what_runs_beside_makes_it_short() -> None:
    bench = Bench(1, "abc")
    for name, seconds in (("a", 0.002), ("b", 0.100), ("c", 0.002)):
        bench[name].run(seconds)
    bench.turns.begin(bench["a"].taker)
    bench["c"].wait(due=1)
    bench["b"].wait(due=0)
    bench.end("a", 0.002)
    assert bench.began == ["b", "c"]
    assert bench.turns.running == 1
