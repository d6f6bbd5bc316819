"""When a batch is worth running: the window policy as tables."""

from __future__ import annotations

from math import inf
from typing import Any

import pytest

from server.scheduling.policy import LevelPolicy, QueueBounds, WindowPolicy


def test_a_batch_is_due_when_its_oldest_request_has_waited_max_delay() -> None:
    assert WindowPolicy(max_rows=4, max_delay=2.5).due(oldest_arrived=10) == 12.5


def test_without_a_delay_a_batch_is_due_on_arrival() -> None:
    assert WindowPolicy(max_rows=4).due(oldest_arrived=10) == 10


CHOICES = {
    "an underfull batch waits": ({}, [1, 2], False, 9.99, 0),
    "an underfull batch runs when it is due": ({}, [1, 2], False, 10, 2),
    "an underfull batch runs when it is overdue": ({}, [1, 2], False, inf, 2),
    "a batch of max_rows runs": ({}, [3, 8], False, 0, 2),
    "a batch that nothing can join runs": ({}, [3, 6], True, 0, 2),
    "a batch of max_requests runs": ({"max_requests": 2}, [1, 2], False, 0, 2),
    "fewer than max_requests wait": ({"max_requests": 3}, [1, 2], False, 0, 0),
    "a preferred size runs": ({"preferred_rows": (2, 4)}, [1, 2], False, 0, 2),
    "more than a preferred size gives the preferred size": ({"preferred_rows": (2,)}, [1, 2, 3], False, 0, 2),
    "the largest preferred size is taken": ({"preferred_rows": (2, 4)}, [1, 2, 3, 4, 5], False, 0, 4),
    "the order of preferred sizes does not matter": ({"preferred_rows": (4, 2)}, [1, 2, 3, 4, 5], False, 0, 4),
    "a preferred size that no prefix has exactly waits": ({"preferred_rows": (2,)}, [1, 3], False, 0, 0),
    "less than a preferred size waits": ({"preferred_rows": (4,)}, [1, 2], False, 0, 0),
    "a due batch is not cut down to a preferred size": ({"preferred_rows": (2,)}, [1, 2, 3], False, 10, 3),
    "a full batch is not cut down to a preferred size": ({"preferred_rows": (2,)}, [2, 8], False, 0, 2),
    "a blocked batch is not cut down to a preferred size": ({"preferred_rows": (2,)}, [2, 6], True, 0, 2),
}


@pytest.mark.parametrize(("more", "prefix", "more_wait", "now", "count"), CHOICES.values(), ids=CHOICES)
def test_choose(more: dict[str, Any], prefix: list[int], more_wait: bool, now: float, count: int) -> None:
    policy = WindowPolicy(**{"max_rows": 8, "max_delay": 10, **more})
    assert policy.choose(prefix, more_wait, 0, now) == count


MIGHT_RUN = {
    "underfull and early": ({}, 7, 1, 9.9, False),
    "full": ({}, 8, 1, 0, True),
    "overfull": ({}, 9, 1, 0, True),
    "due": ({}, 1, 1, 10, True),
    "enough requests": ({"max_requests": 2}, 2, 2, 0, True),
    "one request too few": ({"max_requests": 2}, 1, 1, 0, False),
    "the smallest preferred size": ({"preferred_rows": (4, 2)}, 2, 1, 0, True),
    "less than any preferred size": ({"preferred_rows": (4, 2)}, 1, 1, 0, False),
}


@pytest.mark.parametrize(("more", "rows", "requests", "now", "expected"), MIGHT_RUN.values(), ids=MIGHT_RUN)
def test_might_run(more: dict[str, Any], rows: int, requests: int, now: float, expected: bool) -> None:
    policy = WindowPolicy(**{"max_rows": 8, "max_delay": 10, **more})
    assert policy.might_run(rows, requests, 0, now) is expected


IMPOSSIBLE = {
    "no rows": ({"max_rows": 0}, "at least one row, not 0"),
    "no requests": ({"max_rows": 1, "max_requests": 0}, "at least one request, not 0"),
    "negative delay": ({"max_rows": 1, "max_delay": -0.1}, "max_delay and aging must not be negative, not -0.1 and 0"),
    "negative aging": ({"max_rows": 1, "aging": -1}, "not 0.0 and -1"),
    "no level": ({"max_rows": 1, "levels": ()}, "^there must be at least one priority level$"),
    "preferred size 0": ({"max_rows": 4, "preferred_rows": (0,)}, r"must lie in 1..4, not \(0,\)"),
    "preferred size above max_rows": ({"max_rows": 4, "preferred_rows": (2, 5)}, r"not \(2, 5\)"),
    "queue too small for a batch": (
        {"max_rows": 4, "levels": (LevelPolicy(max_queued_rows=3),)},
        "^the queue must hold at least one full batch$",
    ),
    "queue for no request": (
        {"max_rows": 4, "levels": (LevelPolicy(max_queued_requests=0),)},
        "^the queue must hold at least one full batch$",
    ),
}


@pytest.mark.parametrize(("numbers", "message"), IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_the_impossible_is_refused(numbers: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WindowPolicy(**numbers)


def test_a_batch_may_be_worth_running_at_any_size_that_it_can_have() -> None:
    assert WindowPolicy(max_rows=4, preferred_rows=(1, 4)).preferred_rows == (1, 4)


LEVELS = {
    "a level stays without aging": (0.0, 3, 1e9, 3),
    "a newcomer has its own level": (2.0, 3, 0, 3),
    "a moment too early": (2.0, 3, 1.99, 3),
    "one level up": (2.0, 3, 2, 2),
    "two levels up": (2.0, 3, 4, 1),
    "never above the first": (2.0, 3, 6, 1),
    "the first stays the first": (2.0, 1, 1e9, 1),
    "at the end of time": (2.0, 3, inf, 1),
}


@pytest.mark.parametrize(("aging", "level", "waited", "expected"), LEVELS.values(), ids=LEVELS)
def test_a_request_climbs_one_level_for_each_time_of_aging(
    aging: float, level: int, waited: float, expected: int
) -> None:
    assert WindowPolicy(max_rows=1, aging=aging).level_at(level, 100, 100 + waited) == expected


def test_the_largest_request_that_could_ever_be_queued() -> None:
    levels = (LevelPolicy(max_queued_rows=10), LevelPolicy(max_queued_requests=3))
    policy = WindowPolicy(max_rows=4, levels=levels)
    assert [policy.most_rows(1), policy.most_rows(2)] == [10, 12]


def test_a_limited_policy_has_smaller_batches_and_is_otherwise_the_same() -> None:
    policy = WindowPolicy(max_rows=8, preferred_rows=(2, 6), max_delay=3, aging=1)
    assert policy.limited(4) == WindowPolicy(max_rows=4, preferred_rows=(2,), max_delay=3, aging=1)
    assert policy.limited(6).preferred_rows == (2, 6)
    assert policy.limited(9) == policy


def test_limited_bounds_have_smaller_batches_and_never_larger_ones() -> None:
    bounds = QueueBounds(8, (LevelPolicy(20), LevelPolicy()))
    assert bounds.limited(4) == QueueBounds(4, bounds.levels)
    assert bounds.limited(9) == bounds
