"""Sequences, one rule at a time. In any order: `test_sequences_machine`."""

from __future__ import annotations

from collections.abc import Hashable
from itertools import count
from typing import Any

import pytest

from server.errors import SequenceNotStarted
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


IMPOSSIBLE = {
    "no slot": ({"slots": 0}, "slots and min_ready must be at least 1, not 0 and 1"),
    "nothing is worth running": ({"min_ready": 0}, "slots and min_ready must be at least 1, not 1 and 0"),
    "over at once": ({"max_idle": 0.0}, "max_idle must be above 0, not 0.0"),
    "a negative delay": ({"max_delay": -1.0}, "max_delay and aging must not be negative"),
}


@pytest.mark.parametrize(("numbers", "message"), IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_the_impossible_is_refused(numbers: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        SequencePolicy(1, **{"min_ready": 1, **numbers})


def test_a_sequence_that_nobody_has_started_is_refused() -> None:
    q: SequenceQueue[NamedTicket] = SequenceQueue(SequencePolicy(1), 1, lambda _: Step("a", starts=False, ends=False))
    with pytest.raises(SequenceNotStarted, match=r"^the first request of a sequence must start it$"):
        q.put(NamedTicket("a"))
    assert (len(q), q.rows, q.counts()) == (0, 0, (1, 0, 0))


def test_a_model_is_told_the_id_of_a_sequence_or_0() -> None:
    assert Step("key", starts=True, ends=False).correlation_id == 0
    assert Step("key", starts=True, ends=False, correlation_id="id").correlation_id == "id"


def test_what_would_be_worth_running_is_left_to_the_window_below_so_many() -> None:
    policy = SequencePolicy(8, slots=8, min_ready=3, max_delay=1.0)
    assert [policy.choose([*range(1, rows + 1)], False, 0.0, 0.5) for rows in (1, 2, 3, 4)] == [0, 0, 3, 4]
    assert policy.choose([1, 2], True, 0.0, 0.5) == 2, "full"
