"""Points of a simulation: every policy at every load. A point may be cut into stretches that run side by side."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from multiprocessing import get_context

import numpy as np

from loadtest.errors import LoadTestError
from loadtest.simulation.arrivals import Arrivals, Block, make_arrivals
from loadtest.simulation.costs import MeasuredCosts, normals
from loadtest.simulation.engine import Engine
from loadtest.simulation.fleet import Balancer, Fleet
from loadtest.simulation.policies import Setup, make_policy
from loadtest.simulation.tally import Tally, joined

OVERLAP_SECONDS = 5.0
"""Simulated, and not counted, before each stretch but the first: it begins with nobody waiting."""


@dataclass(frozen=True)
class Scenario:
    """What all points have in common."""

    costs: MeasuredCosts
    arrivals: str
    objective: float
    """Seconds."""
    seconds: float | None
    """Of virtual time; None: a trace's own length."""
    lanes: int = 1
    """Of each server."""
    servers: int = 1
    balancer: Balancer = Balancer.ROUND_ROBIN
    rows: int = 1
    """Of every request, where the arrivals bring none."""
    seed: int = 1
    stretches: int = 1
    overlap: float = OVERLAP_SECONDS

    @property
    def all_lanes(self) -> int:
        """Of all servers."""
        return self.servers * self.lanes

    @cached_property
    def capacity(self) -> float:
        """Requests per second of lanes that run nothing but the batches with the most rows per second."""
        rows = self.arrive(None).rows if self.recorded else None
        return self.costs.capacity(self.all_lanes) / (self.rows if rows is None else float(rows.mean()))

    @property
    def recorded(self) -> bool:
        """Whether the arrivals are a trace, with a rate and a length of its own."""
        return self.arrivals.startswith("trace:")

    def arrive(self, rate: float | None) -> Arrivals:
        """Raises `LoadTestError`, also for requests that no batch can hold."""
        arrivals = make_arrivals(self.arrivals, rate, self.seconds, self.seed)
        largest = self.rows if arrivals.rows is None else int(arrivals.rows.max())
        if largest > self.costs.max_rows:
            raise LoadTestError(f"requests of {largest} rows do not fit into batches of {self.costs.max_rows}")
        return arrivals


@dataclass(frozen=True)
class Point:
    """One policy under one load, and what came of it."""

    policy: str
    tally: Tally
    gap: int
    """By how many requests the stretches disagree about who is there where they meet. 0: as good as one run."""
    cpu_seconds: float
    """Processor time of all stretches."""

    @property
    def rate(self) -> float:
        """Requests that arrived per second."""
        return self.tally.arrived / self.tally.seconds

    @property
    def goodput(self) -> float:
        """Requests answered within the objective, per second."""
        return self.tally.good / self.tally.seconds


@dataclass(frozen=True)
class _Job:
    scenario: Scenario
    policy: str
    rate: float | None
    stretch: int


def run_points(
    scenario: Scenario, policies: Sequence[str], rates: Sequence[float | None], processes: int = 1
) -> Iterator[Point]:
    """Each policy at each rate (None: a trace's own), in this order. Raises `LoadTestError`."""
    for policy in policies:
        _setup(scenario, policy, 0)  # a slip of the pen is heard of now, and not after half an hour
    for rate in rates:
        scenario.arrive(rate)
    points = [(policy, rate) for rate in rates for policy in policies]
    jobs = [_Job(scenario, *point, stretch) for point in points for stretch in range(scenario.stretches)]
    if processes == 1:
        yield from _points(points, scenario.stretches, map(_simulate, jobs))
        return
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        yield from _points(points, scenario.stretches, pool.map(_simulate, jobs))


def _points(
    points: Sequence[tuple[str, float | None]], stretches: int, results: Iterator[tuple[Tally, float]]
) -> Iterator[Point]:
    for policy, _ in points:
        tallies, cpu_seconds = zip(*(next(results) for _ in range(stretches)), strict=True)
        yield Point(policy, *joined(tallies), sum(cpu_seconds))


def _simulate(job: _Job) -> tuple[Tally, float]:
    """One stretch of one point, and the processor seconds that it took."""
    scenario, began = job.scenario, time.process_time()
    arrivals = scenario.arrive(job.rate)
    edges = np.linspace(0, arrivals.seconds, scenario.stretches + 1)
    start, end = float(edges[job.stretch]), float(edges[job.stretch + 1])
    engine = _fleet(scenario, job.policy, job.stretch)
    if start:
        _run(engine, arrivals, max(0.0, start - scenario.overlap), start)
    tally = engine.tally = Tally(scenario.objective, scenario.costs.max_rows)
    tally.seconds, tally.present_at_start = end - start, engine.present
    _run(engine, arrivals, start, end)
    tally.present_at_end = engine.present
    return tally, time.process_time() - began


def _fleet(scenario: Scenario, policy: str, stretch: int) -> Fleet:
    """The servers, each with nobody waiting and chance of its own."""
    typical, spread = scenario.costs.truth()
    tally = Tally(scenario.objective, scenario.costs.max_rows)
    engines = []
    for server in range(scenario.servers):
        setup = _setup(scenario, policy, stretch, server)
        engines.append(
            Engine(
                setup.queue,
                scenario.lanes,
                tally,
                typical=typical,
                spread=spread,
                normals=normals(_rng(scenario, 3, stretch, server)),
                rows=scenario.rows,
                timeout=setup.timeout,
                observe=setup.observe,
            )
        )
    return Fleet(engines, scenario.balancer, np.random.default_rng([scenario.seed, 5, stretch]))


def _rng(scenario: Scenario, purpose: int, stretch: int, server: int) -> np.random.Generator:
    """The first server's is the same however many there are."""
    return np.random.default_rng([scenario.seed, purpose, stretch, *([server] if server else [])])


def _setup(scenario: Scenario, policy: str, stretch: int, server: int = 0) -> Setup:
    rng = _rng(scenario, 4, stretch, server)
    return make_policy(policy, scenario.costs, scenario.lanes, scenario.objective, rng)


def _run(engine: Fleet, arrivals: Arrivals, start: float, end: float) -> None:
    for times, rows in _between(arrivals.blocks(), start, end):
        until = float(np.nextafter(times[-1], np.inf))
        engine.run(times.tolist(), None if rows is None else rows.tolist(), until)
    engine.run([], None, end)


def _between(blocks: Iterator[Block], start: float, end: float) -> Iterator[Block]:
    """What arrives from `start` on, and before `end`."""
    for times, rows in blocks:
        first, last = np.searchsorted(times, [start, end])
        if first < last:
            yield times[first:last], None if rows is None else rows[first:last]
        if last < len(times):
            return
