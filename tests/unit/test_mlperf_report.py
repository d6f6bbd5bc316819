"""Runs of scenarios, and whether they count."""

from dataclasses import replace

import numpy as np
import pytest

from loadtest.mlperf.report import Bounds, Report, judge_offline, judge_server, judge_stream
from loadtest.mlperf.search import search, within_capacity
from loadtest.mlperf.sweep import write_sweep
from loadtest.open_loop import Outcome

BOUNDS = Bounds(p99_ms=10.0, late_ms=1.0)


def run(count: int = 1_000, latency_ms: float = 2.0, late_ms: float = 0.0, cpu_share: float = 0.3) -> Outcome:
    """A request every millisecond, all answered alike."""
    due = np.arange(count) / 1e3
    return Outcome(
        due=due,
        sent=due + late_ms / 1e3,
        ended=due + latency_ms / 1e3,
        answered=np.ones(count, np.bool_),
        held_back=np.zeros(count, np.bool_),
        seconds=count / 1e3,
        patience=1.0,
        cpu_shares=(0.1, cpu_share),
        cpu_seconds=count * 5e-5,
    )


def slow(outcome: Outcome, count: int) -> Outcome:
    """The first `count` take 9 ms longer."""
    ended = outcome.ended.copy()
    ended[:count] += 0.009
    return replace(outcome, ended=ended)


def refused(outcome: Outcome, count: int) -> Outcome:
    """The first `count` are refused, at once."""
    answered = outcome.answered.copy()
    answered[:count] = False
    return replace(outcome, answered=answered)


def test_a_server_run_within_its_bounds_is_valid() -> None:
    report = judge_server(run(), 1_000.0, BOUNDS)

    assert report.valid and report.reason == ""
    said = report.as_json()
    assert (said["rate"], said["p50_ms"], said["p99_ms"]) == (1_000.0, 2.0, 2.0)
    assert said["achieved"] == pytest.approx(1_000, rel=0.01)
    assert report.generator_cpu_us == pytest.approx(50)


def test_more_than_one_in_a_hundred_beyond_the_bound_is_not() -> None:
    report = judge_server(slow(run(), 11), 1_000.0, BOUNDS)

    assert report.reason == "11 of 1000 queries took longer than 10 ms"
    assert not report.sustained


def test_fewer_are_valid_once_there_are_enough_queries() -> None:
    """Ten beyond the bound need 2,010 queries."""
    few, enough = (judge_server(slow(run(count), 10), 1_000.0, BOUNDS) for count in (2_009, 2_010))

    assert few.reason == "too few queries: 2009, of which 2010 are needed"
    assert (few.valid, few.sustained, enough.valid) == (False, True, True)


def test_what_is_refused_at_once_was_not_fast() -> None:
    report = judge_server(refused(run(), 11), 1_000.0, BOUNDS)

    assert report.reason == "11 of 1000 queries took longer than 10 ms, 11 of them refused and 0 given up"
    assert report.p99_ms == pytest.approx((1.0 + 1.0 - 0.01) * 1e3)


def test_a_generator_that_is_late_says_so_and_whether_it_or_the_machine_is_short_of_cpu() -> None:
    busy = judge_server(run(late_ms=1.5, cpu_share=0.97), 1_000.0, BOUNDS)
    starved = judge_server(run(late_ms=1.5), 1_000.0, BOUNDS)

    assert busy.reason.startswith("the generator is the limit, not the server: it sent p99 1.50 ms late")
    assert "97% of a core" in busy.reason and "--processes" in busy.reason
    assert starved.reason.startswith("the generator was kept waiting") and "30% of a core" in starved.reason
    assert busy.generator_limited and not judge_server(slow(run(late_ms=1.5), 11), 1_000.0, BOUNDS).generator_limited


def test_capped_concurrency_is_not_an_open_loop() -> None:
    held_back = np.zeros(1_000, np.bool_)
    held_back[5] = True
    report = judge_server(replace(run(), held_back=held_back), 1_000.0, BOUNDS)

    assert report.reason.startswith("1 requests were held back") and not report.sustained


def test_a_query_of_several_samples_takes_as_long_as_its_last() -> None:
    outcome = run(800 * 8)
    ended = outcome.ended.copy()
    ended[7::8] += 0.003
    report = judge_stream("multi-stream", replace(outcome, ended=ended), 8, 0.99)

    assert report.valid and (report.queries, report.queries_needed) == (800, 662)
    assert (report.p50_ms, report.estimate_ms) == pytest.approx((5.0, 5.0))


