"""What all turns together say: medians, spreads, ratios to our server, and where others are ahead of it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from loadtest.side_by_side.records import Load, Record

START = "start"
OBJECTIVE = "objective"
"""Beside the numbers in flight, a load is one of these two."""

HIGHER_IS_BETTER = ("requests_per_second", "kept_per_second")
WORDS = {
    "requests_per_second": ("requests/s", ""),
    "p50_ms": ("p50", " ms"),
    "p99_ms": ("p99", " ms"),
    "cpu_us_per_request": ("server CPU per request", " µs"),
    "start_seconds": ("time to the first answer", " s"),
    "idle_memory_mib": ("memory when idle", " MiB"),
    "peak_memory_mib": ("memory under load", " MiB"),
    "kept_per_second": ("arrivals/s within the objective", ""),
}
"""Figures that servers are compared by, in words, and their unit."""


@dataclass(frozen=True)
class Server:
    """One that was to take part."""

    name: str
    title: str
    protocol: str
    configuration: str
    versions: Mapping[str, str]
    absent: str | None
    """Why it could not be run at all."""
    without_cpu: str | None
    """Why its CPU and memory are not known."""
    ours: bool
    runs_model: bool


@dataclass(frozen=True)
class Run:
    """What a report says besides figures."""

    machine: Mapping[str, Any]
    servers: tuple[Server, ...]
    subjects: Mapping[str, str]
    """Title by name."""
    rounds: int
    volley_seconds: Mapping[str, float]
    minutes: float

    def as_json(self) -> dict[str, object]:
        return asdict(self)

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Run:
        return cls(**{**fields, "servers": tuple(Server(**server) for server in fields["servers"])})

    def server(self, name: str) -> Server:
        return next(server for server in self.servers if server.name == name)


@dataclass(frozen=True)
class Figure:
    """Of all rounds."""

    median: float
    low: float
    high: float

    @property
    def spread(self) -> float:
        """From least to most, as a share of the median."""
        return (self.high - self.low) / self.median if self.median else 0.0


Place = tuple[str, str, str]
"""Server, subject, load."""


class Summary:
    """All figures of a run."""

    def __init__(self, records: Iterable[Record]) -> None:
        rounds: dict[Place, list[Load]] = {}
        self.failures: dict[tuple[str, str], list[str]] = {}
        """Why turns ended early, by server and subject."""
        for record in records:
            loads = {**record.loads, START: record.server_figures, OBJECTIVE: record.objective}
            for load, figures in loads.items():
                if figures:
                    rounds.setdefault((record.server, record.subject, load), []).append(figures)
            if record.failure is not None:
                self.failures.setdefault((record.server, record.subject), []).append(record.failure)
        self._figures = {place: _figures(seen) for place, seen in rounds.items()}

    def figures(self, server: str, subject: str, load: str) -> Mapping[str, Figure]:
        """By name; empty where nothing was measured."""
        return self._figures.get((server, subject, load), {})

    def loads(self, subject: str) -> list[str]:
        """Numbers in flight, ascending."""
        return sorted({load for _, of, load in self._figures if of == subject and load.isdigit()}, key=int)

    def ratio(self, server: str, reference: str, subject: str, load: str, name: str) -> float | None:
        """Of medians, to `reference`; None where one is missing or the other 0."""
        mine = self.figures(server, subject, load).get(name)
        its = self.figures(reference, subject, load).get(name)
        return mine.median / its.median if mine is not None and its is not None and its.median else None

    def largest_spread(self, server: str, name: str) -> float:
        """Of a figure of `server`, over all subjects and loads."""
        return max(
            (of[name].spread for (who, *_), of in self._figures.items() if who == server and name in of), default=0.0
        )


@dataclass(frozen=True)
class Lead:
    """A figure in which a peer is better than our server."""

    server: str
    subject: str
    load: str
    name: str
    theirs: Figure
    ours: Figure

    @property
    def clear(self) -> bool:
        """Whether every round of theirs was better than every round of ours."""
        if self.name in HIGHER_IS_BETTER:
            return self.theirs.low > self.ours.high
        return self.theirs.high < self.ours.low


def leads(summary: Summary, run: Run, reference: str) -> list[Lead]:
    """Wherever the median of another's server that runs the model is better than that of `reference`."""
    found: list[Lead] = []
    for subject in run.subjects:
        for load in (*summary.loads(subject), OBJECTIVE, START):
            ours = summary.figures(reference, subject, load)
            for server in run.servers:
                rival = server.runs_model and not server.ours
                theirs = summary.figures(server.name, subject, load) if rival else {}
                found += [
                    Lead(server.name, subject, load, name, theirs[name], ours[name])
                    for name in WORDS
                    if name in ours and name in theirs and _better(name, theirs[name].median, ours[name].median)
                    # At an objective each server has its p99 at a rate of its own.
                    if (load, name) != (OBJECTIVE, "p99_ms")
                ]
    return found


def _better(name: str, one: float, other: float) -> bool:
    return one > other if name in HIGHER_IS_BETTER else one < other


def _figures(rounds: Sequence[Load]) -> dict[str, Figure]:
    names = dict.fromkeys(name for figures in rounds for name in figures)
    columns = {name: [figures[name] for figures in rounds if name in figures] for name in names}
    return {name: Figure(median(values), min(values), max(values)) for name, values in columns.items()}
