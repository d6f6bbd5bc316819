"""What is tried and chosen, with a measurer whose figures are made up."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest

from loadtest.errors import LoadTestError
from loadtest.tune.candidates import Axis, Candidate, Objective, Window
from loadtest.tune.judging import Aim, Failure, Goal, Measurement, Trial, choose
from loadtest.tune.report import as_json, describe, notes
from loadtest.tune.search import FINALISTS, Budget, Result, Search
from loadtest.tune.space import Space

PRESENT = Candidate(1, 1, 8, Window())
ENOUGH = Budget(measurements=200, seconds=1e6)
TRIAL_SECONDS = 5.0


def seen(rate: float, *, p99_ms: float = 5.0, refused: float = 0.0, cpu: float = 100.0) -> Measurement:
    return Measurement(rate, p99_ms / 2, p99_ms, refused, 4.0, cpu, 80.0)


@dataclass
class Bench:
    """Measures by a function, and remembers; a measurement takes `TRIAL_SECONDS`."""

    figures: Callable[[Candidate], Measurement | Failure]
    noise: float = 0.0
    seed: int = 1
    asked: list[Candidate] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def measure(self, candidate: Candidate) -> Measurement | Failure:
        self.asked.append(candidate)
        made_up = self.figures(candidate)
        if isinstance(made_up, Failure):
            return made_up
        factor = 1 + self.noise * self._random.uniform(-1, 1)
        return replace(made_up, rows_per_second=made_up.rows_per_second * factor, p99_ms=made_up.p99_ms * factor)

    def now(self) -> float:
        return TRIAL_SECONDS * len(self.asked)

    def search(self, aim: Aim, *, present: Candidate = PRESENT, budget: Budget = ENOUGH, cores: int = 2) -> Result:
        space = Space(cores, rows=1, in_flight=32, p99_ms=aim.p99_ms)
        return Search(present, space, aim, budget, self.measure, self.now).run()


THROUGHPUT = Aim(Goal.THROUGHPUT)


def by_lanes_and_batch(candidate: Candidate) -> Measurement:
    """Two instances of one thread and batches of 32 are best; delays only cost."""
    lanes = {(1, 1): 100.0, (1, 2): 130.0, (2, 1): 180.0, (2, 2): 120.0}[candidate.instances, candidate.threads or 1]
    delay = candidate.batching.delay_us if isinstance(candidate.batching, Window) else 0
    rate = lanes * (1 + 0.1 * candidate.max_batch_size.bit_length()) / (1 + delay / 1000)
    return seen(rate * (0.8 if candidate.pad_to_bucket else 1.0))


def test_the_climb_finds_the_top_along_several_axes() -> None:
    bench = Bench(by_lanes_and_batch)
    result = bench.search(THROUGHPUT)

    assert result.choice.trial.candidate == Candidate(2, 1, 32, Window())
    assert result.complete
    assert len(bench.asked) < 45


def test_only_finalists_and_those_that_the_climb_stood_on_are_repeated() -> None:
    result = Bench(by_lanes_and_batch).search(THROUGHPUT)
    stood_on = {PRESENT, Candidate(2, 1, 8, Window()), Candidate(2, 1, 16, Window()), Candidate(2, 1, 32, Window())}

    assert {len(trial.rounds) for trial in result.climbed if trial.candidate not in stood_on} == {1}
    assert [len(trial.rounds) for trial in result.finals] == [ENOUGH.rounds] * FINALISTS


def test_a_machine_that_becomes_slow_during_the_climb_hides_nothing() -> None:
    bench = Bench(by_lanes_and_batch)
    bench.figures = lambda one: replace(
        by_lanes_and_batch(one), rows_per_second=by_lanes_and_batch(one).rows_per_second / len(bench.asked)
    )

    assert bench.search(THROUGHPUT).choice.trial.candidate.instances == 2


def test_the_rounds_of_the_final_are_interleaved() -> None:
    bench = Bench(by_lanes_and_batch)
    result = bench.search(THROUGHPUT)

    order = [trial.candidate for trial in result.finals]
    assert bench.asked[-len(order) * ENOUGH.rounds :] == order * ENOUGH.rounds


def searches(figures: Callable[[Candidate], Measurement], aim: Aim, noise: float) -> list[Candidate]:
    """What forty searches choose that differ in their noise alone."""
    return [Bench(figures, noise, seed).search(aim).choice.trial.candidate for seed in range(40)]


@pytest.mark.parametrize("aim", [THROUGHPUT, Aim(Goal.LATENCY)])
def test_noise_alone_changes_nothing_but_by_rare_chance(aim: Aim) -> None:
    chosen = searches(lambda _: seen(100.0), aim, noise=0.1)

    assert chosen.count(PRESENT) >= 36


def test_a_gain_of_twice_the_noise_is_found_and_nothing_is_changed_besides() -> None:
    wider = replace(PRESENT, threads=2)
    chosen = searches(lambda one: seen(140.0 if one.threads == 2 else 100.0), THROUGHPUT, noise=0.1)

    assert chosen.count(wider) >= 36


def test_a_search_that_changes_nothing_says_so() -> None:
    result = Bench(lambda _: seen(100.0)).search(THROUGHPUT)

    assert "Keep the present configuration, 1 × 1, batch 8, no delay" in describe(result, THROUGHPUT)


def test_a_gain_below_the_least_margin_is_not_worth_a_change() -> None:
    result = Bench(lambda one: seen(100.0 + one.max_batch_size / 16)).search(THROUGHPUT)

    assert result.choice.trial.candidate == PRESENT


def test_a_slow_hour_that_hits_all_of_a_round_is_no_noise() -> None:
    better = replace(PRESENT, instances=2)
    hours = (1.0, 0.5, 0.8, 0.9)
    trials = [Trial(one, tuple(seen(rate * hour) for hour in hours)) for one, rate in ((PRESENT, 100.0), (better, 120))]

    assert choose(trials, PRESENT, THROUGHPUT).trial.candidate == better


def test_of_equals_the_one_with_the_fewest_changes_is_chosen() -> None:
    one_change, two_changes = replace(PRESENT, instances=2), replace(PRESENT, instances=2, max_batch_size=16)
    rates = {PRESENT: 100.0, two_changes: 152.0, one_change: 150.0}
    trials = [Trial(candidate, (seen(rate),)) for candidate, rate in rates.items()]
    choice = choose(trials, PRESENT, THROUGHPUT)

    assert (choice.trial.candidate, choice.best.candidate) == (one_change, two_changes)


def test_what_cannot_be_told_from_a_present_that_is_worse_than_the_best_is_not_chosen() -> None:
    simple, best = replace(PRESENT, instances=2), replace(PRESENT, instances=2, max_batch_size=16)
    rates = {PRESENT: (100.0, 100.0), simple: (160.0, 104.0), best: (150.0, 150.0)}
    trials = [Trial(candidate, tuple(map(seen, rounds))) for candidate, rounds in rates.items()]

    assert choose(trials, PRESENT, THROUGHPUT).trial.candidate == best


def test_a_candidate_that_breaks_the_p99_is_out_however_fast_it_is() -> None:
    def figures(one: Candidate) -> Measurement:
        return seen(100.0 * one.instances, p99_ms=20.0 if one.instances == 2 else 8.0)

    aim = Aim(Goal.THROUGHPUT, p99_ms=10.0)
    result = Bench(figures).search(aim)

    assert result.choice.trial.candidate == PRESENT
    assert "p99 20 > 10 ms" in describe(result, aim)


def test_a_present_configuration_that_breaks_the_limits_is_left_for_a_slower_one_that_keeps_them() -> None:
    def figures(one: Candidate) -> Measurement:
        promised = isinstance(one.batching, Objective)
        return seen(80.0 if promised else 100.0, p99_ms=7.0 if promised else 30.0)

    aim = Aim(Goal.THROUGHPUT, p99_ms=10.0)
    result = Bench(figures).search(aim)

    assert isinstance(result.choice.trial.candidate.batching, Objective)
    assert "does not keep the limits (p99 30 > 10 ms)" in describe(result, aim)


def test_where_nothing_keeps_the_limits_the_nearest_is_named() -> None:
    aim = Aim(Goal.THROUGHPUT, p99_ms=1.0)
    result = Bench(lambda one: seen(100.0, p99_ms=40.0 / one.instances)).search(aim)

    assert not result.choice.keeps_limits
    assert result.choice.trial.candidate.instances == 2
    assert "Nothing that was tried keeps the limits" in describe(result, aim)


def test_refusals_are_a_limit_too() -> None:
    def figures(one: Candidate) -> Measurement:
        return seen(100.0 * one.instances, refused=0.02 * (one.instances - 1))

    assert Bench(figures).search(THROUGHPUT).choice.trial.candidate.instances == 1
    assert Bench(figures).search(Aim(Goal.THROUGHPUT, refused_share=0.05)).choice.trial.candidate.instances == 2


@pytest.mark.parametrize(
    ("goal", "figures"),
    [
        (Goal.LATENCY, lambda one: seen(100.0, p99_ms=10.0 / one.instances)),
        (Goal.CPU, lambda one: seen(100.0, cpu=100.0 / one.instances)),
    ],
)
def test_latency_and_processor_time_are_to_be_small(goal: Goal, figures: Callable[[Candidate], Measurement]) -> None:
    assert Bench(figures).search(Aim(goal)).choice.trial.candidate.instances == 2


def test_a_candidate_that_cannot_be_served_is_told_and_passed_over() -> None:
    def figures(one: Candidate) -> Measurement | Failure:
        return Failure("too large") if one.max_batch_size > 8 else seen(100.0 * one.max_batch_size)

    result = Bench(figures).search(THROUGHPUT)

    assert result.choice.trial.candidate == PRESENT
    assert "failed: too large" in describe(result, THROUGHPUT)


def test_a_present_configuration_that_cannot_be_served_ends_the_search() -> None:
    with pytest.raises(LoadTestError, match="no such file"):
        Bench(lambda _: Failure("no such file")).search(THROUGHPUT)


def failing_in_the_final(candidates: set[Candidate]) -> Bench:
    """As `by_lanes_and_batch` until the climb is over."""
    healthy = Bench(by_lanes_and_batch)
    healthy.search(THROUGHPUT)
    climb = len(healthy.asked) - FINALISTS * ENOUGH.rounds
    bench = Bench(by_lanes_and_batch)
    bench.figures = lambda one: (
        Failure("gone") if one in candidates and len(bench.asked) > climb else by_lanes_and_batch(one)
    )
    return bench


def test_a_finalist_that_fails_in_the_final_is_not_chosen_and_not_asked_again() -> None:
    best = Candidate(2, 1, 32, Window())
    bench = failing_in_the_final({best})
    result = bench.search(THROUGHPUT)

    assert result.choice.trial.candidate not in (best, PRESENT)
    assert result.choice.trial.failure is None
    assert bench.asked[-(ENOUGH.rounds - 1) * (FINALISTS - 1) :].count(best) == 0


def test_a_final_in_which_nothing_can_be_served_any_more_is_an_error() -> None:
    tried = {trial.candidate for trial in Bench(by_lanes_and_batch).search(THROUGHPUT).climbed}

    with pytest.raises(LoadTestError, match="nothing could be served in the final any more: gone"):
        failing_in_the_final(tried).search(THROUGHPUT)


@pytest.mark.parametrize(
    "budget", [Budget(18, 1e6), Budget(200, 18 * TRIAL_SECONDS), Budget(1, 1e6), Budget(200, 0.001)]
)
def test_a_budget_ends_the_climb_and_still_leaves_a_final(budget: Budget) -> None:
    bench = Bench(by_lanes_and_batch)
    result = bench.search(THROUGHPUT, budget=budget, cores=2)

    assert not result.complete
    assert len(bench.asked) <= 18
    assert all(trial.rounds for trial in result.finals)
    assert "cut short" in describe(result, THROUGHPUT)


def test_a_server_that_cannot_be_changed_is_measured_as_it_is() -> None:
    bench = Bench(by_lanes_and_batch)
    space = Space(2, rows=1, in_flight=32, p99_ms=None, fixed=frozenset(Axis))
    result = Search(PRESENT, space, THROUGHPUT, ENOUGH, bench.measure, bench.now).run()

    assert set(bench.asked) == {PRESENT}
    assert result.choice.trial.candidate == PRESENT


def test_a_choice_with_smaller_batches_warns_of_what_it_would_refuse() -> None:
    smaller = replace(PRESENT, max_batch_size=4)
    result = Bench(lambda one: seen(100.0 if one == PRESENT else 200.0 / one.max_batch_size * 4)).search(THROUGHPUT)

    assert result.choice.trial.candidate.max_batch_size < smaller.max_batch_size
    assert "would be refused" in notes(result, 1)[0]


def test_the_report_has_every_candidate_once_and_numbers_that_json_knows() -> None:
    result = Bench(lambda one: seen(100.0, p99_ms=float("inf") if one.pad_to_bucket else 5.0)).search(THROUGHPUT)
    report = as_json(result, THROUGHPUT)
    tried = [trial["candidate"]["text"] for trial in [*report["finals"], *report["climb"]]]

    assert sorted(tried) == sorted(str(trial.candidate) for trial in result.climbed)
    padded = next(trial for trial in report["climb"] if trial["candidate"]["pad_to_bucket"])
    assert padded["rounds"][0]["p99_ms"] is None
    assert report["changed"] is False
