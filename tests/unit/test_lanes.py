"""The lane on a real thread."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest

from server.scheduling.lanes import LaneThread, ThreadLane, join_lanes
from tests.fakes import Gate, NamedTicket, names


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(test())


class Outcome:
    """Takes a lane's outcome on the loop's thread."""

    def __init__(self) -> None:
        self.future: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        self.thread = 0

    def __call__(self, outcome: object) -> None:
        self.thread = threading.get_ident()
        self.future.set_result(outcome)


def test_a_batch_is_worked_on_a_thread_of_its_own_and_reported_on_the_loops() -> None:
    async def main() -> None:
        lane: ThreadLane[NamedTicket, int] = ThreadLane(
            "lane", lambda _: threading.get_ident(), asyncio.get_running_loop()
        )
        done = Outcome()
        lane.submit([NamedTicket("a")], done)
        assert await done.future != threading.get_ident()
        assert done.thread == threading.get_ident()
        lane.close()

    run(main)


def test_batches_run_one_after_another_in_order() -> None:
    async def main() -> None:
        worked: list[object] = []

        def work(batch: Sequence[NamedTicket]) -> int:
            worked.extend(names(batch))
            return len(worked)

        lane = ThreadLane("lane", work, asyncio.get_running_loop())
        outcomes = [Outcome() for _ in range(5)]
        for number, outcome in enumerate(outcomes):
            lane.submit([NamedTicket(number)], outcome)
        assert [await outcome.future for outcome in outcomes] == [1, 2, 3, 4, 5]
        assert worked == [0, 1, 2, 3, 4]
        lane.close()

    run(main)


def test_an_exception_is_an_outcome_and_the_lane_goes_on() -> None:
    async def main() -> None:
        def work(batch: Sequence[NamedTicket]) -> str:
            return {"good": "fine"}[str(batch[0].name)]

        lane = ThreadLane("lane", work, asyncio.get_running_loop())
        bad, good = Outcome(), Outcome()
        lane.submit([NamedTicket("bad")], bad)
        lane.submit([NamedTicket("good")], good)
        assert isinstance(await bad.future, KeyError)
        assert await good.future == "fine"
        lane.close()

    run(main)


def test_the_event_loop_does_not_wait_for_the_thread_to_start(monkeypatch: pytest.MonkeyPatch) -> None:
    gate, start = Gate(), threading.Thread.start

    def start_late(thread: threading.Thread) -> None:
        gate.wait()
        start(thread)

    async def main() -> None:
        monkeypatch.setattr(threading.Thread, "start", start_late)
        lane = ThreadLane("lane", lambda _: "answer", asyncio.get_running_loop())
        done = Outcome()
        lane.submit([NamedTicket("a")], done)
        gate.open()
        assert await done.future == "answer"
        lane.close()

    run(main)


def test_a_lane_works_where_no_second_thread_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async def main() -> None:
        monkeypatch.setattr(threading.Thread, "start", refuse)
        lane = ThreadLane("lane", lambda _: threading.get_ident(), asyncio.get_running_loop())
        done = Outcome()
        lane.submit([NamedTicket("a")], done)
        assert await done.future != threading.get_ident()
        lane.close()

    run(main)


def test_a_lane_that_hangs_is_not_waited_for_for_ever() -> None:
    async def main() -> None:
        gate, running = Gate(), threading.Event()

        def work(_: Sequence[NamedTicket]) -> None:
            running.set()
            gate.wait()

        lane = ThreadLane("lane", work, asyncio.get_running_loop())
        done = Outcome()
        lane.submit([NamedTicket("a")], done)
        lane.close()
        await asyncio.to_thread(running.wait)
        assert not join_lanes(0.0)
        gate.open()
        await done.future

    run(main)


def test_closing_ends_the_thread_after_the_batch_that_runs() -> None:
    async def main() -> None:
        gate = Gate()

        def work(_: Sequence[NamedTicket]) -> threading.Thread:
            gate.wait()
            return threading.current_thread()

        lane = ThreadLane("lane", work, asyncio.get_running_loop())
        done = Outcome()
        lane.submit([NamedTicket("a")], done)
        lane.close()
        gate.open()
        thread = await done.future
        assert isinstance(thread, threading.Thread)
        thread.join(timeout=10)
        assert not thread.is_alive()

    run(main)


class RememberedTicket(NamedTicket):
    """A ticket that a weak reference can follow."""


def test_an_idle_lane_does_not_keep_its_last_batch() -> None:
    async def main() -> None:
        lane: ThreadLane[RememberedTicket, None] = ThreadLane("lane", lambda _: None, asyncio.get_running_loop())
        forgotten = threading.Event()
        ticket = RememberedTicket("a")
        weakref.finalize(ticket, forgotten.set)
        done = Outcome()
        lane.submit([ticket], done)
        del ticket
        await done.future
        gc.collect()
        assert forgotten.wait(timeout=10)
        lane.close()

    run(main)


@pytest.mark.parametrize("tiny", [False, True])
def test_a_batch_that_fails_is_rescued_off_the_loop(tiny: bool) -> None:
    async def main() -> None:
        def work(_: Sequence[NamedTicket]) -> object:
            raise RuntimeError("together")

        def rescue(batch: Sequence[NamedTicket], error: Exception) -> object:
            return names(batch), str(error), threading.get_ident()

        lane = ThreadLane("lane", work, asyncio.get_running_loop(), lambda _: tiny, rescue)
        done = Outcome()
        lane.submit([NamedTicket("a"), NamedTicket("b")], done)
        rescued, error, thread = await done.future  # type: ignore[misc]
        assert (rescued, error) == (["a", "b"], "together")
        assert thread != threading.get_ident()
        lane.close()

    run(main)


@pytest.mark.parametrize("tiny", [False, True])
def test_a_request_alone_is_not_rescued(tiny: bool) -> None:
    async def main() -> None:
        def work(_: Sequence[NamedTicket]) -> object:
            raise RuntimeError("alone")

        lane = ThreadLane("lane", work, asyncio.get_running_loop(), lambda _: tiny, lambda *_: "rescued")
        done = Outcome()
        lane.submit([NamedTicket("a")], done)
        assert isinstance(await done.future, RuntimeError)
        lane.close()

    run(main)


def test_a_rescue_that_fails_is_the_outcome() -> None:
    async def main() -> None:
        def work(_: Sequence[NamedTicket]) -> object:
            raise RuntimeError("together")

        def rescue(_: Sequence[NamedTicket], error: Exception) -> object:
            raise ValueError("too") from error

        lane = ThreadLane("lane", work, asyncio.get_running_loop(), rescue=rescue)
        done = Outcome()
        lane.submit([NamedTicket("a"), NamedTicket("b")], done)
        assert isinstance(await done.future, ValueError)
        lane.close()

    run(main)


class Worker:
    """Does a lane's work, and holds what that takes."""

    def work(self, _: Sequence[NamedTicket]) -> None:
        return None

    def rescue(self, _: Sequence[NamedTicket], error: Exception) -> None:
        raise error


