"""A loaded version on puppets, for the tests of what surrounds it: its clock and its runs move when a test says so."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np

from server import tensors
from server.messages import InferenceRequest, InferenceResponse, RequestedOutput, TensorSpec
from server.models.cached import CachedVersion
from server.models.config import ModelConfig, QueuePolicy, TensorConfig, WindowBatching
from server.models.model import LoadedVersion
from server.models.work import Pending
from server.scheduling.budget import ByteBudget
from server.scheduling.costs import CostTable
from server.summaries import LatencySummaries
from server.tensors import Array
from tests.fakes import Gate, OneReply, PuppetClock, PuppetSession, fp32, model_config

X = TensorConfig("x", tensors.FP32, (-1,))
Y = TensorConfig("y", tensors.FP32, (-1,), labels=("zero", "one"))
Z = TensorConfig("z", tensors.FP32, (-1,))

Function = Callable[[Mapping[str, Array]], Mapping[str, Array]]


def doubled_and_negated(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
    return {"y": inputs["x"] * 2, "z": inputs["x"] * -1}


POLICY = frozenset(field.name for field in fields(QueuePolicy))


def batching_config(
    *,
    instances: int = 1,
    max_batch_size: int = 8,
    split_oversize: bool = False,
    parameters: Mapping[str, str] | None = None,
    pad_to_bucket: bool | None = None,
    objective_ms: float = 0.0,
    **batching: Any,
) -> ModelConfig:
    """A model of one input and two outputs that takes what is there whenever a lane is idle.

    Fields of `QueuePolicy` are those of its only level.
    """
    policy = {name: batching.pop(name) for name in POLICY & batching.keys()}
    window = WindowBatching(**{"levels": (QueuePolicy(**policy),), **batching})
    return model_config(
        [X],
        [Y, Z],
        batching=window,
        instances=instances,
        max_batch_size=max_batch_size,
        split_oversize=split_oversize,
        parameters=parameters,
        pad_to_bucket=pad_to_bucket,
        objective_ms=objective_ms,
    )


class Bench:
    """A version 3 of model 'm'. While `gate` is shut, no run ends: runs stay off the event loop, however short."""

    def __init__(
        self,
        config: ModelConfig | None = None,
        function: Function = doubled_and_negated,
        budget: ByteBudget | None = None,
        costs: CostTable | None = None,
        run_limit: float = 0.0,
        summaries: LatencySummaries | None = None,
        **cached: Any,
    ) -> None:
        """With `store` and `identity`, its answers are kept."""
        self.gate = Gate()
        self.clock = PuppetClock(now=1000)

        def gated(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
            self.gate.wait()
            return function(inputs)

        self.session = PuppetSession([fp32("x", -1, -1)], [fp32("y", -1, -1), fp32("z", -1, -1)], gated)
        config = config or batching_config()
        sessions = [self.session] * config.load.instance_count
        make = CachedVersion if cached else LoadedVersion
        self.version = make(
            config,
            3,
            sessions,
            self.clock,
            budget=budget,
            tiny_batch_seconds=0.0,
            costs=costs,
            run_limit=run_limit,
            summaries=summaries,
            **cached,
        )

    def submit(self, *rows: Sequence[float], **more: Any) -> tuple[Pending | None, OneReply]:
        """Send a request of these rows."""
        reply = OneReply()
        return self.version.submit(request(*rows, **more), reply), reply

    async def keep_busy(self) -> OneReply:
        """Put a request on the lane that stays there until the gate opens."""
        _, reply = self.submit([0.0], request_id="busy")
        await turn()
        assert self.version.pending == 0
        return reply

    async def finish(self) -> None:
        """Open the gate for good, and wait until everything is answered."""
        self.gate.open(10_000)
        await self.version.drain()
        await turn()


def request(
    *rows: Sequence[float], request_id: str = "", outputs: Sequence[RequestedOutput] = (), **more: Any
) -> InferenceRequest:
    data = np.array(rows, dtype=np.float32)
    spec = TensorSpec("x", "FP32", data.shape)
    return InferenceRequest("m", "", request_id, (spec,), (data.tobytes(),), tuple(outputs), **more)


def values(response: InferenceResponse) -> dict[str, list[Any]]:
    """Outputs by name."""
    for output in response.outputs:
        assert output.shape == output.data.shape
    return {output.name: output.data.tolist() for output in response.outputs}


async def turn() -> None:
    """Let the event loop run what is ready."""
    for _ in range(3):
        await asyncio.sleep(0)


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run on the real loop, because lanes are threads; 30 seconds would mean that an answer never comes."""

    async def main() -> None:
        async with asyncio.timeout(60):
            await test()

    asyncio.run(main())
