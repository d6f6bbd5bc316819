"""What can serve: a model with a file of its own, or an ensemble of others. The data plane knows no difference."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from server.errors import ConvoyError
from server.messages import InferenceRequest
from server.models.cards import Card
from server.models.config import ModelConfig
from server.models.work import Pending, Reply
from server.scheduling.costs import CostTable
from server.scheduling.sequences import SequenceCounts
from server.statistics import VersionStatistics
from server.summaries import SummarySlices


class Occupancy(NamedTuple):
    """What waits for a batch, and what runs."""

    waiting_requests: int
    waiting_rows: int
    running_batches: int


class Served(Protocol):
    """A version that can serve. All of it runs on the event loop's thread."""

    config: ModelConfig
    version: int
    statistics: VersionStatistics
    load_seconds: float
    instances: int
    costs: CostTable
    card: Card
    lost: ConvoyError | None
    """Why no request may be submitted any more, whoever holds the version; None where it may."""

    @property
    def pending(self) -> int:
        """Requests that wait."""
        ...

    @property
    def in_flight(self) -> int:
        """Requests admitted and not settled yet."""
        ...

    @property
    def max_batch_rows(self) -> int:
        """Rows that a batch may hold now."""
        ...

    def occupancy(self) -> Occupancy:
        """What waits for a batch, and what runs. An ensemble runs no batches itself: those are its models'."""
        ...

    def queue_age(self) -> float:
        """Seconds that the request has waited which has waited longest; 0 where none waits."""
        ...

    def latest(self) -> SummarySlices | None:
        """The latencies of the last minute; None where nobody asked for them."""
        ...

    def busy_seconds(self) -> Sequence[float]:
        """For how long each instance has had a batch so far."""
        ...

    def sequences(self) -> SequenceCounts | None:
        """What there is of sequences; None where the model has none."""
        ...

    def submit(self, request: InferenceRequest, reply: Reply) -> Pending | None:
        """Admit a request. `reply` is called once, also for a refusal, unless what is returned is cancelled first.

        Returns None where the request is settled already (and `reply` has been called): it was refused, or its answer
        was at hand.
        """
        ...

    def hold(self) -> Callable[[], None]:
        """Keep the version able to run requests until the function that this returns is called, once."""
        ...

    def hurry(self) -> None:
        """Run what is queued, and whatever comes, without waiting for company: the server is going down."""
        ...

    def cut_off(self) -> None:
        """From now on, whoever leaves does so because the server goes down."""
        ...

    async def drain(self) -> None:
        """Answer what was admitted. No request may be submitted after this began, but by whoever holds the version."""
        ...
