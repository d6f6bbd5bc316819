"""Queues that keep an objective, for the tests of them: one second a row unless they say otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, nextafter

from server.scheduling.budget import ByteBudget
from server.scheduling.costs import CostTable, bucket_sizes
from server.scheduling.policy import LevelPolicy
from server.scheduling.slo import MOST_SHARE, SloPolicy
from server.scheduling.slo_queue import SloQueue
from tests.fakes import NamedTicket, names
from tests.unit.costing import Seconds, cost_table, linear

Q = SloQueue[NamedTicket]
BY_ROWS = linear(fixed=0, per_row=1)
"""One second a row: batches do not pay, and the plan is single rows."""
PAYING = linear(fixed=4, per_row=1)
"""Batches pay: a second row is worth waiting 4 s for, a third one 2 s."""


def queue(
    seconds: Seconds = BY_ROWS,
    objective: float = 100.0,
    max_rows: int = 4,
    lanes: int = 1,
    worst: float = 1.0,
    levels: int | tuple[LevelPolicy, ...] = 1,
    budget: ByteBudget | None = None,
) -> Q:
    bounds = levels if isinstance(levels, tuple) else (LevelPolicy(),) * levels
    policy = SloPolicy(max_rows, bounds, objective=objective)
    return SloQueue(policy, cost_table(max_rows, seconds, worst), lanes, budget)


def uncalibrated(objective: float = 100.0, max_rows: int = 4) -> tuple[Q, CostTable]:
    costs = CostTable(bucket_sizes(max_rows))
    return SloQueue(SloPolicy(max_rows, objective=objective), costs, 1), costs


def put(q: Q, *tickets: NamedTicket) -> None:
    for ticket in tickets:
        q.put(ticket)


def occupy(q: Q, now: float = 0.0, rows: int = 1) -> Sequence[NamedTicket]:
    """Make a lane busy; returns its batch."""
    put(q, NamedTicket("busy", rows, arrived=now))
    batch = q.take(now, hurry=True)
    assert names(batch) == ["busy"]
    return batch


def end(q: Q, batch: Sequence[NamedTicket], now: float = 0.0) -> None:
    q.ended(batch, now)
    q.answered(batch, now)


def one_by_one(q: Q, now: float = 0.0) -> list[object]:
    """Names in order of service, each batch ending before the next begins."""
    order: list[object] = []
    while batch := q.take(now, hurry=True):
        order += names(batch)
        end(q, batch, now)
    return order


def lenient(q: Q) -> Q:
    """Let it admit half as much again."""
    q.guard.share = MOST_SHARE
    return q


def last(q: Q) -> NamedTicket:
    """The request that goes last of a queue with one signature and level."""
    (line,) = q._lines.values()
    (rank,) = line.values()
    return rank.entries[-1][2]


def before(when: float) -> float:
    return nextafter(when, -inf)
