"""From a model's configuration to the queue that its requests wait in, and to how long each of them may. Pure."""

from __future__ import annotations

import sys
from functools import partial
from math import inf
from typing import NamedTuple, TypeVar

from server.errors import (
    ConvoyError,
    DeadlineExceeded,
    ObjectiveMissed,
    Overloaded,
    QueueFull,
    QueueTimeout,
    SequenceNotStarted,
)
from server.messages import InferenceRequest
from server.models.config import ModelConfig, QueuePolicy
from server.models.work import Work
from server.scheduling import buckets
from server.scheduling.batcher import Queue
from server.scheduling.budget import ByteBudget
from server.scheduling.costs import CostTable
from server.scheduling.policy import LevelPolicy, WindowPolicy
from server.scheduling.queue import BatchQueue, Ticket
from server.scheduling.sequence_policy import SequencePolicy
from server.scheduling.slo import SloPolicy
from server.scheduling.slo_queue import SloQueue

QUEUED_BATCHES = 64
MIN_QUEUED_REQUESTS = 1024
"""The default bound of a queue: 64 full batches, and never less than 1,024 requests' worth of rows."""

T = TypeVar("T", bound=Ticket)


def queue_policy(config: ModelConfig) -> WindowPolicy | SloPolicy | SequencePolicy:
    """How a model's requests wait. Each priority level has bounds of its own."""
    batching = config.batching
    max_rows = max(1, config.max_batch_size)
    default = LevelPolicy(max_queued_rows=max(QUEUED_BATCHES * max_rows, MIN_QUEUED_REQUESTS))
    sizes = [level.max_queue_size for level in batching.levels] if batching else [0]
    levels = tuple(LevelPolicy(max_queued_requests=size) if size else default for size in sizes)
    sequence = config.sequence
    if sequence is not None:
        return SequencePolicy(
            max_rows,
            levels,
            preferred_rows=sequence.preferred_batch_sizes,
            max_delay=sequence.max_queue_delay_us / 1e6,
            slots=sequence.slots,
            max_idle=sequence.max_idle_us / 1e6,
            min_ready=sequence.min_ready or sys.maxsize,
            in_order=sequence.preserve_ordering,
        )
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
    """An empty queue that follows this policy. Sequences have one of their own, `SequenceQueue`."""
    if isinstance(policy, SloPolicy):
        return SloQueue(policy, costs, lanes, budget)
    return BatchQueue(policy, budget, partial(buckets.worth_taking, costs=costs) if costs.fills else None)


class TimeLimits(NamedTuple):
    """How long a request may take. Times of the monotonic clock, seconds."""

    deadline: float
    """When it must have left the queue."""
    delay_at: float
    """When it goes behind the others of its level."""
    due: float
    """When its answer is due; inf where nobody said."""


UNLIMITED = TimeLimits(inf, inf, inf)
"""Made once: most requests have no others."""


def time_limits(request: InferenceRequest, arrived: float, policy: QueuePolicy, objective_seconds: float) -> TimeLimits:
    """What the caller, the queue's policy for its level and the model's objective (inf for none) say together."""
    timeout_us = request.timeout_us
    default_us = policy.default_timeout_us
    if not timeout_us and not default_us and request.deadline == objective_seconds == inf:
        return UNLIMITED
    due = min(request.deadline, arrived + objective_seconds)
    if default_us:
        shortened = policy.allow_timeout_override and 0 < timeout_us < default_us
        timeout_us = timeout_us if shortened else default_us
    if not timeout_us:
        return TimeLimits(request.deadline, inf, due)
    end = arrived + timeout_us / 1e6
    if timeout_us == request.timeout_us:  # the caller's own: what the model sets is a bound on waiting only
        due = min(due, end)
    return TimeLimits(request.deadline, end, due) if policy.delay else TimeLimits(min(request.deadline, end), inf, due)


def explained(error: ConvoyError, request: InferenceRequest, config: ModelConfig) -> ConvoyError:
    """A refusal by the queue, which knows neither models nor requests, in words for its caller."""
    if isinstance(error, QueueFull):
        return QueueFull(f"{request.label()}{error}")
    if isinstance(error, Overloaded):
        return Overloaded(
            f"{request.label()}model '{config.name}' cannot answer within its objective of "
            f"{config.objective_ms:g} ms: {error}",
            error.retry_after,
        )
    if isinstance(error, SequenceNotStarted):
        sequence_id = request.sequence.id if request.sequence is not None else 0
        return SequenceNotStarted(
            f"{request.label()}inference request for sequence {sequence_id} to model '{config.name}' must specify the "
            "START flag on the first request of the sequence"
        )
    return error


def lateness(work: Work, config: ModelConfig, now: float) -> ConvoyError:
    """Why a request that waited until now was not worth running any more."""
    if now < work.deadline:
        return ObjectiveMissed(
            f"{work.request.label()}model '{config.name}' can no longer answer within its objective of "
            f"{config.objective_ms:g} ms"
        )
    if work.deadline == work.request.deadline:
        return DeadlineExceeded("Deadline Exceeded")
    return QueueTimeout("Request timeout expired")
