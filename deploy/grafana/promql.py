"""The words that the dashboards' expressions are made of. Pure text.

Variables of Grafana (`$model`) choose what is shown; `$__rate_interval` is at least four scrapes long, so that a rate
always has two samples to go by.
"""

from __future__ import annotations

SERVER = 'job=~"$job", instance=~"$instance"'
"""The servers that are chosen: any of Prometheus's targets."""
MODEL = f'{SERVER}, model=~"$model"'
VERSION = f'{MODEL}, version=~"$version"'

SUCCESS = "nv_inference_request_success"
FAILED = "convoy_request_failed_total"
REQUEST_US = "nv_inference_request_duration_histogram_us"
BUSY = "convoy_instance_busy_seconds_total"


def rate(name: str, where: str = VERSION) -> str:
    """How fast a counter grows, per second."""
    return f"rate({name}{{{where}}}[$__rate_interval])"


def total(expression: str, by: str = "") -> str:
    """The sum of all series, or one sum for each value of the labels `by`."""
    return _aggregate("sum", expression, by)


def highest(expression: str, by: str = "") -> str:
    """The largest of all series, or of each value of the labels `by`."""
    return _aggregate("max", expression, by)


def mean(expression: str, by: str = "") -> str:
    """The mean of all series, or of each value of the labels `by`."""
    return _aggregate("avg", expression, by)


def quantile(share: float, histogram: str, by: str = "", where: str = VERSION) -> str:
    """A quantile of a histogram's values, of all series together or for each value of the labels `by`."""
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({share}, {total(rate(f'{histogram}_bucket', where), labels)})"


def buckets(histogram: str, where: str = VERSION) -> str:
    """How many values fell into each bucket of a histogram during each step of a heatmap."""
    return f"sum by (le) (increase({histogram}_bucket{{{where}}}[$__rate_interval]))"


def share(part: str, rest: str) -> str:
    """What `part` is of both together, 0 to 1."""
    return f"{part} / ({part} + {rest})"


def _aggregate(how: str, expression: str, by: str) -> str:
    return f"{how} by ({by}) ({expression})" if by else f"{how}({expression})"
