"""Ensembles on puppet models: a request of a step waits until the test answers it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from hypothesis import strategies as st

from server import tensors
from server.errors import ConvoyError
from server.messages import InferenceRequest, InferenceResponse, OutputTensor, RequestedOutput, TensorSpec
from server.models.cached import CachedEnsemble
from server.models.cards import NO_CARD
from server.models.config import ModelConfig, TensorConfig
from server.models.config_types import EnsembleSchedule, EnsembleStep
from server.models.ensemble_model import EnsembleVersion
from server.models.ensemble_run import Members
from server.models.work import Reply
from server.scheduling.budget import ByteBudget
from server.scheduling.costs import CostTable
from server.statistics import VersionStatistics
from server.summaries import SummarySlices
from tests.fakes import OneReply, PuppetClock, load_settings, model_config


def step(model: str, inputs: Mapping[str, str], outputs: Mapping[str, str], version: int | None = None) -> EnsembleStep:
    """The maps are from the model's tensors to the ensemble's."""
    return EnsembleStep(model, version, tuple(inputs.items()), tuple(outputs.items()))


def row(name: str, *dims: int, datatype: tensors.DataType = tensors.FP32, labels: Sequence[str] = ()) -> TensorConfig:
    return TensorConfig(name, datatype, dims or (1,), labels=tuple(labels))


def ensemble_config(
    steps: Sequence[EnsembleStep],
    inputs: Sequence[TensorConfig] = (row("x"),),
    outputs: Sequence[TensorConfig] = (row("y"),),
    *,
    name: str = "e",
    max_batch_size: int = 8,
    max_inflight_requests: int = 0,
) -> ModelConfig:
    """As `models.config` would hand it out."""
    config = model_config(inputs, outputs, name=name, max_batch_size=max_batch_size)
    schedule = EnsembleSchedule(tuple(steps), max_inflight_requests)
    return replace(config, platform="ensemble", load=replace(load_settings(), ensemble=schedule))


class PuppetWork:
    """A request that a `PuppetMember` was given."""

    def __init__(self, request: InferenceRequest, reply: Reply) -> None:
        self.request = request
        self.cancelled = False
        self._reply = reply

    def cancel(self) -> None:
        self.cancelled = True

    def answer(self, *arrays: np.ndarray[Any, Any]) -> None:
        """Answer with an FP32 array for each output that was asked for."""
        assert not self.cancelled, "nobody waits for this answer"
        outputs = [
            OutputTensor(output.name, tensors.FP32, array.shape, array)
            for output, array in zip(self.request.outputs, arrays, strict=True)
        ]
        self._reply(InferenceResponse(self.request.model_name, "1", self.request.request_id, outputs))

    def fail(self, error: ConvoyError) -> None:
        assert not self.cancelled, "nobody waits for this answer"
        self._reply(error)


class PuppetMember:
    """A `served.Served` that keeps what it is given. With `at_once`, it answers with that instead. With `refusal`, it
    takes nothing; any error that is not the server's own is a bug of its, and raised. `meanwhile` is called before."""

    def __init__(self, config: ModelConfig, version: int = 1) -> None:
        self.config = config
        self.version = version
        self.statistics = VersionStatistics()
        self.load_seconds = 0.0
        self.instances = 1
        self.costs = CostTable((1,))
        self.card = NO_CARD
        self.lost: ConvoyError | None = None
        self.refusal: Exception | None = None
        self.at_once: np.ndarray[Any, Any] | None = None
        self.meanwhile: Callable[[], object] | None = None
        self.given: list[PuppetWork] = []
        self.holds = 0

    pending = 0
    in_flight = 0
    max_batch_rows = 8

    def queue_age(self) -> float:
        return 0.0

    def latest(self) -> SummarySlices | None:
        return None

    def busy_seconds(self) -> Sequence[float]:
        return ()

    def submit(self, request: InferenceRequest, reply: Reply) -> PuppetWork | None:
        assert self.holds, "whoever submits holds the version"
        if self.meanwhile is not None:
            self.meanwhile()
        if isinstance(self.refusal, ConvoyError):
            reply(self.refusal)
            return None
        if self.refusal is not None:
            raise self.refusal
        if self.at_once is not None:
            PuppetWork(request, reply).answer(*[self.at_once for _ in request.outputs])
            return None
        self.given.append(PuppetWork(request, reply))
        return self.given[-1]

    def hold(self) -> Callable[[], None]:
        self.holds += 1
        return self._release

    def _release(self) -> None:
        self.holds -= 1
        assert self.holds >= 0

    def hurry(self) -> None:
        """Nothing waits here."""

    def cut_off(self) -> None:
        """Nothing is answered by itself here."""

    async def drain(self) -> None:
        """Nothing is left to be done here."""


