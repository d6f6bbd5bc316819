"""The table of what batches cost."""

from __future__ import annotations

from math import inf

import pytest

from server.scheduling.costs import WEIGHT, CostTable


def test_a_size_that_has_not_run_costs_no_one_knows_what() -> None:
    costs = CostTable()
    costs.observe(1, 0.5)
    assert costs.predict(2) == inf


def test_the_first_measurement_is_taken_as_it_is() -> None:
    costs = CostTable()
    costs.observe(4, 0.25)
    assert costs.predict(4) == 0.25


def test_later_measurements_move_the_prediction_a_part_of_the_way() -> None:
    costs = CostTable()
    costs.observe(4, 1.0)
    costs.observe(4, 2.0)
    assert costs.predict(4) == 1.0 + WEIGHT


def test_a_prediction_follows_a_lasting_change() -> None:
    costs = CostTable()
    costs.observe(4, 1.0)
    for _ in range(100):
        costs.observe(4, 3.0)
    assert costs.predict(4) == pytest.approx(3.0, rel=1e-3)


def test_one_outlier_moves_it_by_an_eighth_only() -> None:
    costs = CostTable()
    for _ in range(10):
        costs.observe(4, 1.0)
    costs.observe(4, 9.0)
    assert costs.predict(4) == pytest.approx(2.0)
