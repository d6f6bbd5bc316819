"""One version of an ensemble on puppet models: what each is given and when, and how requests end."""

from __future__ import annotations

import asyncio
import weakref
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.errors import (
    Cancelled,
    DeadlineExceeded,
    ExecutionFailed,
    InvalidRequest,
    NotReady,
    Overloaded,
    QueueFull,
    Reason,
    ShuttingDown,
    WrongShape,
)
from server.messages import RequestedOutput, SequenceFlags
from server.models.ensemble_model import MAX_AT_THE_DOOR
from server.records import Computation, Record
from server.scheduling.budget import ByteBudget
from tests.fakes import OneReply, model_config
from tests.unit.ensembling import CHAIN, DIAMOND, Bench, Graph, array, graphs, request, row, step
from tests.unit.loaded import run, turn, values


@pytest.mark.parametrize(("version", "asked"), [(3, "3"), (None, "")])
def test_a_step_asks_for_the_version_that_its_ensemble_names(version: int | None, asked: str) -> None:
    async def main() -> None:
        bench = Bench((step("one", {"a": "x"}, {"b": "y"}, version),))
        _, reply = bench.submit([1.0])
        assert bench.work("one").request.model_version == asked
        bench.work("one").answer(array(2))
        await reply.response()

    run(main)


def test_a_tensor_goes_on_as_it_is() -> None:
    async def main() -> None:
        bench = Bench(CHAIN)
        carried = {
            "priority": 2,
            "deadline": 1005.0,
            "timeout_us": 7,
            "sequence": SequenceFlags(5, start=True),
            "headers": {"tenant": "a"},
        }
        _, reply = bench.submit([1.0], [2.0], request_id="mine", **carried)
        first = bench.work("one").request
        assert (first.model_name, first.model_version, first.request_id) == ("one", "", "mine")
        assert {name: getattr(first, name) for name in carried} == carried
        assert [(spec.name, spec.shape) for spec in first.specs] == [("a", (2, 1))]
        assert bench.given() == {"one": 1}
        between, last = array(3, 4), array(5, 6)
        bench.work("one").answer(between)
        assert bench.work("two").request.buffers[0] is between
        assert bench.work("two").request.outputs == (RequestedOutput("b"),)
        assert {name: getattr(bench.work("two").request, name) for name in carried} == carried
        bench.work("two").answer(last)
        answer = await reply.response()
        assert (answer.model_name, answer.model_version, answer.request_id) == ("e", "1", "mine")
        assert values(answer) == {"y": [[5.0], [6.0]]}
        assert np.shares_memory(answer.outputs[0].data, last)
        bench.check_idle()

    run(main)


def test_a_tensor_is_let_go_once_its_last_reader_has_it() -> None:
    async def main() -> None:
        bench = Bench(CHAIN)
        sent = request({"x": [[1.0]]})
        bench.version.submit(sent, OneReply())
        assert sent.buffers == ()
        between = array(3)
        kept = weakref.ref(between)
        bench.work("one").answer(between)
        del between
        assert kept() is not None
        bench.work("two").request.buffers = ()  # as models do with what they have read
        assert kept() is None

    run(main)


def test_branches_are_begun_together_and_joined_once() -> None:
    async def main() -> None:
        bench = Bench(DIAMOND)
        _, reply = bench.submit([1.0])
        bench.work("top").answer(array(2))
        assert bench.given() == {"top": 1, "left": 1, "right": 1}
        bench.work("right").answer(array(30))
        assert "bottom" not in bench.given()
        bench.work("left").answer(array(20))
        assert [float(buffer[0, 0]) for buffer in bench.work("bottom").request.buffers] == [20, 30]
        bench.work("bottom").answer(array(50))
        assert values(await reply.response()) == {"y": [[50.0]]}
        bench.check_idle()

    run(main)