def test_a_stream_with_a_failure_or_too_few_queries_is_not_valid() -> None:
    assert judge_stream("single-stream", run(63), 1, 0.9).reason == "too few queries: 63, of which 64 are needed"
    failed = judge_stream("single-stream", refused(run(64), 1), 1, 0.9)
    assert failed.reason == "1 of 64 samples were not answered, 1 of them refused"
    assert judge_stream("single-stream", run(64), 1, 0.9).valid


def test_offline_counts_samples_until_the_last_and_all_of_them() -> None:
    outcome = replace(run(1_000), seconds=0.0)

    assert judge_offline(outcome).achieved == pytest.approx(1_000 / 1.001)
    assert judge_offline(outcome).valid
    failed = judge_offline(refused(outcome, 2))
    assert failed.reason == "2 of 1000 samples were not answered, 2 of them refused"
    assert (failed.queries, failed.refused) == (1_000, 2)


def test_an_offline_run_without_an_answer_has_waited_for_all_of_them() -> None:
    report = judge_offline(refused(replace(run(10), seconds=0.0), 10))

    assert (report.achieved, report.p50_ms, report.p99_ms) == (0.0, 1_000.0, 1_000.0)


def test_a_server_that_refuses_is_asked_for_less_at_once_until_it_takes_all() -> None:
    asked = []

    def attempt(in_flight: int) -> Report:
        asked.append(in_flight)
        return judge_offline(refused(run(10), 0 if in_flight <= 100 else 9))

    assert within_capacity(attempt, 1_000).refused == 0
    assert asked == [1_000, 250, 62]


def test_a_server_that_answers_nothing_is_asked_for_less_at_once_but_not_for_ever() -> None:
    asked = []

    def attempt(in_flight: int) -> Report:
        asked.append(in_flight)
        return judge_offline(refused(run(10), 10))

    assert within_capacity(attempt, 100).achieved == 0
    assert asked == [100, 25, 16]


class Server:
    """Keeps its promise up to a rate, and to less in longer runs; the generator gives up above another."""

    def __init__(self, capacity: float, confirmed: float, generator: float = float("inf")) -> None:
        self.tried: list[float] = []
        self._capacity, self._confirmed, self._generator = capacity, confirmed, generator

    def attempt(self, rate: float) -> Report:
        self.tried.append(rate)
        return judge_server(self._outcome(rate, self._capacity), rate, BOUNDS)

    def confirm(self, rate: float) -> Report:
        return judge_server(self._outcome(rate, self._confirmed), rate, BOUNDS)

    def _outcome(self, rate: float, capacity: float) -> Outcome:
        return run(latency_ms=2.0 if rate <= capacity else 50.0, late_ms=5.0 if rate > self._generator else 0.0)


def test_the_highest_valid_rate_is_found_by_halves_and_confirmed() -> None:
    server = Server(capacity=700.0, confirmed=700.0)
    found = search(server.attempt, server.confirm, ceiling=1_000.0, tries=12, confirmations=3)

    assert server.tried[:3] == [1_000.0, 500.0, 750.0]
    assert 700 / 1.03 <= found.final.rate <= 700 and found.final.valid
    assert not found.generator_limited


def test_a_rate_that_is_not_confirmed_is_lowered() -> None:
    server = Server(capacity=1_000.0, confirmed=920.0)
    found = search(server.attempt, server.confirm, ceiling=1_000.0, tries=1, confirmations=3)

    assert found.final.rate == pytest.approx(1_000 * 0.95**2) and found.final.valid


def test_a_search_that_finds_nothing_shows_its_last_try() -> None:
    server = Server(capacity=0.0, confirmed=0.0)
    found = search(server.attempt, server.confirm, ceiling=1_000.0, tries=4, confirmations=3)

    assert found.final.rate == 125.0 and not found.final.valid


def test_a_search_that_the_generator_ended_says_so() -> None:
    server = Server(capacity=1_000.0, confirmed=1_000.0, generator=600.0)

    assert search(server.attempt, server.confirm, ceiling=1_000.0, tries=9, confirmations=1).generator_limited


def test_a_sweep_leaves_a_table_and_plots(tmp_path) -> None:
    reports = [judge_server(run(), 500.0, BOUNDS), judge_server(slow(run(), 500), 1_000.0, BOUNDS)]
    files = write_sweep(reports, BOUNDS, "a title", tmp_path)

    assert [file.name for file in files] == ["sweep.csv", "sweep.png", "sweep.svg"]
    rows = files[0].read_text().splitlines()
    assert rows[0].startswith("scenario,rate,achieved,p50_ms") and rows[2].startswith("server,1000.0,")
    assert files[1].read_bytes().startswith(b"\x89PNG") and "<svg" in files[2].read_text()
