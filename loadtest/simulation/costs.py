"""What batches really take in a simulation, and what the policy knows of it. From a file or a live server.

The format is that of the server's page `/v2/models/MODEL/cost`. The true time of a batch is lognormal: its median and
its 99th percentile are those of the table, on the line between two buckets as the server predicts them.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import ceil, isfinite, log
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np

from loadtest.errors import LoadTestError
from server.scheduling.costs import WINDOW, Cost, CostTable

FETCH_SECONDS = 10.0
Z99 = NormalDist().inv_cdf(0.99)
NORMALS = 4096


@dataclass(frozen=True)
class MeasuredCosts:
    """A model's cost table, as it was measured. `buckets` ascend, and the last one is `max_rows`."""

    model: str
    max_rows: int
    buckets: tuple[Cost, ...]
    instances: int = 1
    objective_seconds: float | None = None

    def capacity(self, lanes: int) -> float:
        """Rows per second of lanes that run nothing but the most efficient bucket, at its median."""
        return lanes * max(line.rows / line.typical_seconds for line in self.buckets)

    def table(self, rng: np.random.Generator) -> CostTable:
        """The server's table after it has measured every bucket: full, and with exactly these p50 and p99."""
        table = CostTable([line.rows for line in self.buckets])
        median, high = ceil(0.5 * WINDOW) - 1, ceil(0.99 * WINDOW) - 1
        shares = [0.5 + 0.49 * (i - median) / (high - median) for i in range(WINDOW)]
        for line in self.buckets:
            spread = _spread(line.typical_seconds, line.worst_seconds)
            for share in rng.permutation(shares):  # in no order, since the oldest are forgotten first
                seconds = line.typical_seconds * np.exp(spread * NormalDist().inv_cdf(share))
                table.observe(line.rows, float(seconds))
        return table

    def truth(self) -> tuple[list[float], list[float]]:
        """Median seconds of a batch by its rows, and sigma of their logarithm. Index 0 is not used."""
        sizes = [line.rows for line in self.buckets]
        rows = np.arange(self.max_rows + 1)
        typical = np.interp(rows, sizes, [line.typical_seconds for line in self.buckets])
        worst = np.interp(rows, sizes, [line.worst_seconds for line in self.buckets])
        return typical.tolist(), [_spread(p50, p99) for p50, p99 in zip(typical, worst, strict=True)]


def normals(rng: np.random.Generator) -> Iterator[float]:
    """Standard normal numbers without end."""
    while True:
        yield from rng.standard_normal(NORMALS).tolist()


def read_costs(source: str) -> MeasuredCosts:
    """From a file, or from the page of a live server where `source` is an URL. Raises `LoadTestError`."""
    try:
        page = json.loads(_fetch(source) if source.startswith(("http://", "https://")) else Path(source).read_bytes())
    except OSError as error:
        raise LoadTestError(f"{source}: the cost table cannot be read: {error}") from error
    except ValueError as error:
        raise LoadTestError(f"{source}: the cost table is not JSON: {error}") from error
    return parse_costs(page, source)


def _fetch(url: str) -> bytes:
    try:
        with urllib.request.urlopen(url, timeout=FETCH_SECONDS) as answer:  # noqa: S310 -- http(s), by the caller
            content: bytes = answer.read()
    except urllib.error.HTTPError as error:
        said = error.read(300).decode(errors="replace").strip()
        raise LoadTestError(f"{url}: the server answered {error.code} {error.reason}: {said}") from error
    return content


def parse_costs(page: Any, source: str) -> MeasuredCosts:
    """A table from its JSON. Raises `LoadTestError`, which names the field."""
    if not isinstance(page, Mapping) or not isinstance(page.get("buckets"), list):
        raise LoadTestError(f"{source}: a cost table is an object with a list 'buckets'")
    buckets = tuple(_bucket(line, f"{source}: buckets[{i}]") for i, line in enumerate(page["buckets"]))
    sizes = [line.rows for line in buckets]
    max_rows = max(1, int(_number(page, "max_batch_size", source, least=0)))
    if not sizes or sizes != sorted(set(sizes)) or sizes[0] != 1 or sizes[-1] != max_rows:
        raise LoadTestError(
            f"{source}: buckets must ascend from 1 row to max_batch_size, which is {max_rows}, not {sizes}; "
            "a bucket that is missing has not been measured yet: send the model batches of that size"
        )
    objective = None if page.get("objective_ms") is None else _number(page, "objective_ms", source) / 1e3
    instances = int(_number(page, "instances", source, least=1)) if "instances" in page else 1
    return MeasuredCosts(str(page.get("model_name", "model")), max_rows, buckets, instances, objective)


def _bucket(line: Any, where: str) -> Cost:
    if not isinstance(line, Mapping):
        raise LoadTestError(f"{where}: must be an object with rows, p50_us and p99_us")
    rows = _number(line, "rows", where, least=1)
    p50, p99 = _number(line, "p50_us", where), _number(line, "p99_us", where)
    if rows != int(rows) or p99 < p50:
        raise LoadTestError(
            f"{where}: rows must be whole and p99_us not below p50_us, not {rows:g}, {p99:g} and {p50:g}"
        )
    return Cost(int(rows), p50 / 1e6, p99 / 1e6, int(_number(line, "runs", where, least=0)) if "runs" in line else 0)


def _number(page: Mapping[str, Any], name: str, where: str, least: float | None = None) -> float:
    """A field that is a number of at least `least`; above 0 without it."""
    value = page.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        raise LoadTestError(f"{where}: {name} must be a number, not {json.dumps(value)}")
    if value <= 0 if least is None else value < least:
        raise LoadTestError(
            f"{where}: {name} must be {'positive' if least is None else f'at least {least:g}'}, not {value:g}"
        )
    return value


def _spread(median: float, p99: float) -> float:
    return log(p99 / median) / Z99
