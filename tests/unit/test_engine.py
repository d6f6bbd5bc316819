"""The data plane's one verb."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from server.engine import Engine
from server.errors import ConvoyError, InvalidRequest, NotFound, NotReady, Reason, ShuttingDown
from server.models.lifecycle import State
from server.models.registry import Registry
from tests.fakes import OneReply
from tests.unit.loaded import Bench, batching_config, request, run, values


def serving(bench: Bench) -> Registry:
    registry = Registry()
    registry.set_state("m", 3, State.LOADING)
    registry.set_ready("m", bench.version)
    return registry


def test_a_request_is_answered_by_its_version() -> None:
    async def main() -> None:
        bench = Bench()
        reply = OneReply()
        work = Engine(serving(bench)).infer(request([4.0]), reply)
        assert work
        await bench.finish()
        assert values(await reply.response())["y"] == [[8.0]]

    run(main)


@pytest.mark.parametrize(("started", "kind"), [(True, NotFound), (False, NotReady)])
def test_a_model_that_is_not_there_is_unknown_once_all_are_loaded(started: bool, kind: type[ConvoyError]) -> None:
    async def main() -> None:
        engine, reply = Engine(Registry()), OneReply()
        if started:
            engine.begin_service()
        assert engine.infer(request([4.0]), reply) is None
        assert [type(answer) for answer in reply.answers] == [kind]

    run(main)


def test_a_request_that_is_refused_is_answered_at_once() -> None:
    async def main() -> None:
        bench = Bench()
        reply = OneReply()
        assert Engine(serving(bench)).infer(request(), reply) is None
        assert len(reply.answers) == 1
        await bench.finish()

    run(main)


def test_a_cancelled_request_is_not_answered() -> None:
    async def main() -> None:
        bench = Bench()
        reply = OneReply()
        work = Engine(serving(bench)).infer(request([4.0]), reply)
        assert work
        work.cancel()
        await bench.finish()
        assert reply.answers == []

    run(main)


def test_an_exiting_server_says_so_and_still_answers() -> None:
    async def main() -> None:
        bench = Bench()
        engine = Engine(serving(bench))
        before = engine.exiting
        engine.begin_exit()
        reply = OneReply()
        engine.infer(request([4.0]), reply)
        await bench.finish()
        assert (before, engine.exiting) == (False, True)
        assert await reply.response()

    run(main)


def test_an_engine_serves_between_its_beginning_and_its_exit() -> None:
    engine = Engine(Registry())
    serving_then = [engine.serving]
    engine.begin_service()
    serving_then.append(engine.serving)
    engine.begin_exit()
    serving_then.append(engine.serving)
    assert serving_then == [False, True, False]


def test_whoever_watches_is_told_that_the_server_serves() -> None:
    registry = Registry()
    engine = Engine(registry)
    seen: list[bool] = []
    registry.subscribe(lambda: seen.append(engine.serving))
    engine.begin_service()
    assert seen == [True]


def test_an_exiting_server_does_not_wait_for_company() -> None:
    async def main() -> None:
        bench = Bench(batching_config(max_queue_delay_us=60_000_000))
        bench.gate.open()
        reply = OneReply()
        engine = Engine(serving(bench))
        engine.infer(request([4.0]), reply)
        engine.begin_exit()
        assert await reply.response()
        await bench.finish()

    run(main)


def test_an_announced_exit_lets_requests_wait_for_company_until_it_comes() -> None:
    async def main() -> None:
        bench = Bench(batching_config(max_queue_delay_us=60_000_000))
        bench.gate.open()
        reply = OneReply()
        engine = Engine(serving(bench))
        engine.infer(request([4.0]), reply)
        engine.announce_exit()
        await asyncio.sleep(1.0)
        assert (engine.exiting, reply.answers) == (True, [])
        engine.begin_exit()
        assert await reply.response()
        await bench.finish()

    run(main)


@pytest.mark.parametrize("step", [Engine.announce_exit, Engine.begin_exit])
def test_whoever_watches_is_told_that_the_server_exits(step: Callable[[Engine], None]) -> None:
    registry = Registry()
    engine = Engine(registry)
    seen: list[bool] = []
    registry.subscribe(lambda: seen.append(engine.exiting))
    step(engine)
    assert seen == [True]


def test_a_draining_version_takes_no_new_request() -> None:
    async def main() -> None:
        bench = Bench()
        registry = serving(bench)
        reply, late = OneReply(), OneReply()
        engine = Engine(registry)
        engine.begin_service()
        engine.infer(request([4.0]), reply)
        registry.set_state("m", 3, State.DRAINING)
        assert engine.infer(request([5.0]), late) is None
        assert [type(answer) for answer in late.answers] == [NotFound]  # without a version, none is left to choose
        with_version = OneReply()
        named = request([5.0])
        named.model_version = "3"
        engine.infer(named, with_version)
        assert [type(answer) for answer in with_version.answers] == [NotReady]
        await bench.finish()
        assert await reply.response()

    run(main)


def counted(engine: Engine) -> dict[Reason, int]:
    return {reason: count for reason, count in engine.failures.items() if count}


def test_requests_that_reach_no_version_are_counted_and_those_that_do_are_not() -> None:
    async def main() -> None:
        bench = Bench()
        registry = serving(bench)
        registry.set_state("m", 4, State.LOADING)
        engine = Engine(registry)
        engine.begin_service()
        for name, version in (("strange", ""), ("other", "1"), ("m", "4"), ("m", "four"), ("m", "9")):
            request_of = request([4.0])
            request_of.model_name, request_of.model_version = name, version
            assert engine.infer(request_of, OneReply()) is None
        engine.refuse(InvalidRequest("unreadable"))
        assert engine.infer(request(), OneReply()) is None  # the version refuses it
        assert counted(engine) == {Reason.UNKNOWN_MODEL: 3, Reason.NOT_READY: 1, Reason.INVALID: 2}
        await bench.finish()

    run(main)


def test_a_version_that_went_with_the_server_is_not_unknown() -> None:
    async def main() -> None:
        bench = Bench()
        registry = serving(bench)
        engine = Engine(registry)
        engine.begin_exit()
        registry.set_state("m", 3, State.DRAINING)
        for name, kind in (("m", ShuttingDown), ("strange", NotFound)):
            reply = OneReply()
            request_of = request([4.0])
            request_of.model_name = name
            engine.infer(request_of, reply)
            assert type(await reply.error()) is kind
        assert counted(engine) == {Reason.SHUTDOWN: 1, Reason.UNKNOWN_MODEL: 1}
        await bench.finish()

    run(main)


def test_whoever_is_cut_off_when_the_server_goes_did_not_leave() -> None:
    async def main() -> None:
        bench = Bench()
        engine = Engine(serving(bench))
        left, cut_off = (engine.infer(request([4.0]), OneReply()) for _ in range(2))
        assert left and cut_off
        left.cancel()
        engine.cut_off()
        cut_off.cancel()
        failures = bench.version.statistics.failures
        assert (failures[Reason.CANCELLED], failures[Reason.SHUTDOWN]) == (1, 1)
        await bench.finish()

    run(main)
