"""Which versions should be served, and the one next step towards that. Pure, stateless and idempotent.

`next_action` maps snapshots to at most one action. The control plane carries it out and asks again; asking twice
without acting gives the same answer. Rules:
- Availability first: every wanted version has had its chance before an unwanted one goes, and the last READY one
  goes only when nothing is wanted or a wanted one has taken over.
- What was tried is tried again only where its files are others now (`stale`). A version that serves is then loaded
  again beside itself: it goes on serving, whatever comes of it.
- A version that is UNAVAILABLE and not wanted is forgotten, as if the server had never seen it.
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


@dataclass(frozen=True, slots=True)
class Reload:
    """Load this version, which serves, once more, and let the new one take over."""

    version: int


@dataclass(frozen=True, slots=True)
class Forget:
    """Keep nothing of this version."""

    version: int


Action = Load | Reload | Unload | Forget


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


def next_action(
    statuses: Sequence[VersionStatus], wanted: Collection[int], stale: Collection[int] = ()
) -> Action | None:
    """The next step towards serving exactly `wanted`, or None where there is nothing to do but wait.

    `stale` are the versions whose files are not those that were last loaded, or failed to be. Loads come first, newest
    version first, then reloads; unloads follow, oldest version first.
    """
    states = {status.version: status.state for status in statuses}
    missing = [version for version in wanted if _must_load(states.get(version, State.UNKNOWN), version in stale)]
    if missing:
        return Load(max(missing))
    outdated = [version for version in wanted if version in stale and states[version] is State.READY]
    if outdated:
        return Reload(max(outdated))

    unwanted = [version for version, state in states.items() if state is State.READY and version not in wanted]
    settled = all(states[version] in (State.READY, State.UNAVAILABLE) for version in wanted)
    taken_over = not wanted or any(states[version] is State.READY for version in wanted)
    if unwanted and settled and taken_over:
        return Unload(min(unwanted))
    leftover = [v for v, state in states.items() if state is State.UNAVAILABLE and v not in wanted]
    return Forget(min(leftover)) if leftover else None


def _must_load(state: State, stale: bool) -> bool:
    return state is State.UNKNOWN or (stale and state is State.UNAVAILABLE)
