"""A loaded version: from admission to answer. Its lanes are real threads, its clock and its runs are the test's."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Mapping

import numpy as np
import pytest

from server import tensors
from server.errors import ExecutionFailed, InvalidRequest, Reason
from server.messages import InferenceRequest, InferenceResponse, RequestedOutput, TensorSpec
from server.models.admission import Plan
from server.models.config import TensorConfig
from server.models.model import LoadedVersion
from server.models.plans import REMEMBERED_PLANS
from server.scheduling.costs import ENOUGH
from server.tensors import Array
from tests.fakes import OneReply, PuppetClock, PuppetSession, fp32, model_config
from tests.unit.loaded import Bench, Y, batching_config, doubled_and_negated, request, run, turn, values


def test_everyone_gets_the_answer_to_their_own_rows() -> None:
    async def main() -> None:
        bench = Bench()
        busy = await bench.keep_busy()
        replies = [bench.submit(*[[float(n)]] * n, request_id=f"r{n}")[1] for n in (1, 2, 3)]
        await bench.finish()
        assert await busy.answer()
        for n, reply in zip((1, 2, 3), replies, strict=True):
            answer = await reply.response()
            assert (answer.model_name, answer.model_version, answer.request_id) == ("m", "3", f"r{n}")
            assert values(answer) == {"y": [[2.0 * n]] * n, "z": [[-1.0 * n]] * n}
        assert [shapes["x"] for shapes in bench.session.shapes] == [(1, 1), (6, 1)]

    run(main)


def test_requests_of_unlike_shapes_do_not_share_a_batch() -> None:
    async def main() -> None:
        bench = Bench()
        await bench.keep_busy()
        _, two = bench.submit([1.0, 2.0])
        _, three = bench.submit([1.0, 2.0, 3.0])
        await bench.finish()
        assert [shapes["x"] for shapes in bench.session.shapes] == [(1, 1), (1, 2), (1, 3)]
        assert values(await two.response())["y"] == [[2.0, 4.0]]
        assert values(await three.response())["y"] == [[2.0, 4.0, 6.0]]

    run(main)


def test_a_model_without_batching_runs_requests_one_by_one() -> None:
    async def main() -> None:
        bench = Bench(model_config([TensorConfig("x", tensors.FP32, (2,))], [Y]))
        replies = [bench.submit([n, n])[1] for n in (1.0, 2.0)]
        await bench.finish()
        assert [values(await reply.response())["y"] for reply in replies] == [[[2.0, 2.0]], [[4.0, 4.0]]]
        assert [shapes["x"] for shapes in bench.session.shapes] == [(1, 2), (1, 2)]

    run(main)


def test_a_model_without_a_batch_axis_is_given_the_shape_as_it_is() -> None:
    async def main() -> None:
        bench = Bench(model_config([TensorConfig("x", tensors.FP32, (2, 2))], [Y], max_batch_size=0))
        _, reply = bench.submit([1, 2], [3, 4])
        await bench.finish()
        assert values(await reply.response())["y"] == [[2.0, 4.0], [6.0, 8.0]]

    run(main)


def test_every_instance_runs_a_batch_of_its_own() -> None:
    async def main() -> None:
        bench = Bench(batching_config(instances=2))
        await bench.keep_busy()
        await bench.keep_busy()
        _, waiting = bench.submit([3.0])
        await turn()
        assert bench.version.pending == 1
        await bench.finish()
        assert await waiting.response()

    run(main)


def test_only_requested_outputs_are_answered_and_their_union_is_run() -> None:
    async def main() -> None:
        bench = Bench()
        await bench.keep_busy()
        _, z = bench.submit([1.0], outputs=[RequestedOutput("z")])
        _, y = bench.submit([2.0], outputs=[RequestedOutput("y")])
        await bench.finish()
        assert values(await z.response()) == {"z": [[-1.0]]}
        assert values(await y.response()) == {"y": [[4.0]]}
        assert bench.session.asked == [("y", "z"), ("z", "y")]

    run(main)


def test_an_output_that_nobody_wants_is_not_computed() -> None:
    async def main() -> None:
        bench = Bench()
        bench.submit([1.0], outputs=[RequestedOutput("z")])
        await bench.finish()
        assert bench.session.asked == [("z",)]

    run(main)


def test_classes_and_tensors_can_be_asked_for_in_one_batch() -> None:
    async def main() -> None:
        bench = Bench()
        await bench.keep_busy()
        _, classes = bench.submit([1.0, 4.0], request_id="c", outputs=[RequestedOutput("y", 1)])
        _, tensor = bench.submit([1.0, 4.0], outputs=[RequestedOutput("y")])
        await bench.finish()
        answer = await classes.response()
        assert values(answer) == {"y": [[b"8.000000:1:one"]]}
        assert answer.outputs[0].datatype is tensors.BYTES
        assert values(await tensor.response()) == {"y": [[2.0, 8.0]]}

    run(main)


def test_reshaped_outputs_come_in_the_shape_of_the_configuration() -> None:
    async def main() -> None:
        output = TensorConfig("y", tensors.FP32, (-1, 2, 1), reshape=(-1, 2))
        bench = Bench(
            model_config([TensorConfig("x", tensors.FP32, (1,), reshape=())], [output]),
            lambda inputs: {"y": np.stack([inputs["x"]] * 6, axis=1).reshape(-1, 3, 2)},
        )
        _, reply = bench.submit([5.0], [6.0])
        await bench.finish()
        assert bench.session.shapes == [{"x": (2,)}]
        assert (await reply.response()).outputs[0].shape == (2, 3, 2, 1)

    run(main)


def test_text_reaches_the_model_and_comes_back() -> None:
    async def main() -> None:
        words = TensorConfig("x", tensors.BYTES, (1,))
        bench = Bench(
            model_config([words], [TensorConfig("y", tensors.BYTES, (1,))]),
            lambda inputs: {"y": inputs["x"] + "!"},  # type: ignore[operator] # an object array of str
        )
        reply = OneReply()
        spec = TensorSpec("x", "BYTES", (2, 1))
        bench.version.submit(InferenceRequest("m", "", "", (spec,), (b"\1\0\0\0a\2\0\0\0\xc3\xa9",)), reply)
        await bench.finish()
        assert values(await reply.response()) == {"y": [["a!"], ["é!"]]}

    run(main)


def test_a_refusal_is_answered_at_once_and_takes_no_room() -> None:
    async def main() -> None:
        bench = Bench()
        reply = OneReply()
        wrong = InferenceRequest("m", "", "r", (TensorSpec("x", "FP64", (1, 1)),), (bytes(8),))
        assert bench.version.submit(wrong, reply) is None
        [error] = reply.answers
        assert isinstance(error, InvalidRequest)
        assert (bench.version.in_flight, bench.version.pending) == (0, 0)
        await bench.finish()

    run(main)


def test_a_refused_request_leaves_nothing_to_the_garbage_collector() -> None:
    async def main() -> None:
        bench = Bench()
        contents = np.zeros(2, np.float64)
        left = weakref.ref(contents)
        gc.collect()
        gc.disable()
        try:
            wrong = InferenceRequest("m", "", "r", (TensorSpec("x", "FP64", (1, 2)),), (contents,))
            reply = OneReply()
            assert bench.version.submit(wrong, reply) is None
            del contents, wrong
            assert left() is None
        finally:
            gc.enable()
        await bench.finish()

    run(main)


def test_a_run_that_raises_fails_only_the_request_that_makes_it_raise() -> None:
    async def main() -> None:
        def fragile(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
            if inputs["x"].max() > 1:
                raise RuntimeError("boom")
            return doubled_and_negated(inputs)

        bench = Bench(function=fragile)
        fine = await bench.keep_busy()
        _, bad = bench.submit([9.0])
        _, beside = bench.submit([1.0], [1.0])
        bench.gate.open(1 + 1 + 2)
        error = await bad.error()
        assert isinstance(error, ExecutionFailed)
        assert str(error) == "model 'm' version 3 failed to run: boom"
        assert values(await beside.response())["y"] == [[2.0], [2.0]]
        _, later = bench.submit([1.0])
        await bench.finish()
        assert await fine.response()
        assert await later.response()
        assert [shapes["x"][0] for shapes in bench.session.shapes] == [1, 3, 1, 2, 1]
        statistics = bench.version.statistics
        assert (statistics.inference_count, statistics.execution_count) == (1 + 2 + 1, 3)
        assert (statistics.success.count, statistics.fail.count, statistics.compute_infer.count) == (3, 1, 3)
        assert statistics.failures[Reason.BACKEND] == 1

    run(main)


def test_a_request_that_fails_alone_is_not_run_again() -> None:
    async def main() -> None:
        def broken(_: Mapping[str, Array]) -> Mapping[str, Array]:
            raise RuntimeError("boom")

        bench = Bench(function=broken)
        _, reply = bench.submit([9.0])
        await bench.finish()
        assert isinstance(await reply.error(), ExecutionFailed)
        assert len(bench.session.shapes) == 1

    run(main)


def test_a_request_whose_caller_left_is_not_run_again() -> None:
    async def main() -> None:
        def broken(_: Mapping[str, Array]) -> Mapping[str, Array]:
            raise RuntimeError("boom")

        bench = Bench(function=broken)
        busy = await bench.keep_busy()
        work, gone = bench.submit([1.0])
        _, stays = bench.submit([2.0])
        bench.gate.open()
        await busy.answer()
        assert work
        work.cancel()
        await bench.finish()
        assert isinstance(await stays.error(), ExecutionFailed)
        assert gone.answers == []
        assert len(bench.session.shapes) == 1 + 1 + 1
        assert bench.version.statistics.failures[Reason.CANCELLED] == 1
        assert bench.version.in_flight == 0

    run(main)


def test_another_number_of_rows_than_went_in_fails_the_batch() -> None:
    async def main() -> None:
        bench = Bench(function=lambda inputs: {"y": inputs["x"][:1], "z": inputs["x"]})
        _, reply = bench.submit([1.0], [2.0])
        await bench.finish()
        error = await reply.error()
        assert isinstance(error, ExecutionFailed)
        assert str(error) == "the model returned shape [1, 1] for output 'y' of a batch of 2 rows"

    run(main)


def test_one_answer_that_cannot_be_made_fails_alone() -> None:
    async def main() -> None:
        def odd(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
            return {"y": np.array([["a word", 1]] * len(inputs["x"]), dtype=object), "z": inputs["x"] * -1}

        bench = Bench(function=odd)
        await bench.keep_busy()
        _, ranked = bench.submit([1.0], outputs=[RequestedOutput("y", 1)])
        _, plain = bench.submit([1.0], outputs=[RequestedOutput("z")])
        await bench.finish()
        error = await ranked.error()
        assert isinstance(error, ExecutionFailed)
        assert str(error).startswith("model 'm' version 3 has no such answer: ")
        assert await plain.response()
        assert bench.version.in_flight == 0

    run(main)


def test_a_reply_that_raises_does_not_keep_the_others_from_theirs(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        def broken(_: object) -> None:
            raise RuntimeError("cannot be encoded")

        bench = Bench()
        await bench.keep_busy()
        bench.version.submit(request([1.0]), broken)
        _, reply = bench.submit([2.0])
        await bench.finish()
        assert isinstance(await reply.answer(), InferenceResponse)
        assert bench.version.in_flight == 0

    run(main)
    assert "an answer of model 'm' version 3 was not taken" in caplog.text


def test_plans_are_remembered_but_not_all_of_them() -> None:
    async def main() -> None:
        def plans() -> int:
            gc.collect()
            return sum(type(thing) is Plan for thing in gc.get_objects())

        before = plans()
        bench = Bench()
        bench.gate.open(10_000)
        for size in range(1, 2 * REMEMBERED_PLANS):
            _, reply = bench.submit([0.0] * size)
            await reply.response()
        assert plans() - before <= REMEMBERED_PLANS + 1
        await bench.finish()

    run(main)


def test_requests_share_a_batch_even_where_one_ones_plan_was_forgotten() -> None:
    async def main() -> None:
        bench = Bench()
        bench.gate.open(REMEMBERED_PLANS + 1)
        for rows in ([[1.0]], [[1.0], [1.0]], *([[0.0] * size] for size in range(2, REMEMBERED_PLANS + 1))):
            _, reply = bench.submit(*rows)  # the last one pushes the first one's plan out
            await reply.response()
        await bench.keep_busy()
        bench.gate.open()
        bench.submit([1.0])
        bench.submit([2.0], [3.0])
        await bench.finish()
        assert bench.session.shapes[-1] == {"x": (3, 1)}

    run(main)


@pytest.mark.parametrize(("tiny_batch_seconds", "on_the_loop"), [(60.0, True), (0.0, False)])
def test_a_batch_runs_on_the_loop_once_its_size_is_known_to_be_quick(
    tiny_batch_seconds: float, on_the_loop: bool
) -> None:
    async def main() -> None:
        threads: list[int] = []

        def function(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
            threads.append(threading.get_ident())
            return doubled_and_negated(inputs)

        session = PuppetSession([fp32("x", -1, -1)], [fp32("y", -1, -1), fp32("z", -1, -1)], function)
        version = LoadedVersion(
            batching_config(), 3, [session], PuppetClock(now=1000), tiny_batch_seconds=tiny_batch_seconds
        )
        for _ in range(ENOUGH + 1):
            reply = OneReply()
            version.submit(request([1.0]), reply)
            await reply.response()
        await version.drain()
        assert [thread == threading.get_ident() for thread in threads] == [*[False] * ENOUGH, on_the_loop]

    run(main)


def test_draining_answers_everything_that_was_admitted() -> None:
    async def main() -> None:
        bench = Bench(batching_config(max_queue_delay_us=60_000_000))
        replies = [bench.submit([float(n)])[1] for n in range(20)]
        await turn()
        await bench.finish()
        assert [len(reply.answers) for reply in replies] == [1] * 20
        assert (bench.version.in_flight, bench.version.pending) == (0, 0)

    run(main)
