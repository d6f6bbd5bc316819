"""What Locust's users are told, and what is made of what they saw: without Locust, which would patch this process."""

from __future__ import annotations

import argparse
import random
import re
from collections import Counter
from math import inf
from pathlib import Path
from typing import Any

import pytest

from loadtest.errors import LoadTestError
from loadtest.payload import Workload
from loadtest.swarm.flags import add_flags, as_arguments, plan_of
from loadtest.swarm.latencies import HIGHEST_US, Kind, Tally, summary
from loadtest.swarm.levels import Book, Level, ramp_check
from loadtest.swarm.mix import Mix, Share, parse_models
from loadtest.swarm.plans import Plan, Stage, longest_seconds, next_ramp_users, soak, spike, stage_at, steps
from loadtest.swarm.reports import ALL, add_text, as_csv, forget, read, write
from loadtest.verdict import Limits

LENET: Kind = ("grpc", "ModelInfer lenet5")
REST: Kind = ("POST", "infer lenet5")


def tally(*latencies_ms: float, failures: int = 0) -> Tally:
    made = Tally()
    for index, latency_ms in enumerate(latencies_ms):
        made.record(latency_ms, failed=index < failures)
    return made


def test_models_have_weights_of_1_unless_they_say_more() -> None:
    assert parse_models("lenet5=3, letters26") == (Share("lenet5", 3), Share("letters26", 1))
    assert parse_models("a=0.5") == (Share("a", 0.5),)


@pytest.mark.parametrize("text", ["", "a,", "=2", "a=", "a=x", "a=0", "a=-1", "a=inf", "a=nan", "a,b,a"])
def test_models_that_make_no_sense_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"'{text}'")):
        parse_models(text)


def test_models_are_asked_by_their_weights_and_each_goes_through_its_requests_in_turn() -> None:
    often, seldom = (Workload(name, (b"1", b"2", b"3"), 1, frozenset()) for name in ("often", "seldom"))
    mix = Mix([often, seldom], [3, 1], seed=1)

    asked = [mix.next() for _ in range(4000)]

    assert Counter(workload.model for workload, _ in asked)["often"] == pytest.approx(3000, rel=0.05)
    bodies = [body for workload, body in asked if workload is seldom]
    assert bodies[:7] == [b"1", b"2", b"3", b"1", b"2", b"3", b"1"]


def test_percentiles_are_within_a_thousandth_of_what_was_seen() -> None:
    seen = sorted(random.Random(1).lognormvariate(0.0, 1.5) for _ in range(10_000))
    made = tally(*seen)

    for percent in (50, 90, 99, 99.9):
        exact = seen[round(percent * len(seen) / 100) - 1]
        assert made.percentile_ms(percent) == pytest.approx(exact, rel=1e-3, abs=1e-3)
    assert summary(made)["requests"] == 10_000
    assert summary(made)["mean_ms"] == pytest.approx(sum(seen) / len(seen), rel=1e-3)
    assert tally().percentile_ms(99) == tally(0.1, failures=1).percentile_ms(99) == inf
    assert summary(tally(0.1, failures=1))["p99_ms"] is None
    assert tally(1e9).percentile_ms(50) == pytest.approx(HIGHEST_US / 1e3, rel=1e-3)


def test_what_workers_send_adds_up_to_what_one_process_would_have_seen() -> None:
    one, other = tally(0.3, 0.4, failures=1), tally(0.5, 1000.0)
    together = Tally()
    for part in (one, other, tally()):
        together.add(Tally.from_message(part.as_message()))

    whole = tally(0.3, 0.4, 0.5, 1000.0, failures=1)
    assert together.latencies_ms() == whole.latencies_ms()
    assert (together.requests, together.failures, together.error_rate) == (4, 1, 0.25)


def test_a_level_counts_what_began_after_all_its_users_were_there() -> None:
    book = Book()
    book.begin_level(8, now=10.0)
    book.absorb("one", {LENET: tally(1.0)}, 3.0, now=11.0)
    book.users_are_there(12.0)
    book.absorb("one", {LENET: tally(2.0, failures=1)}, 3.0, now=14.0)
    book.absorb("one", {LENET: tally(3.0, 4.0)}, 3.0, now=17.0)
    book.absorb("other", {LENET: tally(5.0, failures=1)}, 1.0, now=13.0)
    book.end_level()

    (level,) = book.levels
    assert (level.users, level.requests, level.failures) == (8, 3, 1)
    assert (level.seconds, level.rate) == (2.0, 1.5)
    assert (level.p50_ms, level.p99_ms) == pytest.approx((3.0, 4.0), rel=1e-3)
    assert book.totals[LENET].requests == 5


def test_a_level_of_as_many_users_as_before_opens_at_once() -> None:
    book = Book()
    book.begin_level(8, now=0.0)
    book.begin_level(8, now=1.0)
    assert book.window is not None and book.window.opened_at == inf
    book.users_are_there(2.0)
    book.begin_level(8, now=5.0)
    assert book.window.opened_at == 5.0
    book.begin_level(9, now=6.0)
    assert book.window.opened_at == inf
    assert [level.users for level in book.levels] == [8, 8, 8]


def test_a_test_that_begins_forgets_the_one_before_and_keeps_its_own_first_level() -> None:
    book = Book()
    book.begin_level(1, now=0.0)
    book.absorb("one", {LENET: tally(1.0)}, 1.0, now=1.0)
    book.begin_level(2, now=2.0)
    book.clear()

    assert (book.totals, book.levels) == ({}, [])
    assert book.window is not None and book.window.users == 2


