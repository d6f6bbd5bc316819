"""Ensembles go up and down with the models of their steps. A part of the control plane, on the event loop's thread.

Rules of this file:
- An ensemble is READY while every model that it names serves in the version that it names, and fits. In the same turn
  of the loop in which that ends, it is DRAINING; once it is so again, the ensemble is LOADING and READY.
- A model that is loaded anew under an ensemble is taken up by it at once, without a change of state. Requests keep the
  models that they came to: whoever is drained is held until they are answered.
- What cannot serve says why, and the reason follows what happens to the models.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Coroutine, Iterator, Mapping

from server.errors import LoadFailed
from server.models.config import ModelConfig
from server.models.config_fields import FieldInvalid
from server.models.config_types import EnsembleSchedule
from server.models.ensemble import check_members
from server.models.ensemble_model import EnsembleVersion
from server.models.ensemble_run import Members
from server.models.lifecycle import State
from server.models.registry import Registry
from server.models.served import Served

log = logging.getLogger(__name__)

MAX_DEPTH = 8
"""Ensembles inside each other. More cannot be meant, and each is a few more calls deep."""

Key = tuple[str, int]

Make = Callable[[ModelConfig, int, Members], EnsembleVersion]
"""A version of an ensemble of this configuration, on these models."""


class Ensembles:
    """Watches those that it has been asked to open."""

    def __init__(self, registry: Registry, make: Make) -> None:
        self._registry = registry
        self._make = make
        self._watched: dict[Key, ModelConfig] = {}
        self._drains: dict[asyncio.Task[None], Key] = {}
        self._looking = False
        self._look_again = False
        self._unsubscribe = registry.subscribe(self._changed)

    def open(self, config: ModelConfig, version: int) -> EnsembleVersion:
        """A version on the models that serve now. Raises `LoadFailed`; from then on it is loaded once that has an end.

        The caller makes it READY, or UNAVAILABLE.
        """
        self._watched[config.name, version] = config
        return self._make(config, version, self._members(config))

    async def give_up(self, name: str, version: int) -> None:
        """Do not care for this version any more. Returns when nothing is in progress for it."""
        self._watched.pop((name, version), None)
        await asyncio.gather(*(task for task, key in self._drains.items() if key == (name, version)))

    def forget(self, name: str, version: int) -> None:
        """Do not care any more for a version that is UNAVAILABLE."""
        self._watched.pop((name, version), None)

    async def stop(self) -> None:
        """Care for none any more: the server goes down."""
        self._unsubscribe()
        self._watched.clear()
        await asyncio.gather(*self._drains)

    def dependents(self, name: str, kept: Collection[str] = ()) -> list[str]:
        """The models that nobody needs once `name` is gone: those of its steps, and of theirs, which no other ensemble
        has, without those of `kept` and what they need."""
        going: list[str] = []
        left = [name]
        while left:
            for model in self._models_of(left.pop()):
                used_by = set(self._users(model)).difference(going, [name])
                if model not in kept and model not in going and not used_by:
                    going.append(model)
                    left.append(model)
        return going

    def _changed(self) -> None:
        """Something has another state: bring what is watched to where its models have it."""
        self._look_again = True
        if self._looking:
            return  # a change of our own: the loop below sees to it
        self._looking = True
        try:
            while self._look_again:
                self._look_again = False
                for key, config in list(self._watched.items()):
                    self._consider(key, config)
        finally:
            self._looking = False

    def _consider(self, key: Key, config: ModelConfig) -> None:
        name, version = key
        entry = self._registry.entry(name)
        status = entry.statuses.get(version)
        serving = entry.loaded.get(version)
        if isinstance(serving, EnsembleVersion):
            if serving.config is not config and version not in entry.successors and self._replace(serving, config):
                return
            try:
                members = self._members(serving.config, serving.members)
            except LoadFailed as error:
                self._take_down(serving, str(error))
                return
            if members is not serving.members:
                serving.members = members
                self._look_again = True  # others may have this ensemble in them
        elif status is not None and status.state is State.UNAVAILABLE:
            try:
                members = self._members(config)
            except LoadFailed as error:
                self._registry.explain(name, version, str(error))
                return
            self._registry.set_state(name, version, State.LOADING)
            self._registry.set_ready(name, self._make(config, version, members))
            log.info("model '%s' version %d is READY again: its models are", name, version)

    def _replace(self, serving: EnsembleVersion, config: ModelConfig) -> bool:
        """Let another configuration, whose models were not there when it came, take over now that they are."""
        key = config.name, serving.version
        try:
            fresh = self._make(config, serving.version, self._members(config))
        except LoadFailed:
            return False
        self._registry.begin_reload(*key)
        self._registry.take_over(config.name, fresh)
        log.info("model '%s' version %d is loaded anew: its models are READY", *key)
        self._keep(key, serving.drain())
        return True

    def _take_down(self, ensemble: EnsembleVersion, reason: str) -> None:
        key = ensemble.config.name, ensemble.version
        log.error("model '%s' version %d is taken down: %s", *key, reason)
        self._registry.set_state(*key, State.DRAINING, reason)
        self._keep(key, self._drain(ensemble, reason))

    async def _drain(self, ensemble: EnsembleVersion, reason: str) -> None:
        await ensemble.drain()
        self._registry.set_state(ensemble.config.name, ensemble.version, State.UNAVAILABLE, reason)

    def _keep(self, key: Key, drain: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(drain)
        self._drains[task] = key
        task.add_done_callback(self._drains.pop)

    def _members(self, config: ModelConfig, before: Members | None = None) -> Members:
        """The models of an ensemble's steps as they serve now; `before` itself where they are the same.

        Raises `LoadFailed`.
        """
        schedule = _schedule(config)
        found = tuple(self._find(config.name, step.model, step.version) for step in schedule.steps)
        inside: dict[Served, tuple[EnsembleVersion, Members]] = {
            member: (member, member.members) for member in found if isinstance(member, EnsembleVersion)
        }
        if before is not None and (found, inside) == (before.by_step, before.inside):
            return before
        depth = 1 + max(self._depth(member) for member in found)
        if depth > MAX_DEPTH:
            raise LoadFailed(f"ensemble '{config.name}' is {depth} ensembles deep; {MAX_DEPTH} are allowed")
        try:
            check_members(config, schedule.steps, [member.config for member in found])
        except FieldInvalid as error:
            raise LoadFailed(f"ensemble '{config.name}': {error}") from None
        if config.response_cache:
            _check_cacheable(config, found)
        ranks = tuple(
            tuple(_rank(member.config, name) for name, _ in step.inputs)
            for step, member in zip(schedule.steps, found, strict=True)
        )
        return Members(found, ranks, dict(_labels(schedule, found)), inside)

    def _find(self, ensemble: str, name: str, version: int | None) -> Served:
        """A model that serves. Raises `LoadFailed`."""
        entry = self._registry.entry(name) if self._registry.has(name) else None
        found = None if entry is None else entry.latest if version is None else entry.loaded.get(version)
        if found is not None:
            return found
        cycle = self._cycle(ensemble, name)
        if cycle:
            raise LoadFailed(f"circular dependency between ensembles: {' -> '.join(cycle)}")
        if entry is None:
            raise LoadFailed(f"ensemble {ensemble} contains models that are not available or ambiguous: {name}")
        what = "has no loaded version" if version is None else f"has no version {version} that is loaded"
        reasons = [entry.problem, *(s.reason for v, s in sorted(entry.statuses.items()) if version in (None, v))]
        why = next((f": {reason}" for reason in reasons if reason), "")
        raise LoadFailed(f"ensemble '{ensemble}' depends on '{name}', which {what}{why}")

    def _cycle(self, ensemble: str, name: str) -> list[str]:
        """The way from an ensemble, over its model `name`, back to itself; [] where there is none."""
        paths, seen = [[ensemble, name]], {name}
        while paths:
            path = paths.pop()
            for model in self._models_of(path[-1]):
                if model == ensemble:
                    return [*path, model]
                if model not in seen:
                    seen.add(model)
                    paths.append([*path, model])
        return []

    def _depth(self, member: Served) -> int:
        """Ensembles inside each other, down from this one."""
        return 1 + max(map(self._depth, member.members.by_step)) if isinstance(member, EnsembleVersion) else 0

    def _models_of(self, name: str) -> Iterator[str]:
        """The models of an ensemble's steps, each once; none where it is no ensemble."""
        found = (_schedule(config).models for (other, _), config in self._watched.items() if other == name)
        return iter(dict.fromkeys(model for models in found for model in models))

    def _users(self, model: str) -> list[str]:
        """The ensembles that have a step of this model."""
        return [name for (name, _), config in self._watched.items() if model in _schedule(config).models]


