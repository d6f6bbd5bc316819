"""The control plane when callers ask for models: what is loaded and unloaded, when, and what stays."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from server.backends.base import SessionOptions
from server.backends.loading import LoadAttempt
from server.control import MAX_REQUESTED, NOT_EXPLICIT, ControlPlane
from server.engine import Engine
from server.errors import InvalidRequest, LoadFailed, NotFound, NotReady, QueueFull, ShuttingDown, Unavailable
from tests.fakes import OneReply, PuppetSession
from tests.unit.controlling import DOUBLING, LONG, TREBLING, TWO_VERSIONS, Bench, answer, loads, until, write
from tests.unit.loaded import request, run, values
from tests.unit.requesting import Held, asking, files, kept, refusal


def test_a_model_is_loaded_when_it_is_asked_for_and_serves(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        await bench.plane.load("m")
        assert bench.states() == {"m": {1: "READY"}}
        assert await answer(bench) == [[2.0, 4.0]]

    asking(tmp_path, test)


def test_a_model_that_came_after_the_start_is_found(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        bench.add("later", 1, text=TREBLING)
        await bench.plane.load("later")
        assert bench.states()["later"] == {1: "READY"}

    asking(tmp_path, test)


def test_a_load_of_what_serves_already_does_nothing(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        await bench.plane.load("m")
        loaded = bench.registry.find("m", "")
        await bench.plane.load("m")
        assert bench.registry.find("m", "") is loaded
        assert loads(bench) == ["1"]

    asking(tmp_path, test)


def test_a_load_takes_what_has_changed_meanwhile(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        await bench.plane.load("m")
        write(bench, 1, TREBLING)
        await bench.plane.load("m")
        assert await answer(bench) == [[3.0, 6.0]]
        write(bench, 2)
        await bench.plane.load("m")
        assert bench.states() == {"m": {2: "READY"}}
        (tmp_path / "m" / "config.pbtxt").write_text(TWO_VERSIONS)
        await bench.plane.load("m")
        assert bench.states() == {"m": {1: "READY", 2: "READY"}}

    asking(tmp_path, test)


def test_an_unknown_name_leaves_nothing_behind(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        message = await refusal(bench.plane.load("ghost"), NotFound)
        assert message == (
            "failed to load 'ghost', failed to poll from model repository: no repository has a model 'ghost'"
        )
        await bench.plane.unload("ghost")
        assert bench.states() == {"m": {}}
        assert bench.plane._intents._locks == {}

    asking(tmp_path, test)


@pytest.mark.parametrize("name", ["", "  ", "..", "a/b", "../m", ".hidden", "a\\b", "a\nb", "a\0b", "x" * 256])
def test_what_cannot_be_a_name_is_refused(tmp_path: Path, name: str) -> None:
    async def test(bench: Bench) -> None:
        message = await refusal(bench.plane.load(name), InvalidRequest)
        assert "Model name cannot be empty" in message or "invalid model name '" in message
        assert bench.states() == {"m": {}}

    asking(tmp_path, test)


def test_a_model_in_two_repositories_is_refused_with_both(tmp_path: Path) -> None:
    async def main() -> None:
        first, second = tmp_path / "first", tmp_path / "second"
        first.mkdir()
        second.mkdir()
        bench = Bench(first, load_models=(), on_request=True)
        bench.plane = ControlPlane(bench.settings(roots=(first, second)), bench.registry, bench.backend, bench.clock)
        bench.add("m", 1)
        await bench.plane.load_all()
        shutil.copytree(first / "m", second / "m")
        message = await refusal(bench.plane.load("m"), LoadFailed)
        assert f"is in more than one repository: {first} and {second}" in message
        assert bench.states() == {"m": {}}
        assert await bench.plane.index() == {
            "m": message.removeprefix("failed to load 'm', failed to poll from model repository: ")
        }
        await bench.plane.unload_all()

    run(main)


def test_a_load_that_fails_says_why_and_what_served_serves_on(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        await bench.plane.load("m")
        write(bench, 1, LONG)
        message = await refusal(bench.plane.load("m"), LoadFailed)
        assert message.startswith("load failed for model 'm': version 1 is at UNAVAILABLE state: ")
        assert "not a model" in message
        assert bench.states() == {"m": {1: "READY"}}
        assert await answer(bench) == [[2.0, 4.0]]
        assert "not a model" in await refusal(bench.plane.load("m"), LoadFailed), "it is tried again"
        write(bench, 1, DOUBLING)
        await bench.plane.load("m")
        assert bench.reason("m") == ""

    asking(tmp_path, test)


@pytest.mark.parametrize("text", ["max_batch_sise: 1", "version_policy { specific { versions: 9 } }"])
def test_a_configuration_that_is_wrong_or_wants_nothing_takes_nothing_down(tmp_path: Path, text: str) -> None:
    async def test(bench: Bench) -> None:
        await bench.plane.load("m")
        (tmp_path / "m" / "config.pbtxt").write_text(text)
        message = await refusal(bench.plane.load("m"), LoadFailed)
        assert message.startswith(f"load failed for model 'm': {tmp_path / 'm'}")
        assert bench.states() == {"m": {1: "READY"}}

    asking(tmp_path, test)


def test_a_model_that_fails_makes_a_server_that_serves_no_less_ready(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        write(bench, 1, LONG)
        await refusal(bench.plane.load("m"), LoadFailed)
        assert bench.states() == {"m": {1: "UNAVAILABLE"}}
        assert bench.registry.all_ready()
        write(bench, 1)
        await bench.plane.load("m")
        assert bench.states() == {"m": {1: "READY"}}

    asking(tmp_path, test)


def test_an_unloaded_model_is_gone_and_the_server_no_less_ready(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        await bench.plane.load("m")
        ready: list[bool] = []
        bench.registry.subscribe(lambda: ready.append(bench.registry.all_ready()))
        await bench.plane.unload("m")
        assert bench.states() == {"m": {1: "UNAVAILABLE"}}
        assert bench.reason("m") == "unloaded"
        with pytest.raises(NotFound, match="has no available versions"):
            bench.registry.find("m", "")
        await bench.plane.unload("m")
        await bench.plane.load("m")
        assert await answer(bench) == [[2.0, 4.0]]
        assert ready and all(ready)

    asking(tmp_path, test)


def test_an_unload_answers_what_was_asked_before_it_is_done(tmp_path: Path) -> None:
    async def main() -> None:
        bench = Bench(tmp_path, load_models=("m",), on_request=True)
        bench.add("m", 1)
        await bench.plane.load_all()
        asked = OneReply()
        Engine(bench.registry).infer(request([1.0, 2.0]), asked)
        unload = asyncio.create_task(bench.plane.unload("m"))
        await until(bench, lambda: bench.states() == {"m": {1: "DRAINING"}})
        assert not unload.done() and asked.answers == []
        bench.gate.open()
        await unload
        assert values(await asked.response())["y"] == [[2.0, 4.0]]
        await bench.plane.unload_all()

    run(main)


def test_wishes_for_one_model_are_carried_out_in_the_order_in_which_they_came(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        wishes = [bench.plane.load("m"), bench.plane.unload("m"), bench.plane.load("m", files()), bench.plane.load("m")]
        await asyncio.gather(*wishes)
        assert bench.states() == {"m": {1: "READY"}}
        assert loads(bench) == ["1", "7", "1"]
        assert bench.plane._intents._locks == {}

    asking(tmp_path, test)


def test_models_are_loaded_beside_each_other(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        bench.add("slow", 1)
        held = Held(bench, "slow")
        slow = asyncio.create_task(bench.plane.load("slow"))
        await until(bench, lambda: bench.states().get("slow") == {1: "LOADING"})
        await bench.plane.load("m")
        await bench.plane.unload("m")
        assert not slow.done()
        held.gates["slow"].set()
        await slow
        assert bench.states() == {"m": {1: "UNAVAILABLE"}, "slow": {1: "READY"}}

    asking(tmp_path, test, load_threads=2)


@pytest.mark.parametrize("threads", [1, 2])
def test_no_more_versions_are_loaded_at_once_than_there_are_threads(tmp_path: Path, threads: int) -> None:
    async def test(bench: Bench) -> None:
        ready: list[int] = []

        def load(path: Path, options: SessionOptions, attempt: LoadAttempt) -> PuppetSession:
            ready.append([states.get(1) for states in bench.states().values()].count("READY"))
            return honest(path, options, attempt)

        honest, bench.backend.load = bench.backend.load, load  # type: ignore[method-assign]
        for name in "nop":
            bench.add(name, 1)
        await asyncio.gather(*(bench.plane.load(name) for name in "mnop"))
        assert all(count + threads > opened for opened, count in enumerate(ready))

    asking(tmp_path, test, load_threads=threads)


def test_files_that_change_while_they_are_read_make_the_load_fail(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        def load(path: Path, options: SessionOptions, attempt: LoadAttempt) -> PuppetSession:
            bench.backend.load = honest  # type: ignore[method-assign]
            session = honest(path, options, attempt)
            path.write_text(TREBLING)
            return session

        honest, bench.backend.load = bench.backend.load, load  # type: ignore[method-assign]
        assert "the files of version 1 are changing" in await refusal(bench.plane.load("m"), LoadFailed)
        await bench.plane.load("m")
        assert await answer(bench) == [[3.0, 6.0]]

    asking(tmp_path, test)


def test_a_caller_that_leaves_stops_nothing(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        held = Held(bench, "m")
        caller = asyncio.create_task(bench.plane.load("m"))
        await until(bench, lambda: bench.states() == {"m": {1: "LOADING"}})
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        held.gates["m"].set()
        await until(bench, lambda: bench.states() == {"m": {1: "READY"}})
        await bench.plane.load("m")
        assert loads(bench) == ["1"]

    asking(tmp_path, test)


def test_a_server_that_stops_gives_up_what_is_asked_for(tmp_path: Path) -> None:
    async def main() -> None:
        bench = Bench(tmp_path, load_models=(), on_request=True)
        bench.add("m", 1)
        bench.add("n", 1)
        await bench.plane.load_all()
        held = Held(bench, "m")
        wishes = [bench.plane.load("m"), bench.plane.load("m", files()), bench.plane.unload("m"), bench.plane.load("n")]
        tasks = [asyncio.create_task(wish) for wish in wishes]
        await until(bench, lambda: bench.states()["m"] == {1: "LOADING"})
        bench.plane.give_up_loads()
        held.gates["m"].set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(result) for result in results] == [ShuttingDown, ShuttingDown, type(None), ShuttingDown]
        await refusal(bench.plane.load("m"), ShuttingDown)
        await bench.plane.unload_all()
        assert kept(bench) == []

    run(main)


def test_nothing_is_loaded_on_request_in_other_modes_or_before_the_start(tmp_path: Path) -> None:
    async def main() -> None:
        bench = Bench(tmp_path, load_models=(), on_request=True)
        bench.add("m", 1)
        assert await refusal(bench.plane.load("m"), NotReady) == "Server not ready"
        for mode in ({}, {"poll": True}):
            other = Bench(tmp_path, **mode)
            assert await refusal(other.plane.load("m"), Unavailable) == NOT_EXPLICIT
            assert await refusal(other.plane.unload("m"), Unavailable) == NOT_EXPLICIT

    run(main)


def test_a_load_that_fails_is_tried_again_as_often_as_asked_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def test(bench: Bench) -> None:
        failures = [LoadFailed("the disk is away"), LoadFailed("still away")]

        def load(path: Path, options: SessionOptions, attempt: LoadAttempt) -> PuppetSession:
            if failures:
                raise failures.pop(0)
            return honest(path, options, attempt)

        honest, bench.backend.load = bench.backend.load, load  # type: ignore[method-assign]
        await bench.plane.load("m")
        assert bench.states() == {"m": {1: "READY"}}
        assert "the disk is away; trying again, for the 1. time of 2" in caplog.text
        failures += [LoadFailed("away"), LoadFailed("away"), LoadFailed("gone for good")]
        await bench.plane.unload("m")
        assert "gone for good" in await refusal(bench.plane.load("m"), LoadFailed)

    asking(tmp_path, test, load_retries=2)


def test_counts_go_on_where_a_version_is_loaded_again(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        await bench.plane.load("m")
        await answer(bench)
        write(bench, 1, TREBLING)
        await bench.plane.load("m")
        await answer(bench)
        assert bench.registry.find("m", "1").statistics.success.count == 2
        await bench.plane.unload("m")
        await bench.plane.load("m")
        await answer(bench)
        assert bench.registry.find("m", "1").statistics.success.count == 3

    asking(tmp_path, test)


def test_callers_that_wait_are_bounded(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        held = Held(bench, "m")
        tasks = [asyncio.create_task(bench.plane.load("m")) for _ in range(MAX_REQUESTED)]
        await until(bench, lambda: bench.states() == {"m": {1: "LOADING"}})
        assert "256 loads and unloads are in progress" in await refusal(bench.plane.unload("m"), QueueFull)
        held.gates["m"].set()
        await asyncio.gather(*tasks)
        await bench.plane.unload("m")
        assert loads(bench) == ["1"]

    asking(tmp_path, test)
