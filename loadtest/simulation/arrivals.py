"""When requests arrive: seconds from the start, ascending, in blocks of numpy. Pure, but for reading a trace.

Random arrivals are Poisson processes whose rate may change: the times of a process of rate 1 are bent by the number of
arrivals that the profile expects until then. Equal seeds give equal arrivals, whatever is simulated with them.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from loadtest.errors import LoadTestError
from loadtest.simulation.specs import settings_of, split_spec

Floats = np.ndarray[tuple[int], np.dtype[np.float64]]
Integers = np.ndarray[tuple[int], np.dtype[np.int64]]
Block = tuple[Floats, Integers | None]
"""Times, and rows where they differ from request to request."""

BLOCK = 1 << 15
"""Arrivals per block: enough for numpy, and few enough for the processor's caches."""

DAY_STEPS = 10_000
"""A diurnal rate is constant for this part of its period."""

ARRIVALS = "poisson, bursty[:on_ms=100,off_ms=400], diurnal[:period_s=SECONDS,swing=0.8] or trace:FILE"


class Arrivals(Protocol):
    """Requests to come."""

    @property
    def seconds(self) -> float:
        """How long they are looked at; all arrive before."""
        ...

    @property
    def rows(self) -> Integers | None:
        """Of every request, where they differ."""
        ...

    def blocks(self) -> Iterator[Block]:
        """All arrivals, in order, from the beginning at every call."""
        ...


@dataclass(frozen=True, eq=False)
class RandomArrivals:
    """A Poisson process: `expected[i]` arrivals are expected until `times[i]`, in between by the line."""

    times: Floats
    """From 0 to the end."""
    expected: Floats
    seed: int
    rows: Integers | None = None

    @property
    def seconds(self) -> float:
        return float(self.times[-1])

    def blocks(self) -> Iterator[Block]:
        rng = np.random.default_rng([self.seed, 1])
        total = self.expected[-1]
        count = 0.0
        while count < total:
            counts = count + np.cumsum(rng.standard_exponential(BLOCK))
            count = counts[-1]
            yield np.interp(counts[: np.searchsorted(counts, total)], self.expected, self.times), None


@dataclass(frozen=True, eq=False)
class RecordedArrivals:
    """A trace."""

    times: Floats
    rows: Integers | None
    seconds: float

    def blocks(self) -> Iterator[Block]:
        for start in range(0, len(self.times), BLOCK):
            part = slice(start, start + BLOCK)
            yield self.times[part], None if self.rows is None else self.rows[part]


def make_arrivals(spec: str, rate: float | None, seconds: float | None, seed: int) -> Arrivals:
    """What `--arrivals` names, with a mean of `rate` requests per second. Raises `LoadTestError`.

    A trace has its own rate and length: another rate stretches its time, a shorter length cuts it.
    """
    name, rest = split_spec(spec)
    if name == "trace":
        return _trace(Path(rest), rate, seconds)
    if rate is None or seconds is None:
        raise LoadTestError(f"'{spec}' needs a rate and a length; only a trace has its own")
    match name:
        case "poisson":
            settings_of(spec, {})
            return RandomArrivals(np.array([0.0, seconds]), np.array([0.0, rate * seconds]), seed)
        case "bursty":
            values = settings_of(spec, {"on_ms": 100.0, "off_ms": 400.0})
            return bursty(rate, seconds, values["on_ms"] / 1e3, values["off_ms"] / 1e3, seed)
        case "diurnal":
            values = settings_of(spec, {"period_s": seconds, "swing": 0.8})
            return diurnal(rate, seconds, values["period_s"], values["swing"], seed)
    raise LoadTestError(f"'{spec}': arrivals are {ARRIVALS}")


def bursty(rate: float, seconds: float, on: float, off: float, seed: int) -> RandomArrivals:
    """Bursts and silences of exponential lengths, `on` and `off` seconds in the mean. Raises `LoadTestError`."""
    if on <= 0:
        raise LoadTestError(f"bursty: on_ms must be positive, not {on * 1e3:g}")
    rng = np.random.default_rng([seed, 2])
    lengths: list[Floats] = []
    total = 0.0
    while total < seconds:
        lengths.append((rng.standard_exponential((1024, 2)) * (on, off)).ravel())
        total += float(lengths[-1].sum())
    ends = np.concatenate([[0.0], np.cumsum(np.concatenate(lengths))])
    busy = np.concatenate([[0.0], np.cumsum(np.concatenate(lengths) * np.tile([1.0, 0.0], 1024 * len(lengths)))])
    times = np.append(ends[ends < seconds], seconds)
    return RandomArrivals(times, np.interp(times, ends, busy) * rate * (on + off) / on, seed)


def diurnal(rate: float, seconds: float, period: float, swing: float, seed: int) -> RandomArrivals:
    """A wave from (1 - swing) to (1 + swing) times the rate, from trough to trough in a period."""
    if not 0 <= swing <= 1 or period <= 0:
        raise LoadTestError(f"diurnal: swing must be 0 to 1 and period_s positive, not {swing:g} and {period:g}")
    turn = 2 * np.pi / period
    times = np.linspace(0, seconds, 1 + max(1, round(DAY_STEPS * seconds / period)))
    return RandomArrivals(times, rate * (times - swing * np.sin(turn * times) / turn), seed)


def _trace(path: Path, rate: float | None, seconds: float | None) -> RecordedArrivals:
    times, rows = read_trace(path)
    if rate is not None:
        times = times * (len(times) / float(times[-1]) / rate)
    end = float(np.nextafter(times[-1], np.inf))
    if seconds is not None and seconds < end:
        end = seconds
        kept = int(np.searchsorted(times, end))
        times, rows = times[:kept], None if rows is None else rows[:kept]
        if not kept:
            raise LoadTestError(f"{path}: nothing arrives in the first {seconds:g} seconds")
    return RecordedArrivals(times, rows, end)


def read_trace(path: Path) -> tuple[Floats, Integers | None]:
    """CSV without a header: a line per request with its arrival in seconds, ascending, and optionally its rows.

    The first arrival is moved to the start. Raises `LoadTestError`, which names file and line.
    """
    times: list[float] = []
    rows: list[int] = []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            for number, cells in enumerate(csv.reader(file), 1):
                if cells:
                    when, size = _request(f"{path}:{number}", cells, times)
                    times.append(when)
                    rows.append(size)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise LoadTestError(f"{path}: the trace cannot be read: {error}") from error
    if len(times) < 2 or times[-1] == times[0]:
        raise LoadTestError(f"{path}: a trace needs requests at two different times at least")
    sizes: Any = np.array(rows)
    return np.array(times) - times[0], None if (sizes == 1).all() else sizes


def _request(where: str, cells: list[str], before: list[float]) -> tuple[float, int]:
    if len(cells) > 2:
        raise LoadTestError(f"{where}: a line has seconds and optionally rows, not {len(cells)} columns")
    try:
        when, size = float(cells[0]), int(cells[1]) if len(cells) == 2 else 1
    except ValueError:
        raise LoadTestError(f"{where}: '{','.join(cells)}' is not seconds and rows, such as 0.125,1") from None
    if not isfinite(when) or size < 1:
        raise LoadTestError(f"{where}: seconds must be finite and rows at least 1, not {when:g} and {size}")
    if before and when < before[-1]:
        raise LoadTestError(f"{where}: arrivals must ascend, and {when:g} follows {before[-1]:g}")
    return when, size
