"""Answers in the order in which their requests arrived. Pure: who may leave now is a return value.

This is what `preserve_ordering` asks for where several instances finish out of turn.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
A = TypeVar("A")


class AnswerOrder(Generic[K, A]):
    """Holds back each answer until those of all earlier requests have left."""

    def __init__(self) -> None:
        self._line: dict[K, A | None] = {}  # in order of arrival; None where the answer is not there yet

    def __len__(self) -> int:
        """Requests that have not left."""
        return len(self._line)

    def arrive(self, request: K) -> None:
        """Remember a request's place."""
        self._line[request] = None

    def finish(self, request: K, answer: A) -> list[tuple[K, A]]:
        """An answer is there: return those that may leave now, in order."""
        self._line[request] = answer
        return self._released()

    def forget(self, request: K) -> list[tuple[K, A]]:
        """A request needs no place any more: return those that only waited for it."""
        del self._line[request]
        return self._released()

    def _released(self) -> list[tuple[K, A]]:
        released: list[tuple[K, A]] = []
        for request, answer in self._line.items():
            if answer is None:
                break
            released.append((request, answer))
        for request, _ in released:
            del self._line[request]
        return released
