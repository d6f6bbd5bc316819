"""A loaded version of sequences on puppets: states, failures, silence, instances, and the end of the version."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from server import tensors
from server.errors import Cancelled, ConvoyError, ExecutionFailed, OutOfMemory, QueueTimeout, SequenceNotStarted
from server.messages import InferenceRequest, InferenceResponse, RequestedOutput, SequenceFlags, TensorSpec
from server.models.config import ModelConfig, TensorConfig
from server.models.config_sequences import MAX_STATE_BYTES
from server.models.config_types import ControlConfig, ControlKind, SequenceBatching, StateConfig
from server.models.model import LoadedVersion
from server.models.queueing import queue_policy
from server.models.sequence_execution import SequenceExecutor, make_executor, sequence_queue
from server.models.sequence_state import StateMemory
from server.models.warmup import warm_up, zeros
from server.models.work import Work
from server.scheduling.costs import WINDOW, CostTable
from server.scheduling.policy import LevelPolicy
from server.scheduling.sequence_policy import SequencePolicy
from server.tensors import Array
from tests.fakes import Gate, OneReply, PuppetClock, PuppetSession, fp32, model_config
from tests.unit.loaded import run, turn

X, Y, SHOWN = (TensorConfig(name, tensors.FP32, (1,)) for name in ("x", "y", "shown"))
IDLE_SECONDS = 2.0


def state(initial: float = 0.0) -> StateConfig:
    tensor = TensorConfig("in", tensors.FP32, (1,))
    return StateConfig(tensor, replace(tensor, name="out"), np.array([initial], np.float32))


def control(kind: ControlKind) -> ControlConfig:
    return ControlConfig(TensorConfig(kind.name, tensors.FP32, (1,)), kind, (0, 1))


def batching(*, slots: int = 4, fixed_slots: bool = True, initial: float = 0.0, **more: Any) -> SequenceBatching:
    controls = tuple(control(kind) for kind in (ControlKind.START, ControlKind.READY, ControlKind.END))
    return SequenceBatching(
        round(IDLE_SECONDS * 1e6), controls, (state(initial),), slots, fixed_slots, **{"min_ready": 1, **more}
    )


def config(sequence: SequenceBatching | None = None, **more: Any) -> ModelConfig:
    return model_config([X], [Y, SHOWN], **{"sequence": sequence or batching(), "max_batch_size": 4, **more})


class Model:
    """Adds up x. It fails where a row of x is `poison`, gives NaN where one is `nan`, and shape (2, rows) for `shape`.

    While the gate is shut, no run ends.
    """

    POISON, NAN, SHAPE = 666.0, 667.0, 668.0

    def __init__(
        self,
        configuration: ModelConfig | None = None,
        tiny_batch_seconds: float = 0.0,
        costs: CostTable | None = None,
    ) -> None:
        self.config = configuration or config()
        self.gate = Gate()
        self.open = True
        self.given: list[dict[str, list[float]]] = []
        """What each run was given, one number a row."""
        self.error: Exception = ValueError("poison")
        self.most = 4
        """Requests that a run finds memory for."""
        self.clock = PuppetClock(now=1000)
        names = ("x", "in", "START", "READY", "END")
        self.sessions = [
            PuppetSession([fp32(name, -1, 1) for name in names], [fp32(name, -1, 1) for name in ("y", "out")], self.run)
            for _ in range(self.config.load.instance_count)
        ]
        self.threads: list[int] = []
        self.version = LoadedVersion(
            self.config, 1, self.sessions, self.clock, tiny_batch_seconds=tiny_batch_seconds, costs=costs
        )

    def run(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        self.threads.append(threading.get_ident())
        if not self.open:
            self.gate.wait()
        self.given.append({name: array.ravel().tolist() for name, array in inputs.items()})
        x, total = np.array(inputs["x"], np.float32), np.array(inputs["in"], np.float32)
        if self.POISON in x:
            raise self.error
        if inputs["READY"].sum() > self.most:
            raise OutOfMemory("none left")
        total += x
        out = np.concatenate([total, total]) if self.SHAPE in x else total
        return {"y": np.where(x == self.NAN, np.float32(np.nan), total), "shown": x, "out": out}

    def submit(
        self, x: float, sequence_id: int | str = 1, flags: str = "", outputs: Sequence[str] = ("y",), **more: Any
    ) -> tuple[Work | None, OneReply]:
        """Send a request; `flags` holds "s" where it starts, and "e" where it ends a sequence."""
        reply = OneReply()
        request = InferenceRequest(
            "m",
            "",
            "r",
            (TensorSpec("x", "FP32", (1, 1)),),
            (np.float32(x).tobytes(),),
            tuple(RequestedOutput(name) for name in outputs),
            sequence=SequenceFlags(sequence_id, "s" in flags, "e" in flags),
            **more,
        )
        return self.version.submit(request, reply), reply

    async def ask(self, x: float, sequence_id: int | str = 1, flags: str = "") -> float:
        """The answer to a request."""
        return y_of(await self.submit(x, sequence_id, flags)[1].response())

    async def refused(self, x: float, sequence_id: int | str = 1, flags: str = "") -> ConvoyError:
        return await self.submit(x, sequence_id, flags)[1].error()

    async def busy(self) -> OneReply:
        """Let a batch of a sequence of its own run until the gate opens."""
        self.open = False
        reply = self.submit(0, "busy", "se")[1]
        await turn()
        assert self.version.pending == 0
        return reply

    def release(self) -> None:
        self.open = True
        self.gate.open(1)


def y_of(response: InferenceResponse) -> float:
    return float(response.outputs[0].data.item())


STRATEGIES = {"direct": batching(), "oldest": batching(fixed_slots=False, min_ready=0, slots=6)}
FEW = {"few candidates": batching(fixed_slots=False, min_ready=0, slots=3)}


@pytest.mark.parametrize("strategy", STRATEGIES.values(), ids=STRATEGIES)
def test_a_run_that_fails_leaves_the_sequence_where_it_was(strategy: SequenceBatching) -> None:
    async def test() -> None:
        model = Model(config(strategy, parameters={"fail_on_nan": "true"}))
        assert await model.ask(5, flags="s") == 5
        for x in (Model.POISON, Model.NAN, Model.SHAPE):
            assert isinstance(await model.refused(x), ExecutionFailed)
        assert await model.ask(2) == 7
        await model.version.drain()

    run(test)


@pytest.mark.parametrize("strategy", STRATEGIES.values(), ids=STRATEGIES)
@pytest.mark.parametrize(("error", "told"), [(ValueError, ExecutionFailed), (OutOfMemory, OutOfMemory)])
def test_the_guilty_of_a_batch_fails_alone_and_nobody_is_counted_twice(
    strategy: SequenceBatching, error: type[Exception], told: type[ConvoyError]
) -> None:
    async def test() -> None:
        model = Model(config(strategy))
        model.error = error("poison")
        for key in "abc":
            await model.ask(1, key, "s")
        busy = await model.busy()
        replies = [model.submit(x, key)[1] for key, x in zip("cab", (10, Model.POISON, 30), strict=True)]
        model.release()
        await busy.response()
        first, second, third = replies
        assert y_of(await first.response()) == 11
        assert isinstance(await second.error(), told)
        assert y_of(await third.response()) == 31
        assert [await model.ask(1, key) for key in "abc"] == [2, 32, 12]
        assert model.version.max_batch_rows == 4
        await model.version.drain()

    run(test)


def test_what_runs_counts_though_its_caller_leaves_and_its_batch_fails() -> None:
    async def test() -> None:
        model = Model()
        busy = await model.busy()
        left, _ = model.submit(5, "a", "s")
        guilty = model.submit(Model.POISON, "b", "s")[1]
        model.gate.open(1)
        await busy.response()
        await turn()
        assert left is not None
        assert model.version.pending == 0
        left.cancel()
        model.release()
        assert isinstance(await guilty.error(), ExecutionFailed)
        assert await model.ask(2, "a") == 7
        await model.version.drain()

    run(test)


@pytest.mark.parametrize(("strategy", "limit"), [("direct", 4), ("oldest", 1)])
def test_only_batches_that_can_be_smaller_are_made_so_where_memory_is_short(strategy: str, limit: int) -> None:
    async def test() -> None:
        model = Model(config(STRATEGIES[strategy]))
        for key in "ab":
            await model.ask(1, key, "s")
        model.most = 1
        busy = await model.busy()
        replies = [model.submit(10, key)[1] for key in "ba"]
        model.release()
        await busy.response()
        assert [y_of(await reply.response()) for reply in replies] == [11, 11]
        assert model.version.max_batch_rows == limit
        await model.version.drain()

    run(test)


def test_a_full_batch_whose_requests_came_in_another_order_than_their_slots() -> None:
    async def test() -> None:
        model = Model()
        for x, key in enumerate("abc"):
            await model.ask(x, key, "s")
        busy = await model.busy()
        replies = [model.submit(x, key)[1] for key, x in (("c", 10), ("a", 20), ("b", 30))]
        model.release()
        await busy.response()
        assert [y_of(await reply.response()) for reply in replies] == [12, 20, 31]
        assert [await model.ask(0, key) for key in "abc"] == [20, 31, 12]
        await model.version.drain()

    run(test)


@pytest.mark.parametrize("max_batch_size", [4, 1])
def test_a_start_begins_anew(max_batch_size: int) -> None:
    async def test() -> None:
        model = Model(config(batching(slots=max_batch_size, initial=100), max_batch_size=max_batch_size))
        assert [await model.ask(1, flags=flags) for flags in ("s", "", "s", "e")] == [101, 102, 101, 102]
        await model.version.drain()

    run(test)


@pytest.mark.parametrize("strategy", STRATEGIES.values(), ids=STRATEGIES)
def test_sequences_that_begin_in_one_batch_know_nothing_of_those_before(strategy: SequenceBatching) -> None:
    async def test() -> None:
        model = Model(config(replace(strategy, states=(state(100),))))
        for keys in ("abc", "def"):
            busy = await model.busy()
            replies = [model.submit(x, key, "se")[1] for x, key in enumerate(keys)]
            model.release()
            await busy.response()
            assert [y_of(await reply.response()) for reply in replies] == [100, 101, 102]
        assert len(model.given[-1]["x"]) >= 3, "they shared a run"
        await model.version.drain()

    run(test)


def test_an_id_is_the_same_with_a_sign_and_without() -> None:
    async def test() -> None:
        model = Model()
        await model.ask(1, -1, "s")
        assert await model.ask(1, 2**64 - 1) == 2
        await model.version.drain()

    run(test)


def test_rows_between_are_given_a_request_that_is_there_and_are_nobodys() -> None:
    async def test() -> None:
        model = Model(config(batching(initial=50)))
        for key in "abc":
            await model.ask(1, key, "s")
        assert await model.ask(7, "c", "e") == 58
        assert model.given[-1] == {
            "x": [7, 7, 7],
            "in": [51, 51, 51],
            "START": [0, 0, 0],
            "READY": [0, 0, 1],
            "END": [0, 0, 1],
        }
        assert [await model.ask(0, key) for key in "ab"] == [51, 51]
        statistics = model.version.statistics
        assert statistics.inference_count == statistics.success.count == 6
        await model.version.drain()

    run(test)


def test_the_oldest_are_together_whichever_slots_they_have() -> None:
    async def test() -> None:
        model = Model(config(STRATEGIES["oldest"]))
        for i in range(6):
            if i != 3:
                await model.ask(i, i + 1, "s")
        busy = await model.busy()
        replies = [model.submit(10, key)[1] for key in (6, 2, 3)]
        model.release()
        await busy.response()
        assert [y_of(await reply.response()) for reply in replies] == [15, 11, 12]
        assert model.given[-1]["in"] == [5, 1, 2]
        assert [await model.ask(0, key) for key in (1, 2, 3, 5, 6)] == [0, 11, 12, 4, 15]
        await model.version.drain()

    run(test)


def test_a_state_is_kept_whatever_outputs_are_asked_for() -> None:
    async def test() -> None:
        model = Model()
        response = await model.submit(3, flags="s", outputs=("shown",))[1].response()
        assert [output.name for output in response.outputs] == ["shown"]
        assert await model.ask(4) == 7
        await model.version.drain()

    run(test)


def test_silence_ends_a_sequence_at_its_moment_and_not_before() -> None:
    async def test() -> None:
        model = Model()
        await model.ask(1, flags="s")
        model.clock.advance(IDLE_SECONDS - 0.001)
        assert await model.ask(1) == 2
        model.clock.advance(IDLE_SECONDS - 0.001)
        assert model.version.sequences() == (4, 1, 0)
        model.clock.advance(0.001)
        assert model.version.sequences() == (4, 0, 0)
        assert model.version.statistics.reclaimed_sequences == 1
        error = await model.refused(1)
        assert isinstance(error, SequenceNotStarted)
        assert str(error) == (
            "[request id: r] inference request for sequence 1 to model 'm' must specify the START flag on the first "
            "request of the sequence"
        )
        assert await model.ask(9, flags="s") == 9
        await model.version.drain()

    run(test)


def test_a_sequence_that_waits_for_its_answer_is_not_silent() -> None:
    async def test() -> None:
        model = Model()
        await model.ask(1, flags="s")
        model.open = False
        _, reply = model.submit(2)
        await turn()
        model.clock.advance(10 * IDLE_SECONDS)
        model.release()
        assert y_of(await reply.response()) == 3
        assert await model.ask(3) == 6
        await model.version.drain()

    run(test)


def test_a_request_that_is_cancelled_is_skipped() -> None:
    async def test() -> None:
        model = Model()
        busy = await model.busy()
        works = [model.submit(x, "a", "s" if x == 1 else "") for x in (1, 2, 4)]
        for work, _ in works[:2]:
            assert work is not None
            work.cancel()
        model.release()
        await busy.response()
        assert y_of(await works[2][1].response()) == 4
        assert model.given[-1]["START"] == [0, 1], "it has the second slot"
        assert model.version.statistics.failures[Cancelled.reason] == 2
        await model.version.drain()

    run(test)


def test_a_request_whose_time_is_over_is_skipped() -> None:
    async def test() -> None:
        model = Model()
        await model.ask(1, "a", "s")
        busy = await model.busy()
        _, late = model.submit(2, "a", timeout_us=5000)
        _, after = model.submit(4, "a")
        model.clock.advance(0.005)
        assert isinstance(await late.error(), QueueTimeout)
        model.release()
        await busy.response()
        assert y_of(await after.response()) == 5
        await model.version.drain()

    run(test)


def test_a_sequence_stays_on_its_instance() -> None:
    async def test() -> None:
        model = Model(config(batching(slots=2), instances=3, max_batch_size=2))
        for i in range(1, 7):
            await model.ask(i, i, "s")
        assert [len(session.shapes) for session in model.sessions] == [2, 2, 2]
        for _ in range(3):
            await model.ask(1, 4)
        assert sorted(len(session.shapes) for session in model.sessions) == [2, 2, 5]
        assert [await model.ask(0, i) for i in range(1, 7)] == [1, 2, 3, 7, 5, 6]
        await model.version.drain()

    run(test)


def test_all_that_was_accepted_is_answered_before_a_version_goes() -> None:
    async def test() -> None:
        model = Model(config(batching(slots=1), max_batch_size=1))
        await model.ask(1, "a", "s")
        replies = [model.submit(x, key, flags)[1] for x, key, flags in ((1, "b", "s"), (2, "b", ""), (5, "c", "s"))]
        assert model.version.sequences() == (1, 1, 2)
        await model.version.drain()
        assert [y_of(await reply.response()) for reply in replies] == [1, 3, 5]
        assert model.version.in_flight == 0

    run(test)


@pytest.mark.parametrize("strategy", (STRATEGIES | FEW).values(), ids=STRATEGIES | FEW)
@pytest.mark.parametrize("pad_to_bucket", [True, False])
def test_every_batch_size_is_measured_before_a_version_serves(strategy: SequenceBatching, pad_to_bucket: bool) -> None:
    async def test() -> None:
        model = Model(config(strategy, pad_to_bucket=pad_to_bucket))
        table = warm_up(model.config, 1, model.sessions[0], "m/config.pbtxt", lambda _: b"")
        assert table.calibrated
        assert {len(given["x"]) for given in model.given} == {1, 2, 4}
        assert all(given["START"] == given["READY"] == given["END"] for given in model.given)
        await model.version.drain()

    run(test)


def test_a_batch_is_filled_up_where_sizes_are_few() -> None:
    async def test() -> None:
        for strategy in STRATEGIES.values():
            model = Model(config(replace(strategy, states=(state(50),)), pad_to_bucket=True))
            for key in "abc":
                await model.ask(1, key, "s")
            replies = [model.submit(10, key)[1] for key in "abc"]
            assert [y_of(await reply.response()) for reply in replies] == [61, 61, 61]
            assert model.given[-1]["READY"] == [1, 1, 1, 0]
            assert model.given[-1]["in"] == [51, 51, 51, 50 if strategy.fixed_slots else 51]
            await model.version.drain()

    run(test)


@pytest.mark.parametrize("max_batch_size", [4, 1])
def test_where_one_state_cannot_be_kept_none_is(max_batch_size: int) -> None:
    states = tuple(StateConfig(replace(X, name=name), replace(Y, name=name), np.zeros(1, np.float32)) for name in "ab")
    memory = StateMemory(replace(batching(), states=states), max_batch_size)
    with pytest.raises(ExecutionFailed, match=r"returned shape \[1, 2\] for state 'b', not \[1, 1\]"):
        memory.keep([0], [0], 1, [np.ones((1, 1), np.float32), np.ones((1, 2), np.float32)])
    assert {name: rows.tolist() for name, rows in memory.inputs([0]).items()} == {"a": [[0]], "b": [[0]]}


@pytest.mark.parametrize("max_batch_size", [1, 0])
def test_a_state_goes_with_its_sequence(max_batch_size: int) -> None:
    memory = StateMemory(batching(slots=3, initial=7), max_batch_size)
    output = np.array([8], np.float32).reshape((1, 1) if max_batch_size else (1,))
    memory.begin(2)
    memory.keep([2], [0], 1, [output])
    assert memory.inputs([2])["in"] is output, "what a run gave is passed on as it is"
    memory.forget(2)
    assert memory.inputs([2])["in"].tolist() == np.full_like(output, 7).tolist()


def test_a_queue_of_sequences_lets_go_of_their_states() -> None:
    configuration = config(batching(slots=1), max_batch_size=1)
    session = PuppetSession([], [], lambda inputs: inputs)
    executor = make_executor(configuration, 1, session)
    assert isinstance(executor, SequenceExecutor)
    policy = queue_policy(configuration)
    assert isinstance(policy, SequencePolicy)
    queue = sequence_queue(configuration, policy, [executor], None, lambda: None)
    executor.memory.keep([0], [0], 1, [np.array([[8]], np.float32)])
    work = zeros(configuration)
    work.request.sequence = SequenceFlags(1, start=True, end=True)
    queue.put(work)
    queue.ended(queue.take(0.0), 0.0)
    assert executor.memory.inputs([0])["in"].tolist() == [[0]]
    assert queue.counts() == (1, 0, 0)


def test_a_state_may_not_grow_without_end() -> None:
    growing = TensorConfig("in", tensors.FP32, (-1,))
    grown = StateConfig(growing, replace(growing, name="out"), np.zeros(1, np.float32))
    memory = StateMemory(replace(batching(slots=MAX_STATE_BYTES // 8), states=(grown,)), 1)
    memory.keep([0], [0], 1, [np.zeros((1, 2), np.float32)])
    with pytest.raises(ExecutionFailed, match="state 'out' has grown to 12 bytes; 8 is the most"):
        memory.keep([0], [0], 1, [np.zeros((1, 3), np.float32)])


def test_what_a_configuration_says_is_what_the_queue_does() -> None:
    direct = queue_policy(config(batching(min_ready=3, max_queue_delay_us=500)))
    assert direct == SequencePolicy(4, (LevelPolicy(1024),), max_delay=0.0005, slots=4, max_idle=2.0, min_ready=3)
    oldest = batching(
        slots=9,
        fixed_slots=False,
        min_ready=0,
        max_queue_delay_us=500,
        preferred_batch_sizes=(2, 3),
        preserve_ordering=True,
    )
    assert queue_policy(config(oldest)) == SequencePolicy(
        4, (LevelPolicy(1024),), preferred_rows=(2, 3), max_delay=0.0005, slots=9, max_idle=2.0, in_order=True
    )


@pytest.mark.parametrize(("key", "on_the_loop"), [("a", True), ("d", False)])
def test_a_batch_runs_on_the_event_loop_if_all_its_rows_are_quick_those_between_included(
    key: str, on_the_loop: bool
) -> None:
    async def test() -> None:
        costs = CostTable((1, 2, 4))
        for rows, seconds in ((1, 0.001), (2, 0.001), (4, 10.0)):
            for _ in range(WINDOW):
                costs.observe(rows, seconds)
        model = Model(tiny_batch_seconds=0.1, costs=costs)
        for each in "abcd":
            await model.ask(1, each, "s")
        await model.ask(1, key)
        assert (model.threads[-1] == threading.get_ident()) is on_the_loop
        await model.version.drain()

    run(test)


def test_the_states_go_with_the_version_whoever_holds_on_to_it() -> None:
    gone = threading.Event()

    async def test() -> None:
        model = Model()
        await model.ask(1, flags="s")
        (memory,) = [each for each in gc.get_objects() if type(each) is StateMemory]
        weakref.finalize(memory, gone.set)
        del memory
        await model.version.drain()
        assert await asyncio.to_thread(gone.wait, 20)
        assert model.version.sequences() == (4, 1, 0)

    gc.collect()
    run(test)
