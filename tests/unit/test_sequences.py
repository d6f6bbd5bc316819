"""What the queue of sequences remembers of limits. Everything else: `test_sequences_machine`."""

from __future__ import annotations

from collections.abc import Hashable
from itertools import count

from server.scheduling.queue import REMEMBERED_LIMITS
from server.scheduling.sequences import SequencePolicy, SequenceQueue, Step
from tests.fakes import NamedTicket


def queue() -> SequenceQueue[NamedTicket]:
    """Every request is a sequence of its own; up to 4 run together."""
    keys = count()
    return SequenceQueue(SequencePolicy(4, slots=4, min_ready=1), 1, lambda _: Step(next(keys), starts=True, ends=True))


def together(q: SequenceQueue[NamedTicket], signature: Hashable) -> int:
    """How many of four requests of this signature run at once."""
    for name in "abcd":
        q.put(NamedTicket(name, signature=signature))
    batch = q.take(now=0.0)
    q.ended(batch, now=0.0)
    q.clear()
    return len(batch)


def test_a_limit_is_never_raised() -> None:
    q = queue()
    q.limit_rows(2, "x")
    q.limit_rows(3, "x")
    assert [together(q, signature) for signature in "xy"] == [2, 4]


def test_the_latest_limits_are_remembered() -> None:
    q = queue()
    for signature in range(REMEMBERED_LIMITS + 1):
        q.limit_rows(1, signature)
    assert [together(q, signature) for signature in (0, 1, REMEMBERED_LIMITS)] == [4, 1, 1]