def test_steps_that_no_wanted_output_needs_are_not_begun() -> None:
    async def main() -> None:
        bench = Bench(DIAMOND, [row("y"), row("l")])
        _, reply = bench.submit([1.0], outputs=["l"])
        bench.work("top").answer(array(2))
        bench.work("left").answer(array(3))
        assert values(await reply.response()) == {"l": [[3.0]]}
        assert bench.given() == {"top": 1, "left": 1}

    run(main)


def test_the_first_error_ends_the_request_and_cancels_what_runs() -> None:
    async def main() -> None:
        bench = Bench(DIAMOND)
        _, reply = bench.submit([1.0])
        bench.work("top").answer(array(2))
        bench.work("left").fail(ExecutionFailed("it broke").logged_as("it broke in private"))
        error = await reply.error()
        assert type(error) is ExecutionFailed
        assert str(error) == "in ensemble 'e', it broke"
        assert error.for_logs == "in ensemble 'e', it broke in private"
        assert bench.work("right").cancelled
        assert bench.given() == {"top": 1, "left": 1, "right": 1}
        assert bench.version.statistics.failures[Reason.BACKEND] == 1
        bench.check_idle()

    run(main)


def test_a_step_that_is_refused_at_once_ends_the_request() -> None:
    async def main() -> None:
        bench = Bench(DIAMOND)
        bench.members["left"].refusal = Overloaded("later", retry_after=2.5)
        work, reply = bench.submit([1.0])
        assert work is not None
        bench.work("top").answer(array(2))
        error = await reply.error()
        assert isinstance(error, Overloaded)
        assert (str(error), error.retry_after) == ("in ensemble 'e', later", 2.5)
        assert "right" not in bench.given()
        bench.check_idle()

    run(main)


def test_a_first_step_that_is_refused_is_a_refusal_of_the_request() -> None:
    async def main() -> None:
        bench = Bench(CHAIN)
        bench.members["one"].refusal = QueueFull("Exceeds maximum queue size")
        work, reply = bench.submit([1.0])
        assert work is None
        assert str(await reply.error()) == "in ensemble 'e', Exceeds maximum queue size"
        bench.check_idle()

    run(main)


def test_a_model_whose_session_went_bad_ends_the_request() -> None:
    async def main() -> None:
        bench = Bench(CHAIN)
        _, reply = bench.submit([1.0])
        bench.members["two"].lost = NotReady("it is gone")
        bench.work("one").answer(array(2))
        assert str(await reply.error()) == "in ensemble 'e', it is gone"
        bench.check_idle()

    run(main)


