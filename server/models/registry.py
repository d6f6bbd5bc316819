"""Every model known here: the states of its versions and the versions that can serve. Single-threaded, on the loop.

The control plane writes it, the data plane looks versions up in it. It owns no thread, no file and no policy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from server.errors import InvalidRequest, NotFound, NotReady
from server.models.lifecycle import IllegalTransition, State, VersionStatus, move
from server.models.served import Served
from server.statistics import VersionStatistics

MAX_VERSION = 2**63 - 1


@dataclass(slots=True)
class ModelEntry:
    """One model: what became of each of its versions."""

    name: str
    statuses: dict[int, VersionStatus] = field(default_factory=dict)
    loaded: dict[int, Served] = field(default_factory=dict)
    """Versions that serve; exactly those whose state is READY."""
    problem: str = ""
    """Why the model as a whole cannot be served, or not as it is in its repository; "" where it is a matter of its
    versions, or nothing is wrong."""
    latest: Served | None = None
    """The highest of `loaded`."""
    draining: dict[int, Served] = field(default_factory=dict)
    """Versions that answer their last requests."""
    recovering: set[int] = field(default_factory=set)
    """Versions that failed while they served, and are about to be loaded again."""
    loads: int = 0
    """How often one of its versions has been loaded, again or for the first time."""
    failed_loads: int = 0
    """How often that failed, for a version or for the model as a whole."""
    newcomer: bool = False
    """Whether it came when the server was serving already, and has not served yet: it makes nobody less ready."""
    beside: set[int] = field(default_factory=set)
    """Versions that come, or go, while others of the model serve: the model is no less ready for it."""
    retired: set[int] = field(default_factory=set)
    """Versions that were asked to go: they are going or gone, and the model is no less ready for it."""
    statistics: dict[int, VersionStatistics] = field(default_factory=dict)
    """What was counted of a version, whichever session it had: counters go on where a version is loaded again."""
    successors: dict[int, VersionStatus] = field(default_factory=dict)
    """The second lives of versions that serve: what is being loaded, and will take over from them."""

    def is_ready(self) -> bool:
        """Whether what should serve does; a model of which nothing should is ready."""
        if self.newcomer:
            return True
        expected = [status for status in self.statuses.values() if status.version not in self.retired]
        failing = [status.version for status in expected if status.state is not State.READY]
        if len(failing) == len(expected):
            return not self.problem and not failing
        return self.beside.issuperset(failing)

    def add(self, loaded: Served) -> None:
        """This version serves from now on."""
        self.loaded[loaded.version] = loaded
        self.beside.discard(loaded.version)
        self.newcomer = False
        self.latest = self.loaded[max(self.loaded)]

    def remove(self, version: int) -> None:
        """This version serves no more, if it did."""
        self.loaded.pop(version, None)
        self.latest = self.loaded[max(self.loaded)] if self.loaded else None


class Registry:
    """Models by name."""

    def __init__(self) -> None:
        self._models: dict[str, ModelEntry] = {}
        self._listeners: list[Callable[[], None]] = []
        self._forgotten_answers = 0
        """Of versions that were forgotten."""

    @property
    def answers(self) -> int:
        """What all versions that ever served have answered, but for steps of ensembles: what callers asked for."""
        every = [statistics for entry in self._models.values() for statistics in entry.statistics.values()]
        return self._forgotten_answers + sum(map(_answers, every))

    def __iter__(self) -> Iterator[ModelEntry]:
        """All models, by name."""
        return iter(sorted(self._models.values(), key=lambda entry: entry.name))

    def entry(self, name: str) -> ModelEntry:
        """The entry of this name, made where there is none."""
        return self._models.setdefault(name, ModelEntry(name))

    def has(self, name: str) -> bool:
        return name in self._models

    def serves(self, name: str) -> bool:
        """Whether any version of a model can serve."""
        return name in self._models and self._models[name].latest is not None

    def statistics(self, name: str, version: int) -> VersionStatistics:
        """What is counted of a version, from when it is first loaded until it is forgotten."""
        return self.entry(name).statistics.setdefault(version, VersionStatistics())

    def find(self, name: str, version: str) -> Served:
        """The version to serve a request. `version` is as the caller wrote it, "" for the latest that is ready.

        Raises `NotFound`, `NotReady`, and `InvalidRequest` for a version that is no number.
        """
        entry = self._models.get(name)
        if not version:
            if entry is None:
                raise NotFound(f"Request for unknown model: '{name}' is not found")
            if entry.latest is None and entry.recovering:
                raise NotReady(
                    f"Request for unknown model: '{name}' has no version at ready state; one is being reloaded"
                )
            if entry.latest is None:
                raise NotFound(f"Request for unknown model: '{name}' has no available versions")
            return entry.latest
        number = parse_version(version)
        if entry is None:
            raise NotFound(f"Request for unknown model: '{name}' is not found")
        loaded = entry.loaded.get(number)
        if loaded is not None:
            return loaded
        if number in entry.statuses:
            raise NotReady(f"Request for unknown model: '{name}' version {number} is not at ready state")
        raise NotFound(f"Request for unknown model: '{name}' version {number} is not found")

    def set_state(self, name: str, version: int, state: State, reason: str = "") -> None:
        """Move a version to a state. Raises `IllegalTransition`."""
        entry = self.entry(name)
        was = entry.statuses.get(version)
        self._move(name, version, state, reason)
        if state is State.UNAVAILABLE and was is not None and was.state is State.LOADING:
            entry.failed_loads += 1
        entry.draining.pop(version, None)
        if state is State.LOADING:
            entry.retired.discard(version)
        if state is State.DRAINING and version in entry.loaded:
            entry.draining[version] = entry.loaded[version]
        if state is not State.READY:
            entry.remove(version)
        self.changed()

    def set_ready(self, name: str, loaded: Served) -> None:
        """A version has been loaded and serves from now on."""
        self._move(name, loaded.version, State.READY, "")
        entry = self.entry(name)
        entry.add(loaded)
        entry.loads += 1
        self.changed()

    def begin_reload(self, name: str, version: int) -> None:
        """A version that serves begins a second life beside the first. Raises `IllegalTransition`."""
        status = self.entry(name).statuses[version]
        if status.state is not State.READY:
            raise IllegalTransition(f"a version that is {status.state} has nothing to be loaded beside")
        self.entry(name).successors[version] = VersionStatus(version, move(State.UNKNOWN, State.LOADING))

    def take_over(self, name: str, loaded: Served) -> Served | None:
        """A version that was loaded beside the one that serves takes its place. Returns that one, to be drained.

        None where it serves no more: nothing has changed then.
        """
        entry = self.entry(name)
        move(entry.successors.pop(loaded.version).state, State.READY)
        old = entry.loaded.get(loaded.version)
        if old is None:
            return None
        move(entry.statuses[loaded.version].state, State.DRAINING)
        entry.statuses[loaded.version] = VersionStatus(loaded.version, State.READY)
        entry.add(loaded)
        entry.loads += 1
        self.changed()
        return old

    def reload_failed(self, name: str, version: int, reason: str) -> None:
        """What was to take over cannot be loaded; the version serves on, if it does."""
        entry = self.entry(name)
        move(entry.successors.pop(version).state, State.UNAVAILABLE)
        entry.failed_loads += 1
        if version in entry.loaded:
            entry.statuses[version] = replace(entry.statuses[version], reason=reason)
        self.changed()

    def explain(self, name: str, version: int, reason: str) -> None:
        """Say otherwise why a version is in its state."""
        statuses = self.entry(name).statuses
        if statuses[version].reason != reason:
            statuses[version] = replace(statuses[version], reason=reason)
            self.changed()

    def forget(self, name: str, version: int | None = None) -> None:
        """Keep nothing of a version that is UNAVAILABLE, or of a model without versions."""
        entry = self.entry(name)
        if version is None:
            assert not entry.statuses, "versions go first"
            del self._models[name]
        else:
            assert entry.statuses[version].state is State.UNAVAILABLE, "it is drained first"
            del entry.statuses[version]
            entry.beside.discard(version)
            entry.retired.discard(version)
            if version in entry.statistics:
                self._forgotten_answers += _answers(entry.statistics.pop(version))
        self.changed()

    def retire(self, name: str) -> None:
        """Nobody wants the model to serve any more, as long as it is not loaded again."""
        entry = self.entry(name)
        entry.retired.update(entry.statuses)
        entry.problem = ""
        self.changed()

    def set_problem(self, name: str, problem: str) -> None:
        """The model cannot be served, or not as it is in its repository; "" where nothing is wrong any more."""
        entry = self.entry(name)
        entry.problem = problem
        entry.failed_loads += bool(problem)
        self.changed()

    def loaded(self) -> list[Served]:
        """All versions that serve, by model and version."""
        return [entry.loaded[version] for entry in self for version in sorted(entry.loaded)]

    def active(self) -> list[Served]:
        """All versions that serve or answer their last requests, by model and version."""
        return [
            active[version]
            for entry in self
            for active in [entry.draining | entry.loaded]
            for version in sorted(active)
        ]

    def all_ready(self) -> bool:
        """Whether every model and version that should serve does. What comes or goes beside them does not count."""
        return all(entry.is_ready() for entry in self._models.values())

    def subscribe(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call `listener` after every change of a state. Returns the function that ends it."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def changed(self) -> None:
        """Tell the listeners."""
        for listener in tuple(self._listeners):
            listener()

    def _move(self, name: str, version: int, state: State, reason: str) -> None:
        entry = self.entry(name)
        current = entry.statuses.get(version, VersionStatus(version, State.UNKNOWN))
        entry.statuses[version] = VersionStatus(version, move(current.state, state), reason)


def _answers(statistics: VersionStatistics) -> int:
    return statistics.success.count - statistics.step_answers


def parse_version(text: str) -> int:
    """A version number as callers write it. Raises `InvalidRequest`."""
    is_number = text.isascii() and text.isdigit()
    digits = text.lstrip("0")
    if is_number and digits and len(digits) <= len(str(MAX_VERSION)) and int(digits) <= MAX_VERSION:
        return int(digits)
    detail = "out of range" if is_number else "not a number"
    raise InvalidRequest(
        f"failed to get model version from specified version string '{text[:64]}' (details: {detail}), "
        "version should be an integral value > 0"
    )
