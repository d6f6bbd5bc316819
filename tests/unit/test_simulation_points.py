"""Whole simulations: nothing is lost, equal seeds are equal, stretches fit, reports say what happened."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from loadtest.errors import LoadTestError
from loadtest.simulation.command import add_command, simulate
from loadtest.simulation.costs import parse_costs
from loadtest.simulation.points import Point, Scenario, run_points
from loadtest.simulation.policies import MIN_QUEUED_ROWS, QUEUED_BATCHES, make_policy, swept_policies
from loadtest.simulation.report import notes
from loadtest.simulation.tally import Tally
from server.models import queueing

PAGE = {
    "model_name": "m",
    "max_batch_size": 16,
    "buckets": [{"rows": n, "p50_us": 200 + 50 * n, "p99_us": 260 + 65 * n, "runs": 128} for n in (1, 2, 4, 8, 16)],
}
COSTS = parse_costs(PAGE, "page")
SCENARIO = Scenario(COSTS, "poisson", objective=5e-3, seconds=3.0)
POLICIES = ("window:0", "window:2", "window:1,timeout_ms=4", "window:0,max_queued_rows=16,preferred_rows=4", "slo")


def point(scenario: Scenario, policy: str, load: float) -> Point:
    [result] = run_points(scenario, [policy], [load * scenario.capacity])
    return result


@pytest.mark.parametrize("arrivals", ["poisson", "bursty", "diurnal"])
@pytest.mark.parametrize("load", [0.4, 1.5])
@pytest.mark.parametrize("policy", POLICIES)
def test_every_request_is_somewhere(policy: str, load: float, arrivals: str) -> None:
    tally = point(replace(SCENARIO, arrivals=arrivals, lanes=2, rows=2, seconds=1.0), policy, load).tally
    assert tally.arrived > 5_000
    assert tally.arrived == tally.answered + tally.refused.total() + tally.expired + tally.present_at_end
    assert tally.answered == tally.latencies.sum() and tally.answered * 2 == tally.batches @ np.arange(17)


def test_equal_seeds_give_equal_results_and_others_do_not() -> None:
    def figures(seed: int) -> tuple[float, ...]:
        tally = point(replace(SCENARIO, seed=seed), "window:1", 0.7).tally
        return tally.arrived, tally.good, tally.latency_sum, tally.busy

    assert figures(1) == figures(1)
    assert figures(1) != figures(2)


def test_stretches_count_what_one_run_counts() -> None:
    whole = point(replace(SCENARIO, seconds=9.0), "window:1", 0.7)
    cut = point(replace(SCENARIO, seconds=9.0, stretches=3, overlap=1.0), "window:1", 0.7)
    assert cut.tally.seconds == pytest.approx(9.0)
    assert cut.tally.arrived == whole.tally.arrived
    assert cut.goodput == pytest.approx(whole.goodput, rel=0.002)
    assert cut.tally.latency(0.99) == pytest.approx(whole.tally.latency(0.99), rel=0.03)
    assert cut.gap < 20


def test_stretches_that_do_not_fit_are_told() -> None:
    """A queue of unlimited length in overload: what waits depends on the whole past."""
    scenario = replace(SCENARIO, stretches=3, overlap=0.1)
    result = point(scenario, "window:0,max_queued_rows=1000000000", 2.0)
    assert result.gap > 10_000
    assert "THEY DO NOT FIT" in notes([result], 1.0, 1, scenario)
    assert "THEY DO NOT FIT" not in notes([replace(result, gap=1)], 1.0, 1, scenario)


def test_an_idle_server_answers_as_fast_as_its_model() -> None:
    result = point(SCENARIO, "window:0", 0.005)
    assert result.tally.latency(0.5) == pytest.approx(250e-6, rel=0.02)
    assert result.tally.mean_rows == pytest.approx(1.0, abs=0.1)
    assert result.goodput == pytest.approx(result.rate, rel=0.01)


def test_percentiles_are_within_a_thousandth() -> None:
    tally = Tally(0.05, 1)
    ended = np.linspace(1e-4, 1e-1, 1000).tolist()
    tally.record([0.0] * 1000, ended, [1] * 1000, [1] * 1000, [0.0] * 1000)
    assert (tally.answered, tally.good) == (1000, 500)
    for share in (0.1, 0.5, 0.99):
        assert tally.latency(share) == pytest.approx(ended[round(share * 1000) - 1], rel=1e-3)


def test_the_default_bound_of_a_queue_is_the_servers() -> None:
    assert QUEUED_BATCHES == queueing.QUEUED_BATCHES
    assert MIN_QUEUED_ROWS == queueing.MIN_QUEUED_REQUESTS


def test_a_trace_says_the_rows(tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text("".join(f"{n / 100},{1 + n % 4}\n" for n in range(100)))
    scenario = replace(SCENARIO, arrivals=f"trace:{trace}", seconds=None)
    [result] = run_points(scenario, ["window:0"], [None])
    assert scenario.capacity == COSTS.capacity(1) / 2.5
    assert result.tally.arrived == 100
    assert result.tally.batches.tolist()[:6] == pytest.approx([0, 25, 25, 25, 25, 0], abs=1)
    trace.write_text("0\n1,17\n")
    with pytest.raises(LoadTestError, match="17 rows do not fit into batches of 16"):
        list(run_points(scenario, ["window:0"], [None]))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("best", "policies are window"),
        ("window:delay=2", "unknown setting 'delay'; the settings are: delay_ms"),
        ("window:2ms", "delay_ms must be a number, not '2ms'"),
        ("window:max_queued_rows=3", "must hold at least one full batch"),
        ("window:preferred_rows=17", "preferred sizes must lie in 1..16"),
        ("slo:0", "the objective must be a positive number"),
        ("slo:delay_ms=2", "unknown setting 'delay_ms'; the settings are: objective_ms, max_queued_rows"),
    ],
)
def test_a_policy_that_cannot_be_is_refused_by_name(spec: str, message: str) -> None:
    with pytest.raises(LoadTestError, match=message):
        make_policy(spec, COSTS, 1, 5e-3, np.random.default_rng(1))


def test_a_sweep_goes_from_no_delay_to_nearly_the_objective() -> None:
    swept = swept_policies(0.030)
    assert swept[0] == "window:0"
    assert "window:27" in swept and "window:0,timeout_ms=15" in swept and swept[-1] == "slo"
    for spec in swept:
        make_policy(spec, COSTS, 1, 5e-3, np.random.default_rng(1))


def test_the_command_writes_a_table_figures_and_a_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "costs.json").write_text(json.dumps(PAGE))
    parser = argparse.ArgumentParser()
    add_command(parser.add_subparsers())
    for loads in (["--load", "0.5", "--load", "1.5"], ["--rate", "8000"]):
        options = ["--costs", str(tmp_path / "costs.json"), "--policy", "window:1", "--policy", "window:0"]
        simulate(parser.parse_args(["simulate", *options, *loads, "--seconds", "1", "--out", str(tmp_path / "out")]))
        printed = capsys.readouterr().out
        assert "capacity 16,000/s, objective 1.25 ms, arrivals poisson" in printed
        assert "goodput/s" in printed and "µs per request" in printed
        report = json.loads((tmp_path / "out/results.json").read_text())
        assert [entry["policy"] for entry in report["points"]] == ["window:1", "window:0"] * (len(loads) // 2)
        for entry in report["points"]:
            served = entry["answered"] + sum(entry["not_served"].values()) + entry["present_at_end"]
            assert served == entry["arrived"]
        assert (tmp_path / "out/simulation.png").read_bytes().startswith(b"\x89PNG")