def test_a_caller_hears_of_an_answer_that_is_not_what_was_asked_for(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        bench = Bench(DIAMOND)
        _, reply = bench.submit([1.0])
        bench.work("top").answer(array(2))
        asked, bench.work("left").request.outputs = bench.work("left").request.outputs, ()
        assert asked
        bench.work("left").answer()
        assert str(await reply.error()) == "in ensemble 'e', a step failed: ValueError"
        assert bench.work("right").cancelled
        bench.check_idle()

    run(main)
    assert "a step of a request raised" in caplog.text


def test_a_caller_hears_of_a_model_that_raises(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        bench = Bench(DIAMOND)
        bench.members["right"].refusal = RuntimeError("a bug")
        _, reply = bench.submit([1.0])
        bench.work("top").answer(array(2))
        assert str(await reply.error()) == "in ensemble 'e', a step failed: RuntimeError"
        assert bench.work("left").cancelled
        bench.members["top"].refusal = RuntimeError("a bug")
        work, reply = bench.submit([1.0])
        assert work is None
        assert str(await reply.error()) == "in ensemble 'e', a step failed: RuntimeError"
        bench.check_idle()

    run(main)
    assert "a bug" in caplog.text


def test_a_caller_that_leaves_cancels_every_step_that_runs() -> None:
    async def main() -> None:
        bench = Bench(DIAMOND)
        work, reply = bench.submit([1.0])
        bench.work("top").answer(array(2))
        work.cancel()
        work.cancel()
        assert bench.work("left").cancelled and bench.work("right").cancelled
        assert reply.answers == []
        assert bench.version.statistics.failures[Reason.CANCELLED] == 1
        bench.check_idle()

    run(main)


def test_whoever_leaves_after_the_cut_off_left_because_the_server_went_down() -> None:
    async def main() -> None:
        bench = Bench(CHAIN)
        finished: list[object] = []
        record = Record("ModelInfer", "e", 0, lambda _, error: finished.append(error))
        work, _ = bench.submit([1.0], record=record)
        bench.version.cut_off()
        work.cancel()
        assert [type(error) for error in finished] == [ShuttingDown]
        assert bench.version.statistics.failures[Reason.SHUTDOWN] == 1

    run(main)


def test_models_in_a_row_that_answer_at_once_need_no_deep_stack() -> None:
    async def main() -> None:
        names = [f"m{n}" for n in range(400)]
        steps = [step(name, {"a": f"t{n}" if n else "x"}, {"b": f"t{n + 1}"}) for n, name in enumerate(names)]
        bench = Bench(steps, [row("t400")], limit=1)
        for member in bench.members.values():
            member.at_once = array(7)
        for _ in range(2):
            work, reply = bench.submit([1.0])
            assert work is None
            assert values(await reply.response()) == {"t400": [[7.0]]}
            await turn()
        bench.check_idle()

    run(main)


@pytest.mark.parametrize("at_once", [True, False])
def test_once_a_request_is_over_no_step_of_it_begins(at_once: bool, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        bench = Bench(DIAMOND, limit=1)
        bench.members["left"].refusal = Overloaded("no", 1.0)
        if at_once:
            bench.members["top"].at_once = array(2)
        _, reply = bench.submit([1.0])
        if not at_once:
            bench.work("top").answer(array(2))
        assert isinstance(await reply.error(), Overloaded)
        await turn()
        assert "right" not in bench.given()
        bench.check_idle()
        assert all(gate.free == 1 for gate in bench.version._gates)

    run(main)
    assert caplog.records == []


@pytest.mark.parametrize("outcome", ["answered", "refused", "admitted"])
def test_a_caller_that_leaves_while_a_model_is_asked_takes_that_step_along(outcome: str) -> None:
    async def main() -> None:
        bench = Bench(CHAIN)
        work, reply = bench.submit([1.0])
        bench.members["two"].meanwhile = work.cancel
        bench.members["two"].at_once = array(3) if outcome == "answered" else None
        bench.members["two"].refusal = NotReady("no") if outcome == "refused" else None
        bench.work("one").answer(array(2))
        assert all(work.cancelled for work in bench.members["two"].given)
        assert len(bench.members["two"].given) == (outcome == "admitted")
        assert reply.answers == []
        assert bench.version.statistics.fail.count == 1
        bench.check_idle()

    run(main)


def test_bad_requests_are_refused_before_any_step() -> None:
    async def main() -> None:
        bench = Bench(CHAIN)
        short = request({"x": [[1.0]]})
        short.buffers = (b"123",)
        empty = request({"x": [[1.0]]})
        empty.buffers = (None,)
        cases = (
            (request({"x": [[1.0]] * 9}), InvalidRequest, "batch-size must be <= 8 for 'e'"),
            (request({"x": [[1.0, 2.0]]}), WrongShape, "unexpected shape for input 'x' for model 'e'"),
            (request({"z": [[1.0]]}), InvalidRequest, "unexpected inference input 'z' for model 'e'"),
            (request({"x": [[1.0]]}, outputs=["t"]), InvalidRequest, "unexpected inference output 't' for model 'e'"),
            (short, WrongShape, "byte size mismatch for input 'x' for model 'e'. Expected 4, got 3"),
            (empty, InvalidRequest, "unable to find data for input tensor 'x' for model 'e'"),
        )
        for bad, kind, text in cases:
            reply = OneReply()
            assert bench.version.submit(bad, reply) is None
            error = await reply.error()
            assert isinstance(error, kind) and text in str(error)
            assert "in ensemble" not in str(error)
        assert bench.given() == {}
        assert bench.version.statistics.fail.count == len(cases)
        bench.check_idle()

    run(main)


def test_a_single_row_gets_or_loses_its_batch_axis_as_a_model_wants_it() -> None:
    async def main() -> None:
        whole = model_config([row("a", 1)], [row("b", 1)], name="one", max_batch_size=0)
        bench = Bench(CHAIN, members={"one": whole})
        _, reply = bench.submit([1.0])
        assert bench.work("one").request.specs[0].shape == (1,)
        bench.work("one").answer(np.array([2], np.float32))
        assert bench.work("two").request.specs[0].shape == (1, 1)
        bench.work("two").answer(array(3))
        assert values(await reply.response()) == {"y": [[3.0]]}

    run(main)


def test_classes_are_told_with_the_labels_of_the_model_unless_the_ensemble_has_its_own() -> None:
    async def main() -> None:
        for own, expected in (((), b"3.000000:1:dog"), (("cat", "hound"), b"3.000000:1:hound")):
            bench = Bench([CHAIN[0]], [row("t", 2, labels=own)], labels={"t": ("cat", "dog")})
            reply = OneReply()
            asked = request({"x": [[1.0]]})
            asked.outputs = (RequestedOutput("t", 1),)
            bench.version.submit(asked, reply)
            bench.work("one").answer(np.array([[2, 3]], np.float32))
            assert values(await reply.response()) == {"t": [[expected]]}
            bench.check_idle()

    run(main)


def test_a_caller_that_leaves_while_classes_are_told_hears_nothing() -> None:
    async def main() -> None:
        bench = Bench([CHAIN[0]], [row("t", 2)])
        reply = OneReply()
        asked = request({"x": [[1.0]]})
        asked.outputs = (RequestedOutput("t", 1),)
        work = bench.version.submit(asked, reply)
        assert work is not None
        bench.work("one").answer(np.array([[2, 3]], np.float32))
        work.cancel()
        await bench.version.drain()
        assert reply.answers == []
        bench.check_idle()

    run(main)


def test_a_reply_that_raises_is_logged_and_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        def broken(_: object) -> None:
            raise RuntimeError("cannot be encoded")

        bench = Bench([CHAIN[0]], [row("t")])
        bench.version.submit(request({"x": [[1.0]]}), broken)
        bench.work("one").answer(array(1))
        bench.check_idle()

    run(main)
    assert "an answer of ensemble 'e' version 1 was not taken" in caplog.text


def test_a_drain_waits_for_requests_and_for_whoever_holds_the_version() -> None:
    async def main() -> None:
        bench = Bench(CHAIN)
        release = bench.version.hold()
        assert [member.holds for member in bench.members.values()] == [1, 1]
        _, reply = bench.submit([1.0])
        drain = asyncio.create_task(bench.version.drain())
        bench.work("one").answer(array(2))
        bench.work("two").answer(array(3))
        await reply.response()
        await turn()
        assert not drain.done()
        release()
        await drain
        bench.check_idle()

    run(main)


def test_statistics_are_the_sum_of_the_steps_and_the_record_has_them() -> None:
    async def main() -> None:
        bench = Bench(CHAIN)
        record = Record("ModelInfer", "e", 0, lambda *_: None)
        record.trace_id = 7
        _, reply = bench.submit([1.0], [2.0], record=record, deadline=1002.0, request_id="mine")
        for name, out in (("one", array(1, 2)), ("two", array(3, 4))):
            inner = bench.work(name).request.record
            assert inner is not None and (inner.trace_id, inner.request_id, inner.model) == (7, "mine", name)
            runs = inner
            if name == "two":  # an ensemble itself
                runs = Record("", "three", 0, lambda *_: None)
                inner.steps = (runs,)
            runs.computations.append(Computation(100, 110, 130, 135, rows=2, requests=1, size=2))
            bench.clock.advance(0.5)
            bench.work(name).answer(out)
        await reply.response()
        statistics = bench.version.statistics
        assert (statistics.inference_count, statistics.execution_count) == (2, 1)
        assert [statistics.compute_input.ns, statistics.compute_infer.ns, statistics.compute_output.ns] == [20, 40, 10]
        assert (statistics.success.count, statistics.success.ns, statistics.queue.ns) == (1, 1_000_000_000, 0)
        assert (statistics.deadline_met, statistics.deadline_missed) == (1, 0)
        assert [inner.model for inner in record.steps] == ["one", "two"]
        assert all(inner.ended_ns for inner in record.steps)
        assert (record.version, record.rows) == ("1", 2)

    run(main)


def test_only_so_many_requests_are_at_a_step_and_the_others_wait_in_order() -> None:
    async def main() -> None:
        bench = Bench(CHAIN, limit=1)
        replies = [bench.submit([float(n)])[1] for n in range(4)]
        one, two = bench.members["one"].given, bench.members["two"].given
        assert (len(one), bench.version.pending) == (1, 3)
        one[0].answer(array(0))
        await turn()
        assert (len(one), len(two), bench.version.pending) == (2, 1, 2)
        one[1].answer(array(1))
        await turn()
        assert (len(one), len(two)) == (2, 1)  # the first step is kept until there is room at the second
        for n in range(4):
            two[n].answer(array(n))
            await turn()
            if n + 2 < 4:
                one[n + 2].answer(array(n + 2))
                await turn()
        assert [values(await reply.response())["y"] for reply in replies] == [[[float(n)]] for n in range(4)]
        bench.check_idle()

    run(main)


def test_a_request_whose_time_is_over_leaves_the_door_at_once() -> None:
    async def main() -> None:
        bench = Bench(CHAIN, limit=1, budget=ByteBudget(1 << 10))
        _, first = bench.submit([0.0], deadline=1003)
        _, late = bench.submit([1.0], deadline=1002)
        _, patient = bench.submit([2.0], deadline=1010)
        bench.clock.advance(2.5)
        refusal = await late.error()
        assert isinstance(refusal, DeadlineExceeded)
        assert str(refusal) == "in ensemble 'e', Deadline Exceeded"
        assert bench.version.pending == 1
        bench.clock.advance(1)  # the model has the first: what its deadline means is the model's to say
        assert not first.answers
        bench.members["one"].given[0].answer(array(0))
        await turn()
        for name, n in (("two", 0), ("one", 1), ("two", 1)):
            bench.members[name].given[n].answer(array(n))
            await turn()
        assert values(await first.response())["y"] == [[0.0]]
        assert values(await patient.response())["y"] == [[1.0]]
        bench.check_idle()
        await bench.version.drain()

    run(main)


def test_the_callers_deadline_holds_wherever_a_place_is_waited_for() -> None:
    async def main() -> None:
        bench = Bench(CHAIN, limit=1)
        _, first = bench.submit([0.0])
        bench.members["one"].given[0].answer(array(0))
        await turn()
        _, late = bench.submit([1.0], deadline=1002)
        bench.members["one"].given[1].answer(array(1))  # done with the first step, and waits for the second
        await turn()
        bench.clock.advance(2.5)
        assert str(await late.error()) == "in ensemble 'e', Deadline Exceeded"
        await turn()
        bench.submit([2.0])
        assert len(bench.members["one"].given) == 3  # its place is free
        bench.members["two"].given[0].answer(array(3))
        assert values(await first.response())["y"] == [[3.0]]

    run(main)


def test_who_leaves_makes_room_wherever_it_waits() -> None:
    async def main() -> None:
        bench = Bench(CHAIN, limit=1)
        works = [bench.submit([float(n)])[0] for n in range(4)]
        one, two = bench.members["one"].given, bench.members["two"].given
        one[0].answer(array(0))
        await turn()
        one[1].answer(array(1))  # done with the first step, and waits for the second
        works[2].cancel()  # waits for the first
        works[1].cancel()
        await turn()
        assert (len(one), bench.version.pending) == (3, 0)
        works[0].cancel()
        one[2].answer(array(3))
        await turn()
        assert two[0].cancelled and len(two) == 2
        works[3].cancel()
        bench.check_idle()

    run(main)


def test_the_door_has_room_for_so_many_requests_and_bytes() -> None:
    async def main() -> None:
        budget = ByteBudget(8)
        bench = Bench(CHAIN, limit=1, budget=budget)
        works = [bench.submit([1.0])[0] for _ in range(3)]
        _, reply = bench.submit([1.0], request_id="late")
        error = await reply.error()
        assert isinstance(error, QueueFull)
        assert str(error).startswith("[request id: late] Exceeds maximum queued bytes")
        for work in works:
            work.cancel()
        assert budget.used == 0
        bench.check_idle()

        bench = Bench(CHAIN, limit=1)
        works = [bench.submit([1.0])[0] for _ in range(MAX_AT_THE_DOOR + 1)]
        _, reply = bench.submit([1.0])
        assert str(await reply.error()) == "[request id: <id_unknown>] Exceeds maximum queue size"
        for work in works:
            work.cancel()
        bench.check_idle()

    run(main)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(graphs(), st.integers(0, 3), st.integers(1, 6), st.randoms(use_true_random=False))
def test_every_request_ends_once_whatever_happens(graph: Graph, limit: int, count: int, random: Any) -> None:
    """Steps are answered in any order, some fail, and some callers leave: every request is settled once, no step runs
    twice for one request, none is over its limit, and in the end nothing is held."""
    steps, inputs, outputs = graph

    async def main() -> None:
        bench = Bench(steps, [row(name) for name in outputs], inputs=[row(name) for name in inputs], limit=limit)
        replies, left = {}, set()
        works: dict[int, Any] = {}
        for n in range(count):
            reply = replies[n] = OneReply()
            sent = request({name: [[1.0]] for name in inputs}, request_id=str(n))
            works[n] = bench.version.submit(sent, reply)
        done: set[int] = set()
        while True:
            await turn()
            open_works = [
                (name, work)
                for name, member in bench.members.items()
                for work in member.given
                if not work.cancelled and id(work) not in done
            ]
            if limit:
                for name in bench.members:
                    assert sum(name == other for other, _ in open_works) <= limit
            if not open_works:
                break
            name, work = random.choice(open_works)
            done.add(id(work))
            n = int(work.request.request_id)
            event = random.random()
            if event < 0.05:
                work.fail(ExecutionFailed("no"))
            elif event < 0.1 and not replies[n].answers:
                works[n].cancel()
                left.add(n)
            else:
                work.answer(*[array(1) for _ in work.request.outputs])
        for member in bench.members.values():
            ids = [work.request.request_id for work in member.given]
            assert len(ids) == len(set(ids))
        for n, reply in replies.items():
            assert len(reply.answers) == (n not in left)
        statistics = bench.version.statistics
        assert statistics.success.count + statistics.fail.count == count
        assert statistics.failures[Reason.CANCELLED] == len(left)
        bench.check_idle()
        assert all(gate.free == limit and not gate.waiting for gate in bench.version._gates)

    run(main)


def test_cancelled_is_what_the_record_of_a_departed_caller_says() -> None:
    async def main() -> None:
        bench = Bench(CHAIN)
        finished: list[object] = []
        record = Record("ModelInfer", "e", 0, lambda _, error: finished.append(error))
        work, _ = bench.submit([1.0], record=record)
        work.cancel()
        assert [type(error) for error in finished] == [Cancelled]
        assert record.steps[0].ended_ns

    run(main)
