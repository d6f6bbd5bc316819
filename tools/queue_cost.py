"""What a queue costs per request: everything that the batcher asks of it, at some depth, without a model or a loop.

    PYTHONPATH=. python tools/queue_cost.py

A queue is filled to the depth. Then batch after batch: as many requests as a batch has are put, and `expire`, `take`,
`next_deadline`, `next_due`, `ended` and `answered` follow as in `Batcher`. Time is simulated, in step with the costs of
the batches, so that nothing expires. Medians of rounds, in turns; making the tickets is not counted.
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Callable
from itertools import count
from statistics import median

from server.scheduling.batcher import Queue
from server.scheduling.costs import WINDOW, CostTable, bucket_sizes
from server.scheduling.policy import LevelPolicy, WindowPolicy
from server.scheduling.queue import BatchQueue, Ticket
from server.scheduling.sequences import SequencePolicy, SequenceQueue, Step
from server.scheduling.slo import SloPolicy
from server.scheduling.slo_queue import SloQueue

BATCH_SECONDS = 1e-3
"""Of a full batch; smaller ones cost as much less as they are smaller, but for a tenth of it."""
OBJECTIVE_SECONDS = 60.0
"""Long enough to let in whatever is to wait."""
SEQUENCES_PER_ROW = 4
"""Of a queue of sequences that takes the oldest, for each row of a batch."""
CROWD = 10_000
"""Sequences that all have a slot, and wait in turns."""
LEVELS = (LevelPolicy(max_queued_rows=1_000_000),)
COLUMNS = ("queue", "waiting", "batch", "put µs", "batch's µs/request", "µs/request")


def main() -> None:
    """Print a table of medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--waiting", default="64,10000", help="requests that wait (%(default)s)")
    parser.add_argument("--batches", default="8,64", help="requests per batch, of one row each (%(default)s)")
    parser.add_argument("--requests", type=int, default=40_000, help="per round (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="(%(default)s)")
    arguments = parser.parse_args()
    depths, batches = (list(map(int, text.split(","))) for text in (arguments.waiting, arguments.batches))
    points = [(waiting, rows) for waiting in depths for rows in batches]
    seen: dict[tuple[str, int, int], list[tuple[float, float]]] = {}
    for _ in range(arguments.rounds):
        for waiting, rows in points:
            for name, make in QUEUES.items():
                times = _round(make(rows), waiting, rows, arguments.requests)
                seen.setdefault((name, waiting, rows), []).append(times)
    print("  ".join(COLUMNS))
    for key, rounds in seen.items():
        put, rest = (median(column) for column in zip(*rounds, strict=True))
        cells = (*map(str, key), f"{put:.2f}", f"{rest:.2f}", f"{put + rest:.2f}")
        print("  ".join(f"{cell:>{len(column)}}" for cell, column in zip(cells, COLUMNS, strict=True)))


def _window(rows: int) -> Queue[Ticket]:
    return BatchQueue(WindowPolicy(rows, LEVELS))


def _slo(rows: int) -> Queue[Ticket]:
    return SloQueue(SloPolicy(rows, LEVELS, objective=OBJECTIVE_SECONDS), _costs(rows), lanes=1)


def _direct(rows: int) -> Queue[Ticket]:
    policy = SequencePolicy(rows, LEVELS, slots=rows, max_idle=1e6, min_ready=1)
    return SequenceQueue(policy, 1, _steps_of(rows))


def _oldest(rows: int) -> Queue[Ticket]:
    policy = SequencePolicy(rows, LEVELS, slots=SEQUENCES_PER_ROW * rows, max_idle=1e6)
    return SequenceQueue(policy, 1, _steps_of(SEQUENCES_PER_ROW * rows))


def _crowd(rows: int) -> Queue[Ticket]:
    policy = SequencePolicy(rows, LEVELS, slots=CROWD, max_idle=1e6)
    return SequenceQueue(policy, 1, _steps_of(CROWD))


def _steps_of(sequences: int) -> Callable[[Ticket], Step]:
    """Requests of so many sequences in turns, none of which ends."""
    numbers = count()

    def step_of(_: Ticket) -> Step:
        number = next(numbers)
        return Step(number % sequences, number < sequences, ends=False)

    return step_of


QUEUES: dict[str, Callable[[int], Queue[Ticket]]] = {
    "window": _window,
    "slo": _slo,
    "direct": _direct,
    "oldest": _oldest,
    "crowd": _crowd,
}


def _costs(max_rows: int) -> CostTable:
    costs = CostTable(bucket_sizes(max_rows))
    for rows in costs.sizes:
        for _ in range(WINDOW):
            costs.observe(rows, BATCH_SECONDS * (0.1 + 0.9 * rows / max_rows))
    return costs


def _round(queue: Queue[Ticket], waiting: int, rows: int, requests: int) -> tuple[float, float]:
    """µs per request of `put`, and of all the rest."""
    now = 0.0
    for _ in range(waiting):
        queue.put(Ticket(1, "", now))
    put_ns = rest_ns = 0
    batches = max(1, requests // rows)
    clock = time.thread_time_ns  # other programs do not count
    gc.collect()
    gc.disable()
    for _ in range(batches):
        now += BATCH_SECONDS
        step = BATCH_SECONDS / rows
        tickets = [Ticket(1, "", now - BATCH_SECONDS + i * step) for i in range(rows)]
        start = clock()
        for ticket in tickets:
            queue.put(ticket)
        between = clock()
        late = queue.expire(now)
        batch = queue.take(now)
        queue.next_deadline()
        queue.next_due()
        queue.ended(batch, now)
        queue.answered(batch, now)
        end = clock()
        if late or len(batch) != rows:
            raise RuntimeError(f"{len(late)} expired and {len(batch)} of {rows} were taken: this is no steady state")
        put_ns += between - start
        rest_ns += end - between
    gc.enable()
    return put_ns / (batches * rows) / 1e3, rest_ns / (batches * rows) / 1e3


if __name__ == "__main__":
    main()
