"""The fakes themselves, and the loop that jumps."""

from __future__ import annotations

import asyncio
import threading
from math import inf
from pathlib import Path
from time import process_time

import numpy as np
import pytest

from server.backends.base import SessionOptions
from server.errors import InvalidRequest, LoadFailed
from server.frontends.calls import StatusCode
from server.messages import InferenceResponse
from server.scheduling.clock import LoopClock
from tests import autojump
from tests.fakes import (
    CountingClock,
    FakeCall,
    Gate,
    NamedTicket,
    OneReply,
    PuppetBackend,
    PuppetClock,
    PuppetLane,
    PuppetSession,
    fp32,
    names,
)


def test_a_loop_that_jumps_takes_no_time_for_a_month() -> None:
    started = process_time()

    async def main() -> float:
        await asyncio.sleep(30 * 86400)
        return asyncio.get_running_loop().time()

    assert autojump.run(main()) == 30 * 86400
    assert process_time() - started < 5


def test_a_loop_that_jumps_keeps_the_order_of_timers() -> None:
    async def main() -> list[tuple[float, str]]:
        loop = asyncio.get_running_loop()
        rang: list[tuple[float, str]] = []

        def ring(name: str) -> None:
            rang.append((loop.time(), name))

        for when, name in ((3, "c"), (1, "a"), (2, "b")):
            loop.call_at(when, ring, name)
        await asyncio.sleep(10)
        return rang

    assert autojump.run(main()) == [(1, "a"), (2, "b"), (3, "c")]


def test_a_loop_that_jumps_refuses_to_wait_for_nothing() -> None:
    async def main() -> None:
        await asyncio.Event().wait()

    with pytest.raises(RuntimeError, match="deadlock: nothing is ready and no timer is set"):
        autojump.run(main())


def test_a_loop_that_jumps_refuses_to_spin_for_ever() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()

        def again() -> None:
            loop.call_soon(again)

        again()
        await asyncio.sleep(1)

    with pytest.raises(RuntimeError, match="livelock: the loop is busy, but time never moves"):
        autojump.run(main())


def test_a_puppet_lane_reports_after_its_time() -> None:
    async def main() -> None:
        lane = PuppetLane(seconds=5, outcome=len)
        done: list[tuple[float, object]] = []
        loop = asyncio.get_running_loop()
        lane.submit([NamedTicket("a"), NamedTicket("b")], lambda outcome: done.append((loop.time(), outcome)))
        assert lane.busy
        await asyncio.sleep(10)
        assert done == [(5, 2)]
        assert lane.batches == [(0, ["a", "b"])]
        assert not lane.busy

    autojump.run(main())


def test_a_puppet_lane_takes_one_batch_at_a_time() -> None:
    async def main() -> None:
        lane = PuppetLane()
        lane.submit([NamedTicket("a")], lambda _: None)
        with pytest.raises(AssertionError, match="while it ran another"):
            lane.submit([NamedTicket("b")], lambda _: None)

    autojump.run(main())


def test_a_puppet_lane_hands_over_what_its_outcome_raises() -> None:
    async def main() -> None:
        def outcome(_: object) -> object:
            raise ValueError("broken")

        done: list[object] = []
        PuppetLane(1, outcome).submit([NamedTicket("a")], done.append)
        await asyncio.sleep(2)
        assert [type(error) for error in done] == [ValueError]

    autojump.run(main())


def test_a_named_ticket_prints_as_its_name() -> None:
    assert repr([NamedTicket("a")]) == "[<a>]"
    assert names([NamedTicket("a"), NamedTicket(2)]) == ["a", 2]


def test_a_counting_clock_counts_rings() -> None:
    async def main() -> None:
        rang: list[float] = []
        clock = CountingClock(LoopClock(asyncio.get_running_loop()))
        alarm = clock.alarm(lambda: rang.append(clock.now()))
        alarm.set(3)
        await asyncio.sleep(5)
        assert (clock.rings, rang) == (1, [3])

    autojump.run(main())


def test_a_puppet_clock_moves_when_it_is_told_to() -> None:
    clock = PuppetClock(now=10)
    clock.advance(2.5)
    assert clock.now() == 12.5


def test_a_puppet_clocks_alarms_ring_on_the_way_in_order_and_at_their_time() -> None:
    clock = PuppetClock()
    rang: list[tuple[str, float]] = []
    late = clock.alarm(lambda: rang.append(("late", clock.now())))

    def ring_soon() -> None:
        rang.append(("soon", clock.now()))
        late.set(4)

    soon = clock.alarm(ring_soon)
    soon.set(1)
    late.set(3)
    clock.advance(9)
    assert (rang, clock.now(), late.when) == ([("soon", 1), ("late", 4)], 9, inf)


