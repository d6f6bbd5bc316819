"""The states of one model version and the legal moves between them. Pure.

Rules of this file:
- Every state and every legal move is in `MOVES`; whoever changes a version's state asks `move` first.
- A load ends READY or UNAVAILABLE, never back where it began.
- Only DRAINING leads away from READY: no version is dropped while a request may hold a lease on it.
- DRAINING never turns back. A version that is wanted again is loaded again.
- A reload is a second version object with a life of its own beside the first.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """Where a version is in its life."""

    UNKNOWN = "UNKNOWN"
    """Found, and nothing done about it yet."""
    LOADING = "LOADING"
    READY = "READY"
    DRAINING = "DRAINING"
    """No new requests; those that were admitted are being answered."""
    UNAVAILABLE = "UNAVAILABLE"
    """Failed to load, or unloaded; the reason says which."""


MOVES: dict[State, frozenset[State]] = {
    State.UNKNOWN: frozenset({State.LOADING}),
    State.LOADING: frozenset({State.READY, State.UNAVAILABLE}),
    State.READY: frozenset({State.DRAINING}),
    State.DRAINING: frozenset({State.UNAVAILABLE}),
    State.UNAVAILABLE: frozenset({State.LOADING}),
}


UNLOADED = "unloaded"
"""The reason of a version that is UNAVAILABLE because it was asked to go, in Triton's word."""


class IllegalTransition(RuntimeError):
    """A move that `MOVES` does not have: a bug in the caller, not a user's mistake."""


@dataclass(frozen=True, slots=True)
class VersionStatus:
    """A snapshot of one version."""

    version: int
    state: State
    reason: str = ""
    """Why it is in this state, for people; empty when there is nothing to explain."""


def move(current: State, target: State) -> State:
    """Return `target` where the move is legal. Raises IllegalTransition and changes nothing where it is not."""
    if target not in MOVES[current]:
        legal = ", ".join(sorted(MOVES[current]))
        raise IllegalTransition(f"a version cannot go from {current} to {target}; from {current} it goes to: {legal}")
    return target