def request(
    inputs: Mapping[str, Sequence[Sequence[float]]], *, outputs: Sequence[str] = (), **more: Any
) -> InferenceRequest:
    """FP32 rows for every input."""
    arrays = {name: np.array(rows, np.float32) for name, rows in inputs.items()}
    return InferenceRequest(
        "e",
        "",
        more.pop("request_id", ""),
        tuple(TensorSpec(name, "FP32", array.shape) for name, array in arrays.items()),
        tuple(array.tobytes() for array in arrays.values()),
        tuple(RequestedOutput(name) for name in outputs),
        **more,
    )


Graph = tuple[list[EnsembleStep], list[str], list[str]]
"""Steps, and the ensemble's inputs and outputs."""


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Ensembles without a fault. Step n is of model 'm<n>'; nothing is in the order in which it can run."""
    inputs = [f"in{n}" for n in range(draw(st.integers(1, 3)))]
    written: list[str] = []
    steps: list[EnsembleStep] = []
    for n in range(draw(st.integers(1, 7))):
        known = inputs + written
        reads = draw(st.lists(st.sampled_from(known), min_size=1, max_size=3))
        if n == 0:
            reads = reads + [tensor for tensor in inputs if tensor not in reads]
        writes = [f"t{n}.{i}" for i in range(draw(st.integers(1, 2)))]
        steps.append(
            step(f"m{n}", {f"i{i}": t for i, t in enumerate(reads)}, {f"o{i}": t for i, t in enumerate(writes)})
        )
        written += writes
    read = {tensor for each in steps for _, tensor in each.inputs}
    also = draw(st.sets(st.sampled_from(written)))
    outputs = [tensor for tensor in written if tensor not in read or tensor in also]
    return draw(st.permutations(steps)), inputs, outputs


CHAIN = [step("one", {"a": "x"}, {"b": "t"}), step("two", {"a": "t"}, {"b": "y"})]
DIAMOND = [
    step("top", {"a": "x"}, {"b": "t"}),
    step("left", {"a": "t"}, {"b": "l"}),
    step("right", {"a": "t"}, {"b": "r"}),
    step("bottom", {"a": "l", "b": "r"}, {"c": "y"}),
]


class Bench:
    """Version 1 of ensemble 'e', with a puppet for every model."""

    def __init__(
        self,
        steps: Sequence[EnsembleStep],
        outputs: Sequence[TensorConfig] = (row("y"),),
        *,
        inputs: Sequence[TensorConfig] = (row("x"),),
        members: Mapping[str, ModelConfig] | None = None,
        labels: Mapping[str, tuple[str, ...]] | None = None,
        limit: int = 0,
        budget: ByteBudget | None = None,
        max_batch_size: int = 8,
        **cached: Any,
    ) -> None:
        """With `store` and `identify`, its answers are kept."""
        self.clock = PuppetClock(now=1000)
        self.members = {each.model: PuppetMember((members or {}).get(each.model) or _member(each)) for each in steps}
        self._steps, self._labels = steps, dict(labels or {})
        make = CachedEnsemble if cached else EnsembleVersion
        self.version = make(
            ensemble_config(steps, inputs, outputs, max_batch_size=max_batch_size, max_inflight_requests=limit),
            1,
            self._found(),
            self.clock,
            budget,
            **cached,
        )

    def swap(self, model: str) -> PuppetMember:
        """Another load of a model takes over. Returns the one before."""
        old, self.members[model] = self.members[model], PuppetMember(self.members[model].config)
        self.version.members = self._found()
        return old

    def submit(self, *rows: Sequence[float], **more: Any) -> tuple[Any, OneReply]:
        reply = OneReply()
        return self.version.submit(request({"x": rows or [[1.0]]}, **more), reply), reply

    def work(self, model: str) -> PuppetWork:
        """The only request that a model was given."""
        (work,) = self.members[model].given
        return work

    def given(self) -> dict[str, int]:
        return {name: len(member.given) for name, member in self.members.items() if member.given}

    def _found(self) -> Members:
        found = tuple(self.members[each.model] for each in self._steps)
        ranks = tuple(
            tuple(_rank(member.config, name) for name, _ in each.inputs)
            for each, member in zip(self._steps, found, strict=True)
        )
        tensors = [tensor for each in self._steps for _, tensor in each.outputs]
        return Members(found, ranks, dict.fromkeys(tensors, ()) | self._labels)

    def check_idle(self) -> None:
        """Nothing is held, and nobody waits."""
        assert all(not member.holds for member in self.members.values())
        assert (self.version.in_flight, self.version.pending, self.version.queue_age()) == (0, 0, 0)


def _member(each: EnsembleStep) -> ModelConfig:
    return model_config(
        [row(name) for name, _ in each.inputs], [row(name) for name, _ in each.outputs], name=each.model
    )


def _rank(config: ModelConfig, name: str) -> int:
    (dims,) = (tensor.dims for tensor in config.inputs if tensor.name == name)
    return len(dims) + (config.max_batch_size > 0)


def array(*rows: float) -> np.ndarray[Any, Any]:
    return np.array(rows, np.float32).reshape(-1, 1)