def plan(shape: str, **changes: Any) -> Plan:
    parser = argparse.ArgumentParser()
    add_flags(parser)
    arguments = parser.parse_args([f"--{name.replace('_', '-')}={value}" for name, value in changes.items()])
    return plan_of(arguments, shape, users=40, spawn_rate=10.0, seconds=60.0)


def test_shapes_are_stages_that_fill_their_time() -> None:
    assert steps(plan("steps", steps=3)) == [Stage(users, 10.0, 20.0) for users in (13, 26, 40)]
    few = Stage(10, 10.0, 20.0)
    assert spike(plan("spike", spike_factor=4, spike_seconds=20)) == [few, Stage(40, 10.0, 20.0), few]
    stages = soak(plan("soak", soak_ramp_seconds=20, soak_windows=4))
    assert stages == [Stage(40, 2.0, 30.0)] + [Stage(40, 2.0, 10.0)] * 3
    assert [stage_at(stages, seconds) for seconds in (0, 29.9, 30, 59.9, 60)] == [0, 0, 1, 3, None]


def test_a_ramp_goes_on_until_a_level_breaks_or_all_users_are_there() -> None:
    ramp = plan("ramp-to-failure", ramp_users=16)
    assert next_ramp_users(ramp, 16, kept=True) == 32
    assert next_ramp_users(ramp, 32, kept=True) == 40
    assert next_ramp_users(ramp, 40, kept=True) is None
    assert next_ramp_users(ramp, 16, kept=False) is None
    assert longest_seconds(ramp) == 60.0


@pytest.mark.parametrize(
    ("shape", "flag", "value"),
    [
        ("steps", "steps", 0),
        ("steps", "steps", 41),
        ("spike", "spike_seconds", 60),
        ("spike", "spike_factor", 1),
        ("spike", "spike_factor", "nan"),
        ("soak", "soak_ramp_seconds", 60),
        ("soak", "soak_windows", 0),
        ("ramp-to-failure", "ramp_users", 0),
        ("ramp-to-failure", "ramp_seconds", -1),
    ],
)
def test_a_flag_of_a_shape_that_makes_no_sense_is_named(shape: str, flag: str, value: Any) -> None:
    with pytest.raises(LoadTestError, match=f"--{flag.replace('_', '-')} "):
        plan(shape, **{flag: value})


def test_a_ramp_reports_the_last_level_that_kept_the_limits() -> None:
    levels = [Level(users, 10.0, 1000, failures, 1.0, p99_ms) for users, failures, p99_ms in
              ((8, 0, 2.0), (16, 1, 9.0), (24, 0, 10.1), (32, 0, 3.0))]  # fmt: skip
    limits = Limits(p99_ms=10.0, error_rate=0.001)

    found = ramp_check(levels, limits)
    assert found.passed
    assert found.text.startswith("16 users (100/s, p50 1 ms, p99 9 ms, 1 of 1000 failed) kept the limits; 24 users")
    assert ramp_check(levels[:2], limits).text.endswith("none broke them")
    assert not ramp_check(levels[2:], limits).passed
    assert not ramp_check([], limits).passed
    assert not Level(8, 1.0, 5, 5, inf, inf).keeps(Limits(inf, 1.0))


def test_reports_tell_another_process_what_was_measured(tmp_path: Path) -> None:
    prefix = tmp_path / "new" / "locust"
    book = Book()
    book.begin_level(1, now=0.0)
    book.users_are_there(0.0)
    book.absorb("one", {LENET: tally(0.25, 0.5, failures=1), REST: tally(2.0)}, 1.0, now=1.0)
    book.end_level()
    with pytest.raises(LoadTestError, match=r"left no .*locust_latencies\.json"):
        read(prefix)
    write(prefix, book, busy=True)

    measured = read(prefix)
    assert {kind: one.latencies_ms() for kind, one in measured.totals.items()} == {
        kind: one.latencies_ms() for kind, one in book.totals.items()
    }
    assert measured.totals[LENET].failures == 1
    assert (measured.levels, measured.busy) == (tuple(book.levels), True)
    lines = (prefix.parent / "locust_percentiles.csv").read_text().splitlines()
    assert [line.split(",")[:4] for line in lines[1:]] == [
        ["POST", "infer lenet5", "1", "0"],
        ["grpc", "ModelInfer lenet5", "2", "1"],
        [*ALL, "3", "1"],
    ]
    distribution = (prefix.parent / "locust_ModelInfer_lenet5.hgrm").read_text()
    assert re.search(r"^ +0\.500 1\.0+ +1$", distribution, re.MULTILINE)
    forget(prefix)
    assert list(prefix.parent.iterdir()) == []
    assert as_csv({}) == ""


def test_the_verdict_stands_under_the_report_as_text(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    page.write_text("<html><body>charts</body></html>")
    add_text(page, "p99 < 5 ms")
    assert "p99 &lt; 5 ms" in page.read_text()
    assert page.read_text().endswith("</body></html>")
    page.write_text("")
    with pytest.raises(LoadTestError, match="not the page"):
        add_text(page, "p99")


def test_flags_reach_the_other_command_line_as_they_were_meant() -> None:
    flags = ["--model=a=2,b", "--load-shape=steps", "--steps=3", "--p99-ms=1.5", "--shape=x:1,2", "--shape=y:3"]
    ours, theirs = argparse.ArgumentParser(), argparse.ArgumentParser()
    add_flags(ours, p99_ms=250.0)
    add_flags(theirs)

    parsed = ours.parse_args(flags)

    assert vars(theirs.parse_args(as_arguments(parsed))) == vars(parsed)
    assert theirs.parse_args(as_arguments(ours.parse_args([]))).p99_ms == 250.0
    assert theirs.parse_args([]).p99_ms == inf