def _schedule(config: ModelConfig) -> EnsembleSchedule:
    assert config.load.ensemble is not None, "only ensembles are watched"
    return config.load.ensemble


def _check_cacheable(config: ModelConfig, members: Collection[Served]) -> None:
    """Check that answers depend on nothing but inputs. Raises `LoadFailed`."""
    for member in members:
        if isinstance(member, EnsembleVersion):
            _check_cacheable(config, member.members.by_step)
        elif member.config.sequence is not None:
            raise LoadFailed(
                f"ensemble '{config.name}': field 'response_cache.enable' cannot go with sequence_batching of model "
                f"'{member.config.name}': answers depend on what came before; remove one of the two"
            )


def _rank(config: ModelConfig, name: str) -> int:
    """The dimensions of a model's input, the batch axis among them; 0 where it takes pictures, of several ranks."""
    if config.preprocessing is not None and config.preprocessing.input == name:
        return 0
    (dims,) = (tensor.dims for tensor in config.inputs if tensor.name == name)
    return len(dims) + (config.max_batch_size > 0)


def _labels(schedule: EnsembleSchedule, found: Collection[Served]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """For every tensor that a step writes: the class names that its model has for it."""
    for step, member in zip(schedule.steps, found, strict=True):
        inner: Mapping[str, tuple[str, ...]] = member.members.labels if isinstance(member, EnsembleVersion) else {}
        own = {tensor.name: tensor.labels for tensor in member.config.outputs}
        for name, tensor in step.outputs:
            yield tensor, own[name] or inner.get(name, ())
