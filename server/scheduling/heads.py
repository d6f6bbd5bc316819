"""The first requests of the sequences that one instance has, by signature, oldest first. Pure.

Kept in order as they come and go: sorting them for each batch takes milliseconds where thousands wait.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Hashable, Iterator
from math import inf
from operator import itemgetter
from typing import Generic, TypeVar

from server.scheduling.queue import Ticket

T = TypeVar("T", bound=Ticket)

_Line = tuple[list[int], list[T]]
"""Requests of one signature, in order of their numbers, which are beside them: so they are found without a call."""


class Heads(Generic[T]):
    """At most one request of each sequence; none has the number of another."""

    __slots__ = ("_lines", "count")

    def __init__(self) -> None:
        self._lines: dict[Hashable, _Line[T]] = {}  # none is empty
        self.count = 0

    def add(self, ticket: T) -> None:
        """A request has become the first of its sequence."""
        number = ticket.step.number
        self.count += 1
        line = self._lines.get(ticket.signature)
        if line is None:
            self._lines[ticket.signature] = [number], [ticket]
            return
        numbers, tickets = line
        if number > numbers[-1]:
            numbers.append(number)
            tickets.append(ticket)
        else:
            place = bisect_left(numbers, number)
            numbers.insert(place, number)
            tickets.insert(place, ticket)

    def remove(self, ticket: T) -> None:
        """A request that was added is not the first any more."""
        self.count -= 1
        numbers, tickets = self._lines[ticket.signature]
        place = bisect_left(numbers, ticket.step.number)
        del numbers[place], tickets[place]
        if not numbers:
            del self._lines[ticket.signature]

    def lines(self) -> Iterator[list[T]]:
        """Those of each signature, in order of arrival; the line with the oldest one first. Not to be changed."""
        return map(itemgetter(1), self._in_order())

    def first_of_all(self, most: int) -> list[T]:
        """The oldest ones, `most` of them at most, before which none of another signature came. Some must be there."""
        (numbers, tickets), *others = self._in_order()
        bound = others[0][0][0] if others else inf
        return tickets[: min(most, bisect_left(numbers, bound))]

    def _in_order(self) -> list[_Line[T]]:
        lines = list(self._lines.values())
        if len(lines) > 1:
            lines.sort(key=lambda line: line[0][0])
        return lines