def test_a_closed_lane_lets_go_of_whoever_did_its_work() -> None:
    async def main() -> None:
        worker, gone = Worker(), threading.Event()
        weakref.finalize(worker, gone.set)
        lane = ThreadLane("lane", worker.work, asyncio.get_running_loop(), rescue=worker.rescue)
        done = Outcome()
        lane.submit([NamedTicket("a")], done)
        await done.future
        lane.close()
        del worker
        assert gone.wait(timeout=10)
        assert lane

    run(main)


def test_a_thread_that_is_only_just_starting_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []

    class Starting(LaneThread):
        """Starts when it was waited for too early."""

        def join(self, timeout: float | None = None) -> None:
            try:
                super().join(timeout)
            except RuntimeError:
                self.start()
                raise

    thread = Starting(target=ran.append, args=("it ran",))
    monkeypatch.setattr(threading, "enumerate", lambda: [thread])
    assert join_lanes(20)
    assert ran == ["it ran"]


@pytest.mark.parametrize("is_tiny", [True, False])
def test_a_batch_that_failed_leaves_nothing_to_the_garbage_collector(is_tiny: bool) -> None:
    def work(_: Sequence[RememberedTicket]) -> int:
        raise RuntimeError("the model broke")

    async def main() -> None:
        lane: ThreadLane[RememberedTicket, int] = ThreadLane(
            "lane", work, asyncio.get_running_loop(), rescue=lambda _batch, _failure: 1, is_tiny=lambda _: is_tiny
        )
        for size in (1, 2):
            batch = [RememberedTicket(number) for number in range(size)]
            left = weakref.ref(batch[0])
            ended = asyncio.Event()
            lane.submit(batch, lambda _, ended=ended: ended.set())
            del batch
            await ended.wait()
            following = asyncio.Event()
            two = [RememberedTicket("next"), RememberedTicket("and another")]  # one alone would not come to the thread
            lane.submit(two, lambda _, ended=following: ended.set())
            await following.wait()  # the lane has done with the one before
            assert left() is None
        lane.close()

    gc.collect()
    gc.disable()
    try:
        run(main)
    finally:
        gc.enable()
