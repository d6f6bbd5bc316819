"""Single flight: of equal requests in progress one leads, and the others wait for its answer. Pure.

Invariants: whoever waits is in exactly one flight; a flight that has nobody left is forgotten; the one who leads is
the one who has been there longest.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
W = TypeVar("W", bound=Hashable)


class Flights(Generic[K, W]):
    """Who waits for the answer of which key."""

    __slots__ = ("_flights",)

    def __init__(self) -> None:
        self._flights: dict[K, dict[W, None]] = {}

    def __len__(self) -> int:
        """Flights."""
        return len(self._flights)

    def __iter__(self) -> Iterator[K]:
        return iter(self._flights)

    def __contains__(self, key: K) -> bool:
        return key in self._flights

    def members(self, key: K) -> list[W]:
        """Everybody in a flight, who leads first."""
        return list(self._flights.get(key, ()))

    def join(self, key: K, waiter: W) -> bool:
        """Begin a flight, or join the one that there is. Returns whether the waiter leads."""
        flight = self._flights.get(key)
        if flight is None:
            self._flights[key] = {waiter: None}
            return True
        flight[waiter] = None
        return False

    def leader(self, key: K) -> W | None:
        """Who leads; None where there is no flight."""
        flight = self._flights.get(key)
        return None if flight is None else next(iter(flight))

    def leave(self, key: K, waiter: W) -> bool:
        """A waiter waits no more. Returns whether it led. Harmless where it is not there."""
        flight = self._flights.get(key)
        if flight is None or waiter not in flight:
            return False
        led = next(iter(flight)) is waiter
        del flight[waiter]
        if not flight:
            del self._flights[key]
        return led

    def land(self, key: K) -> list[W]:
        """End a flight: everybody who was in it, who led first."""
        return list(self._flights.pop(key, ()))
