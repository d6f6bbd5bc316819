"""`--metrics-config`, spelled as Triton spells it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

SWITCHES = ("counter_latencies", "histogram_latencies", "summary_latencies")
QUANTILES = "summary_quantiles"
DEFAULT_QUANTILES = (0.5, 0.9, 0.95, 0.99, 0.999)


@dataclass(frozen=True, slots=True)
class MetricsConfig:
    """Which families of latencies the page has."""

    counter_latencies: bool = True
    histogram_latencies: bool = True
    summary_latencies: bool = False
    summary_quantiles: tuple[float, ...] = DEFAULT_QUANTILES


def parse(settings: Sequence[str]) -> MetricsConfig:
    """`KEY=VALUE` each; of one key, the last counts. Raises `ValueError`."""
    values: dict[str, bool] = {}
    quantiles: tuple[float, ...] = DEFAULT_QUANTILES
    for setting in settings:
        key, _, value = setting.partition("=")
        if key == QUANTILES:
            quantiles = _quantiles(value)
        elif key in SWITCHES and value in ("true", "false"):
            values[key] = value == "true"
        else:
            known = ", ".join(f"{name}=true|false" for name in SWITCHES)
            raise ValueError(f"--metrics-config knows {known} and {QUANTILES}=QUANTILE[:ERROR],..., not '{setting}'")
    return MetricsConfig(**values, summary_quantiles=quantiles)


def _quantiles(text: str) -> tuple[float, ...]:
    """`QUANTILE:ERROR,…`, as Triton takes them. Ours are within one percent of the value, whatever error is allowed."""
    quantiles: list[float] = []
    for part in text.split(","):
        quantile, _, error = part.partition(":")
        try:
            numbers = [float(number) for number in (quantile, error or "0")]
        except ValueError:
            numbers = [-1.0]
        if not all(0 <= number <= 1 for number in numbers):
            raise ValueError(
                f"{QUANTILES} takes numbers from 0 to 1, QUANTILE[:ERROR] with commas between, not '{part}'"
            )
        quantiles.append(numbers[0])
    return tuple(sorted(set(quantiles)))