def test_a_closed_puppet_alarm_neither_rings_nor_can_be_set() -> None:
    clock = PuppetClock()
    rang: list[str] = []
    alarm = clock.alarm(lambda: rang.append("rang"))
    alarm.set(1)
    alarm.close()
    clock.advance(5)
    assert rang == []
    with pytest.raises(AssertionError, match="after it was closed"):
        alarm.set(9)


def test_a_gate_lets_through_as_many_as_it_was_opened_for() -> None:
    gate = Gate()
    passed: list[int] = []

    def enter(number: int) -> None:
        gate.wait()
        passed.append(number)

    threads = [threading.Thread(target=enter, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    assert passed == []
    gate.open(3)
    for thread in threads:
        thread.join(timeout=10)
    assert sorted(passed) == [0, 1, 2]


def test_one_reply_notices_a_second_answer() -> None:
    async def main() -> None:
        reply = OneReply()
        reply(InvalidRequest("first"))
        assert str(await reply.error()) == "first"
        reply(InvalidRequest("second"))
        with pytest.raises(AssertionError, match="answered twice"):
            await reply.error()

    autojump.run(main())


def test_one_reply_tells_answers_from_errors() -> None:
    async def main() -> None:
        response, error = OneReply(), OneReply()
        response(InferenceResponse("m", "1", ""))
        error(InvalidRequest("no"))
        assert (await response.response()).model_name == "m"
        with pytest.raises(AssertionError):
            await response.error()
        with pytest.raises(AssertionError):
            await error.response()

    autojump.run(main())


def test_a_puppet_session_runs_its_function_and_remembers() -> None:
    session = PuppetSession([fp32("x", -1)], [fp32("y", -1), fp32("z", -1)], lambda inputs: {"y": inputs["x"] + 1})
    [result] = session.run({"x": np.array([1.0, 2.0])}, ["y"])
    assert result.tolist() == [2.0, 3.0]
    assert (session.shapes, session.asked) == ([{"x": (2,)}], [("y",)])


def test_a_puppet_session_hands_out_memory_of_its_own() -> None:
    session = PuppetSession([fp32("x", -1)], [fp32("y", -1)], lambda inputs: {"y": inputs["x"]})
    given = np.zeros(2)
    assert not np.shares_memory(session.run({"x": given}, ["y"])[0], given)


def test_a_puppet_backend_opens_the_files_it_knows(tmp_path: Path) -> None:
    session = PuppetSession([], [], dict)
    backend = PuppetBackend({"known": session})
    known, unknown = tmp_path / "known", tmp_path / "unknown"
    known.write_text("known")
    unknown.write_text("unknown")
    options = SessionOptions(intra_op_threads=1)
    assert backend.load(known, options) is session
    with pytest.raises(LoadFailed, match="unknown: not a model"):
        backend.load(unknown, options)
    assert backend.opened == [(known, options), (unknown, options)]


def test_a_fake_call_remembers_how_it_ended() -> None:
    answered, failed, streamed = FakeCall(), FakeCall(), FakeCall()
    answered.reply(b"a")
    failed.fail(StatusCode.NOT_FOUND, "no")
    streamed.send(b"1")
    streamed.send(b"2")
    streamed.finish()
    assert (answered.sent, answered.status) == ([b"a"], StatusCode.OK)
    assert (failed.sent, failed.status, failed.message) == ([], StatusCode.NOT_FOUND, "no")
    assert (streamed.sent, streamed.status) == ([b"1", b"2"], StatusCode.OK)


def test_a_fake_call_remembers_its_metadata() -> None:
    call = FakeCall(metadata={"a": "b"})
    call.send_initial_metadata({"x": "1"})
    call.set_trailing_metadata({"y": b"2"})
    call.compress_messages(wanted=True)
    assert (call.metadata, call.initial, call.trailing, call.compressed) == ({"a": "b"}, {"x": "1"}, {"y": b"2"}, True)
    call.send(b"message")
    with pytest.raises(AssertionError, match="after a message"):
        call.send_initial_metadata({})
    with pytest.raises(AssertionError, match="after a message"):
        call.compress_messages(wanted=False)


def test_a_fake_call_ends_once() -> None:
    call = FakeCall()
    call.finish()
    with pytest.raises(AssertionError, match="ended twice"):
        call.fail(StatusCode.INTERNAL, "again")
    with pytest.raises(AssertionError, match="after the end"):
        call.send(b"late")
