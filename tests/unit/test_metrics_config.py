"""`--metrics-config`, as Triton spells it."""

from __future__ import annotations

import re

import pytest

from server.metrics_config import MetricsConfig, parse


def test_by_default_there_are_counters_and_histograms_and_no_summaries() -> None:
    assert parse([]) == MetricsConfig(True, True, False, (0.5, 0.9, 0.95, 0.99, 0.999))


@pytest.mark.parametrize("name", ["counter_latencies", "histogram_latencies", "summary_latencies"])
def test_each_kind_is_turned_on_and_off(name: str) -> None:
    assert getattr(parse([f"{name}=true"]), name) is True
    assert getattr(parse([f"{name}=true", f"{name}=false"]), name) is False


@pytest.mark.parametrize(
    ("text", "quantiles"),
    [("0.5:0.05,0.9:0.01", (0.5, 0.9)), ("0.99", (0.99,)), ("1,0.2:0.1,1", (0.2, 1.0))],
)
def test_quantiles_are_taken_with_or_without_the_error_that_is_allowed(text: str, quantiles: tuple[float, ...]) -> None:
    assert parse([f"summary_quantiles={text}"]).summary_quantiles == quantiles


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("summary_latencies", "not 'summary_latencies'"),
        ("summary_latencies=yes", "knows counter_latencies=true|false"),
        ("pinned=true", "not 'pinned=true'"),
        ("summary_quantiles=", "not ''"),
        ("summary_quantiles=0.5,x", "not 'x'"),
        ("summary_quantiles=1.5:0.1", "not '1.5:0.1'"),
        ("summary_quantiles=0.5:nan", "not '0.5:nan'"),
    ],
)
def test_what_is_wrong_is_named(setting: str, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        parse([setting])
