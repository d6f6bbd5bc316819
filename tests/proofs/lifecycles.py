"""A model that is loaded, loaded anew and unloaded while requests come, leave, run and end, in any order.

Real: the engine, the registry, the loader's steps, turns at a model, and the version with its batcher and its drain.
Puppets: the lanes, and what opening a version takes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from server.engine import Engine
from server.errors import ConvoyError, LoadFailed
from server.malloc import give_back_freed_memory
from server.messages import InferenceResponse
from server.models.execution import BatchResult, Executor, Run
from server.models.instances import Instances
from server.models.intents import Intents
from server.models.lifecycle import State
from server.models.loader import Loader, Origin
from server.models.model import LoadedVersion
from server.models.registry import Registry
from server.models.repository import ModelFolder
from server.models.work import Pending, Work
from server.scheduling.budget import ByteBudget
from server.scheduling.turns import Turns
from server.statistics import BatchTimes
from tests.fakes import PuppetBackend, PuppetClock, PuppetSession, fp32
from tests.proofs.exploring import Move
from tests.proofs.loops import ManualLoop
from tests.unit.loaded import batching_config, request

CONFIG = batching_config(max_batch_size=2)
SESSION = PuppetSession([fp32("x", -1, -1)], [fp32("y", -1, -1), fp32("z", -1, -1)], dict)
TIMES = BatchTimes(0, 0, 0, 0)


class ManualLane:
    """Runs one batch until it is told to end."""

    def __init__(self) -> None:
        self.batch: Sequence[Work] = ()
        self.done: Callable[[Any], None] | None = None
        self.closed = False

    def submit(self, batch: Sequence[Work], done: Callable[[Any], None]) -> None:
        assert not self.closed, "a batch was given to a version that is drained"
        assert self.done is None, "a lane was given a batch while it ran another"
        self.batch, self.done = batch, done

    def end(self, well: bool) -> None:
        assert self.done is not None
        done, batch, self.batch, self.done = self.done, self.batch, (), None
        if well:
            answers = [InferenceResponse("m", "1", work.request.request_id, []) for work in batch]
            done(BatchResult(list(answers), [Run(TIMES, len(batch), batch, len(batch))], 0))
        else:
            done(RuntimeError("the run failed"))

    def close(self) -> None:
        assert self.done is None and not self.closed, "a lane was closed while it ran, or twice"
        self.closed = True


class ManualInstances(Instances):
    """One instance, whose lane is a puppet."""

    lane: ManualLane

    def _lane(self, index: int, executor: Executor, is_tiny: object) -> ManualLane:  # type: ignore[override]
        self.lane = ManualLane()
        return self.lane


class Version(LoadedVersion):
    """A loaded version whose lane is a puppet."""

    _instances_of = ManualInstances

    @property
    def lane(self) -> ManualLane:
        assert isinstance(self._instances, ManualInstances)
        return self._instances.lane


class ManualLoader(Loader):
    """A loader whose files are opened when a test says so."""

    def __init__(self, registry: Registry, clock: PuppetClock) -> None:
        super().__init__(
            registry,
            PuppetBackend(),
            clock,
            default_max_batch_size=2,
            autocomplete=True,
            config_name="",
            threads=1,
            retries=0,
            budget=ByteBudget(1 << 20),
            tiny_batch_seconds=0.0,
            summaries=False,
            run_timeout_ms=0,
            load_timeout_secs=0.0,
            turns=Turns(),
            store=None,
        )
        self.opening: asyncio.Future[bool] | None = None
        self.versions: list[Version] = []

    async def run(self, function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """Freed memory is not given back here."""
        assert function is give_back_freed_memory, f"{function} should be a puppet"

    async def _open(self, origin: Origin, version: int, *, must_work: bool = False) -> Version:
        assert self.opening is None, "two loads of one model at once"
        self.opening = asyncio.get_running_loop().create_future()
        well = await self.opening
        self.opening = None
        if not well:
            raise LoadFailed("the file is broken")
        statistics = self._registry.statistics("m", version)
        self.versions.append(Version(CONFIG, version, [SESSION], self._clock, statistics=statistics))
        return self.versions[-1]


class Caller:
    """Whoever asked for one inference."""

    def __init__(self, served: bool) -> None:
        self.served = served
        """Whether the model served when it asked."""
        self.pending: Pending | None = None
        self.answers: list[str] = []
        self.gone = False

    def __call__(self, answer: InferenceResponse | ConvoyError) -> None:
        assert not self.gone, "an answer came to a caller who had gone"
        assert not self.answers, "a request was answered twice"
        self.answers.append(type(answer).__name__)
        refused = isinstance(answer, ConvoyError) and "the run failed" not in str(answer)
        assert refused is not self.served, f"the model {'served' if self.served else 'was down'}: {answer}"


ORIGIN = Origin(ModelFolder("m", Path("/m"), (1,)))


class LifecycleSystem:
    """Model 'm' with version 1, which serves at first."""

    def __init__(self, requests: int, steps: int, failures: bool) -> None:
        """`requests` come at most, and `steps` of the control plane are asked for."""
        self.requests, self.steps, self.failures = requests, steps, failures
        self.loop = ManualLoop()
        self.clock = PuppetClock()
        self.registry = Registry()
        self.engine = Engine(self.registry)
        self.callers: list[Caller] = []
        self.intents = Intents()
        with self.loop.running():
            self.loader = ManualLoader(self.registry, self.clock)
            self.tasks = [self.loop.create_task(self._load())]
            self.loop.turn()
            self._opened("well")
            while self.loop.ready:
                self.loop.turn()

    def __enter__(self) -> LifecycleSystem:
        return self

    def __exit__(self, *_: object) -> None:
        self.loop.close()

    def moves(self) -> list[Move]:
        found: list[Move] = []
        if len(self.callers) < self.requests:
            found.append(("ask",))
        found += [("leave", i) for i, caller in enumerate(self.callers) if not caller.gone and not caller.answers]
        if self.loop.ready:
            found.append(("turn",))
        outcomes = ("well", "badly") if self.failures else ("well",)
        for number, version in enumerate(self.loader.versions):
            if version.lane.done is not None:
                found += [("end", number, outcome) for outcome in outcomes]
        if self.loader.opening is not None and not self.loader.opening.done():
            found += [("opened", outcome) for outcome in ("well", "badly")]
        if len(self.tasks) <= self.steps:
            found += [("load",), ("unload",)]
        return found

    def do(self, move: Move) -> None:
        with self.loop.running():
            getattr(self, f"_do_{move[0]}")(*move[1:])
        self.registry.statistics("m", 1).last_inference_ms = 0  # wall time would make every state a new one
        self.check()

    def settle(self) -> None:
        """Loads succeed, runs end and the loop turns until nothing is under way; then nothing may be left over."""
        with self.loop.running():
            for _ in range(200):
                if self.loop.ready:
                    self.loop.turn()
                elif busy := [version for version in self.loader.versions if version.lane.done is not None]:
                    busy[0].lane.end(well=True)
                elif self.loader.opening is not None and not self.loader.opening.done():
                    self._opened("well")
                else:
                    break
                self.check()
            else:
                raise AssertionError("it never settles")
        assert all(task.done() for task in self.tasks), "a step of the control plane never ends"
        lost = [i for i, caller in enumerate(self.callers) if not caller.gone and not caller.answers]
        assert not lost, f"requests {lost} are lost"
        for version in self.loader.versions:
            assert version.in_flight == version.pending == 0
            assert version.lane.closed is (version not in self.registry.loaded()), "a version was not let go"
        admitted = [caller for caller in self.callers if caller.served]
        statistics = self.registry.statistics("m", 1)
        counted = statistics.success.count + sum(statistics.failures.values())
        assert counted == len(admitted), f"{len(admitted)} requests were admitted, and {counted} are counted"

    def check(self) -> None:
        """What holds between any two moves."""
        (entry,) = self.registry
        for task in self.tasks:
            assert not task.done() or task.exception() is None, task.exception()
        serves = entry.statuses[1].state is State.READY
        assert serves is (1 in entry.loaded), "a version that is READY serves, and no other"
        for version in entry.loaded.values():
            assert isinstance(version, Version)
            assert not version.lane.closed, "a version serves that was let go"

    def _do_ask(self) -> None:
        caller = Caller(served=self.registry.serves("m"))
        self.callers.append(caller)
        caller.pending = self.engine.infer(request([1.0], request_id=str(len(self.callers))), caller)
        assert not (caller.answers and caller.pending), "a request was answered before it could be cancelled"

    def _do_leave(self, number: int) -> None:
        caller = self.callers[number]
        caller.gone = True
        assert caller.pending is not None
        caller.pending.cancel()

    def _do_turn(self) -> None:
        self.loop.turn()

    def _do_end(self, number: int, outcome: str) -> None:
        self.loader.versions[number].lane.end(outcome == "well")

    def _do_opened(self, outcome: str) -> None:
        self._opened(outcome)

    def _do_load(self) -> None:
        self.tasks.append(self.loop.create_task(self._load()))

    def _do_unload(self) -> None:
        self.tasks.append(self.loop.create_task(self._unload()))

    def _opened(self, outcome: str) -> None:
        assert self.loader.opening is not None
        self.loader.opening.set_result(outcome == "well")

    async def _load(self) -> None:
        async with self.intents.turn("m"):
            serves = self.registry.serves("m")
            await (self.loader.reload(ORIGIN, 1) if serves else self.loader.load(ORIGIN, 1))

    async def _unload(self) -> None:
        async with self.intents.turn("m"):
            for version in self.registry.loaded():
                await self.loader.unload(version)
