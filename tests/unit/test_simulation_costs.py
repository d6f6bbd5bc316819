"""Cost tables from files, and the truth that a simulation makes of them."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loadtest.errors import LoadTestError
from loadtest.simulation.costs import normals, parse_costs, read_costs

PAGE: dict[str, Any] = {
    "model_name": "m",
    "max_batch_size": 4,
    "objective_ms": 5.0,
    "instances": 2,
    "buckets": [
        {"rows": 1, "p50_us": 100.0, "p99_us": 150.0, "runs": 128},
        {"rows": 2, "p50_us": 120.0, "p99_us": 200.0, "runs": 128},
        {"rows": 4, "p50_us": 160.0, "p99_us": 160.0, "runs": 3},
    ],
}


def test_a_file_is_read_as_the_servers_page(tmp_path: Path) -> None:
    file = tmp_path / "costs.json"
    file.write_text(json.dumps(PAGE))
    costs = read_costs(str(file))
    assert (costs.model, costs.max_rows, costs.instances, costs.objective_seconds) == ("m", 4, 2, 5e-3)
    assert [line.rows for line in costs.buckets] == [1, 2, 4]
    assert costs.capacity(lanes=2) == pytest.approx(2 * 4 / 160e-6)


def test_the_policys_table_predicts_what_was_measured() -> None:
    table = parse_costs(PAGE, "page").table(np.random.default_rng(1))
    assert table.calibrated
    assert [table.typical(rows) for rows in (1, 2, 3, 4)] == pytest.approx([100e-6, 120e-6, 140e-6, 160e-6])
    assert [table.worst(rows) for rows in (1, 2, 4)] == pytest.approx([150e-6, 200e-6, 160e-6])


def test_what_the_policys_table_forgets_first_is_no_particular_run() -> None:
    table = parse_costs(PAGE, "page").table(np.random.default_rng(1))
    for _ in range(32):
        table.observe(1, 100e-6)
    assert table.typical(1) == pytest.approx(100e-6, rel=0.01)


def test_true_times_have_the_tables_median_and_99th_percentile() -> None:
    typical, spread = parse_costs(PAGE, "page").truth()
    draws = np.array(list(islice(normals(np.random.default_rng(2)), 200_000)))
    for rows, p50, p99 in ((1, 100e-6, 150e-6), (2, 120e-6, 200e-6), (3, 140e-6, 180e-6), (4, 160e-6, 160e-6)):
        seconds = typical[rows] * np.exp(spread[rows] * draws)
        assert np.quantile(seconds, [0.5, 0.99]) == pytest.approx([p50, p99], rel=0.01)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"buckets": None}, "an object with a list 'buckets'"),
        ({"buckets": []}, r"buckets must ascend from 1 row to max_batch_size, which is 4, not \[\]"),
        ({"buckets": PAGE["buckets"][:2]}, r"has not been measured yet"),
        ({"buckets": [3]}, r"buckets\[0\]: must be an object"),
        ({"buckets": [{"rows": 1, "p50_us": "x", "p99_us": 1}]}, r'buckets\[0\]: p50_us must be a number, not "x"'),
        ({"buckets": [{"rows": 1, "p50_us": None, "p99_us": 1}]}, r"buckets\[0\]: p50_us must be a number, not null"),
        ({"buckets": [{"rows": 1, "p50_us": 0, "p99_us": 1}]}, r"buckets\[0\]: p50_us must be positive, not 0"),
        ({"buckets": [{"rows": 1, "p50_us": 2, "p99_us": 1}]}, r"buckets\[0\]: .*p99_us not below p50_us"),
        ({"max_batch_size": True}, "max_batch_size must be a number, not true"),
        ({"objective_ms": -1}, "objective_ms must be positive, not -1"),
        ({"instances": 0}, "instances must be at least 1, not 0"),
    ],
)
def test_a_bad_table_is_refused_by_field(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(LoadTestError, match=f"page: {message}" if "buckets\\[" in message else message):
        parse_costs(PAGE | changes, "page")


def test_a_file_that_is_missing_or_no_json_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(LoadTestError, match=r"none\.json: the cost table cannot be read"):
        read_costs(str(tmp_path / "none.json"))
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(LoadTestError, match=r"bad\.json: the cost table is not JSON"):
        read_costs(str(tmp_path / "bad.json"))
