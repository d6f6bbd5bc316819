"""How many requests may be at one step of an ensemble at a time: `max_inflight_requests`. Pure.

A request that is done with a step keeps its place there until it has one at the steps that come next, so that a slow
step holds back those before it, back to the door. Nobody waits for ever: whoever keeps a place waits for one further
down the graph, which has no cycle.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)


@dataclass(slots=True)
class Gate(Generic[T]):
    """The way into one step."""

    free: int
    """Places that nobody has."""
    waiting: OrderedDict[T, None] = field(default_factory=OrderedDict)
    """In order of arrival."""

    @property
    def is_open(self) -> bool:
        """Whether whoever comes now need not wait."""
        return self.free > 0 and not self.waiting

    def enter(self, who: T) -> bool:
        """Take a place where one is free; else stand in line."""
        if self.is_open:
            self.free -= 1
            return True
        self.waiting[who] = None
        return False

    def leave(self) -> None:
        """Give a place back."""
        self.free += 1

    def forget(self, who: T) -> None:
        """Leave the line, if in it."""
        self.waiting.pop(who, None)

    def next(self) -> T | None:
        """Give a free place to whoever is first in line; None where there is no place, or no line."""
        if not self.free or not self.waiting:
            return None
        self.free -= 1
        return self.waiting.popitem(last=False)[0]
