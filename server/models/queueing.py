"""From a model's configuration to the queue that its requests wait in."""

from __future__ import annotations

from typing import TypeVar

from server.models.config import ModelConfig
from server.scheduling.batcher import Queue
from server.scheduling.budget import ByteBudget
from server.scheduling.costs import CostTable
from server.scheduling.policy import LevelPolicy, WindowPolicy
from server.scheduling.queue import BatchQueue, Ticket
from server.scheduling.slo import SloPolicy
from server.scheduling.slo_queue import SloQueue

QUEUED_BATCHES = 64
MIN_QUEUED_REQUESTS = 1024
"""The default bound of a queue: 64 full batches, and never less than 1,024 requests' worth of rows."""

T = TypeVar("T", bound=Ticket)


def queue_policy(config: ModelConfig) -> WindowPolicy | SloPolicy:
    """How a model's requests wait. Each priority level has bounds of its own."""
    batching = config.batching
    max_rows = max(1, config.max_batch_size)
    default = LevelPolicy(max_queued_rows=max(QUEUED_BATCHES * max_rows, MIN_QUEUED_REQUESTS))
    sizes = [level.max_queue_size for level in batching.levels] if batching else [0]
    levels = tuple(LevelPolicy(max_queued_requests=size) if size else default for size in sizes)
    if config.objective_ms:
        return SloPolicy(max_rows, levels, objective=config.objective_ms / 1000)
    if batching is None:
        return WindowPolicy(max_rows, levels, max_requests=1)
    return WindowPolicy(
        max_rows,
        levels,
        preferred_rows=batching.preferred_batch_sizes,
        max_delay=batching.max_queue_delay_us / 1e6,
        aging=batching.aging_us / 1e6,
    )


def make_queue(policy: WindowPolicy | SloPolicy, costs: CostTable, lanes: int, budget: ByteBudget | None) -> Queue[T]:
    """An empty queue that follows this policy."""
    if isinstance(policy, SloPolicy):
        return SloQueue(policy, costs, lanes, budget)
    return BatchQueue(policy, budget)
