"""What is put into a dashboard's expressions, and how its numbers are written."""

from __future__ import annotations

import math

import pytest

from deploy.grafana.numbers import readable
from deploy.grafana.prometheus import Series, Target, choice, fill_in
from tests.promql import metric_names, without_threshold


def test_variables_and_the_rate_interval_are_filled_in() -> None:
    text = 'rate(a{model=~"$model", x="${x}"}[$__rate_interval])'
    assert fill_in(text, {"model": "m.*", "x": "y"}, "20s") == 'rate(a{model=~"m.*", x="y"}[20s])'


def test_a_variable_without_a_value_is_an_error() -> None:
    with pytest.raises(KeyError, match="version"):
        fill_in('a{version="$version"}', {"model": "m"}, "20s")


def test_values_that_are_chosen_match_themselves_only() -> None:
    assert choice(["a"]) == "a"
    assert choice(["10.0.0.1:8002", "b"]) == r"(10\\.0\\.0\\.1:8002|b)"


def test_series_are_named_by_their_labels() -> None:
    series = Series({"__name__": "a", "model": "m", "version": "1"}, [0], [1])
    assert Target("a", "{{model}} on {{instance}}").name(series) == "m on "
    assert Target("a", "__auto").name(series) == "m, 1"


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0, "short", "0"),
        (1234.5, "reqps", "1.23 k req/s"),
        (0.98765, "percentunit", "98.8 %"),
        (850, "µs", "850 µs"),
        (12_340, "µs", "12.3 ms"),
        (90, "s", "1.5 min"),
        (3 * 2**30, "bytes", "3 GiB"),
        (2048, "binBps", "2 KiB/s"),
        (700, "watt", "700 W"),
        (0.00123, "short", "0.00123"),
        (math.nan, "short", "–"),
        (math.inf, "µs", "∞"),
    ],
)
def test_numbers_have_three_digits_and_a_unit(value: float, unit: str, text: str) -> None:
    assert readable(value, unit) == text


def test_metrics_of_an_expression_are_found() -> None:
    expression = (
        'sum by (le, model) (rate(a_bucket{x="b_total{}", y=~"$y"}[$__rate_interval])) / on (job) group_left () c_total'
        " and d:e:rate5m > bool 0.5e3 * (1e6 - f) unless absent(up{z!='q'})"
    )
    assert metric_names(expression) == {"a_bucket", "c_total", "d:e:rate5m", "f", "up"}


@pytest.mark.parametrize(
    ("alert", "question"),
    [
        ('a{x!="y"} > (6 * 0.01) and b == 1', 'a{x!="y"} > bool (6 * 0.01) and b == bool 1'),
        ("absent(up == 1)", "up == bool 1"),
        ("a == 0 unless (b > 0)", "a == bool 0 unless (b > 0)"),
    ],
)
def test_an_alert_is_asked_without_its_threshold(alert: str, question: str) -> None:
    assert without_threshold(alert) == question
