"""Which versions should be served, and the one next step towards that. Pure, stateless and idempotent.

`next_action` maps snapshots to at most one action. The control plane carries it out and asks again; asking twice
without acting gives the same answer. Rules:
- Availability first: every wanted version has had its chance before an unwanted one goes, and the last READY one
  goes only when nothing is wanted or a wanted one has taken over.
- UNAVAILABLE is never retried here. To try again, the control plane forgets that version's status.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from server.models.lifecycle import State, VersionStatus


@dataclass(frozen=True, slots=True)
class Latest:
    """The `count` highest version numbers."""

    count: int = 1

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"must be at least 1, not {self.count}")


@dataclass(frozen=True, slots=True)
class All:
    """Every version on disk."""


@dataclass(frozen=True, slots=True)
class Specific:
    """These versions, as far as they are on disk."""

    versions: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.versions:
            raise ValueError("must list at least one version")
        if min(self.versions) < 1:
            raise ValueError(f"must list positive integers, not {min(self.versions)}")


VersionPolicy = Latest | All | Specific


@dataclass(frozen=True, slots=True)
class Load:
    """Load this version."""

    version: int


@dataclass(frozen=True, slots=True)
class Unload:
    """Drain and unload this version."""

    version: int


def wanted_versions(policy: VersionPolicy, available: Collection[int]) -> tuple[int, ...]:
    """The versions to serve of those available, ascending."""
    match policy:
        case Latest(count):
            chosen = sorted(available)[-count:]
        case All():
            chosen = sorted(available)
        case Specific(versions):
            chosen = sorted(set(versions) & set(available))
    return tuple(chosen)


def next_action(statuses: Sequence[VersionStatus], wanted: Collection[int]) -> Load | Unload | None:
    """The next step towards serving exactly `wanted`, or None where there is nothing to do but wait.

    Loads come first, newest version first; unloads follow, oldest version first.
    """
    states = {status.version: status.state for status in statuses}
    missing = [version for version in wanted if states.get(version, State.UNKNOWN) is State.UNKNOWN]
    if missing:
        return Load(max(missing))

    unwanted = [version for version, state in states.items() if state is State.READY and version not in wanted]
    settled = all(states[version] in (State.READY, State.UNAVAILABLE) for version in wanted)
    taken_over = not wanted or any(states[version] is State.READY for version in wanted)
    if unwanted and settled and taken_over:
        return Unload(min(unwanted))
    return None
