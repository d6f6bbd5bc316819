"""Ensembles in the control plane: they go up and down with their models, and say why."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Coroutine
from pathlib import Path

import pytest

from server.engine import Engine
from server.errors import LoadFailed, NotReady
from server.models.ensemble_model import EnsembleVersion
from server.models.ensembles import MAX_DEPTH
from server.models.lifecycle import State
from server.models.model import LoadedVersion
from tests.ensembles import ensemble, step
from tests.fakes import OneReply
from tests.unit.controlling import DOUBLING, TREBLING, Bench, settle, until
from tests.unit.loaded import request, run, turn, values

ROW = {"x": ("FP32", [2])}, {"y": ("FP32", [2])}
MAX_BATCH = "max_batch_size: 8"


def of(*models: str, scheduling: str = "", max_batch_size: int = 8) -> str:
    """The configuration of a chain of these models, each of which may be with its version: 'm:2'."""
    tensors = ["x", *(f"t{n}" for n in range(1, len(models))), "y"]
    steps = []
    for n, model in enumerate(models):
        name, _, version = model.partition(":")
        steps.append(step(name, {"x": tensors[n]}, {"y": tensors[n + 1]}, int(version or -1)))
    return ensemble(*steps, inputs=ROW[0], outputs=ROW[1], scheduling=scheduling, max_batch_size=max_batch_size)


def change(bench: Bench, name: str, config: str) -> None:
    (bench.root / name / "config.pbtxt").write_text(config)


def add(bench: Bench, name: str, *models: str) -> None:
    """Add an ensemble, whose version is an empty folder."""
    bench.add(name, config=of(*models))
    (bench.root / name / "1").mkdir()


def polled(root: Path, test: Callable[[Bench], Coroutine[None, None, None]], **more: object) -> None:
    """Run a test on a bench that polls and has model 'm'."""

    async def main() -> None:
        bench = Bench(root, poll=True, **more)  # type: ignore[arg-type]
        bench.gate.open(1_000)
        bench.add("m", 1, config=MAX_BATCH)
        await test(bench)
        await bench.plane.unload_all()

    run(main)


async def answer(bench: Bench, name: str = "e") -> object:
    reply = OneReply()
    asked = request([1.0, 2.0])
    asked.model_name = name
    Engine(bench.registry).infer(asked, reply)
    return values(await reply.response())["y"]


def test_an_ensemble_is_loaded_after_its_models_whatever_their_names(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        add(bench, "a", "m", "m")
        add(bench, "b", "a", "m")
        await bench.plane.load_all()
        assert bench.states() == {"a": {1: "READY"}, "b": {1: "READY"}, "m": {1: "READY"}}
        assert [bench.registry.entry(name).failed_loads for name in "ab"] == [0, 0]
        assert await answer(bench, "a") == [[4.0, 8.0]]
        assert await answer(bench, "b") == [[8.0, 16.0]]

    polled(tmp_path, test)


REASONS = {
    "a model that is nowhere": (of("ghost"), "ensemble e contains models that are not available or ambiguous: ghost"),
    "a model that cannot be loaded": (
        of("broken"),
        "ensemble 'e' depends on 'broken', which has no loaded version: {root}/broken/1/model.onnx: not a model",
    ),
    "a version that is nowhere": (of("m:7"), "ensemble 'e' depends on 'm', which has no version 7 that is loaded"),
    "a model that takes smaller batches": (
        of("m", max_batch_size=9),
        "ensemble 'e': field 'max_batch_size' allows 9, but model 'm' of ensemble_scheduling.step[0] only allows 8",
    ),
    "itself by way of another": (of("f"), "circular dependency between ensembles: e -> f -> e"),
}


@pytest.mark.parametrize(("config", "reason"), REASONS.values(), ids=REASONS)
def test_an_ensemble_that_cannot_serve_says_why(tmp_path: Path, config: str, reason: str) -> None:
    async def test(bench: Bench) -> None:
        bench.add("broken", 1, config=MAX_BATCH, text="no model")
        add(bench, "e", "m")
        change(bench, "e", config)
        add(bench, "f", "e")
        await bench.plane.load_all()
        assert bench.states()["e"] == {1: "UNAVAILABLE"}
        assert bench.reason("e") == reason.format(root=tmp_path)
        assert not bench.registry.all_ready()

    polled(tmp_path, test)


def test_an_ensemble_without_a_version_is_told_what_to_add(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        bench.add("e", config=of("m"))
        await bench.plane.load_all()
        assert bench.reason("e") == f"{tmp_path / 'e'}: it has no version; add a folder '1' which may be empty"

    polled(tmp_path, test)


def test_ensembles_are_only_so_deep_in_each_other(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        for n in range(MAX_DEPTH + 1):
            add(bench, f"e{n}", f"e{n - 1}" if n else "m")
        await bench.plane.load_all()
        assert bench.states()[f"e{MAX_DEPTH - 1}"] == {1: "READY"}
        assert bench.reason(f"e{MAX_DEPTH}") == (
            f"ensemble 'e{MAX_DEPTH}' is {MAX_DEPTH + 1} ensembles deep; {MAX_DEPTH} are allowed"
        )

    polled(tmp_path, test)


def test_an_ensemble_comes_once_its_models_do_and_goes_when_they_go(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        add(bench, "e", "late")
        add(bench, "outer", "e", "m")
        await bench.plane.load_all()
        assert bench.states()["outer"] == {1: "UNAVAILABLE"}
        bench.add("late", 1, config=MAX_BATCH)
        await settle(bench)
        assert (bench.states()["e"], bench.states()["outer"]) == ({1: "READY"}, {1: "READY"})
        assert bench.registry.all_ready()
        assert await answer(bench, "outer") == [[4.0, 8.0]]
        shutil.rmtree(tmp_path / "late")
        await settle(bench)
        await until(bench, lambda: bench.states()["outer"] == {1: "UNAVAILABLE"})
        assert bench.states()["e"] == {1: "UNAVAILABLE"}
        reason = "ensemble e contains models that are not available or ambiguous: late"
        assert bench.reason("e") == reason
        assert bench.reason("outer") == f"ensemble 'outer' depends on 'e', which has no loaded version: {reason}"
        assert not bench.registry.all_ready()

    polled(tmp_path, test)


def test_a_model_that_is_loaded_anew_is_taken_up_at_once(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        add(bench, "e", "m")
        await bench.plane.load_all()
        serving = bench.registry.find("e", "")
        (tmp_path / "m" / "1" / "model.onnx").write_text(TREBLING)
        await settle(bench)
        assert bench.registry.find("e", "") is serving
        assert await answer(bench) == [[3.0, 6.0]]

    polled(tmp_path, test)


def test_a_request_keeps_the_models_that_it_came_to(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        add(bench, "e", "m", "m")
        await bench.plane.load_all()
        for _ in range(1_000):
            bench.gate.wait()  # shut it
        reply = OneReply()
        asked = request([1.0, 2.0])
        asked.model_name = "e"
        Engine(bench.registry).infer(asked, reply)
        await turn()
        old = bench.registry.find("m", "")
        (tmp_path / "m" / "1" / "model.onnx").write_text(TREBLING)
        polling = asyncio.create_task(settle(bench))
        await until(bench, lambda: bench.registry.find("m", "") is not old)
        assert not polling.done(), "the old one is drained before the look is over"
        bench.gate.open(2)
        assert values(await reply.response())["y"] == [[4.0, 8.0]]
        await polling
        bench.gate.open(2)
        assert await answer(bench) == [[9.0, 18.0]]

    polled(tmp_path, test)


def test_a_request_keeps_the_models_of_an_ensemble_inside_the_one_that_it_came_to(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        bench.add("late", 1, config=f"{MAX_BATCH} version_policy {{ all {{ }} }}")
        add(bench, "inner", "late")
        add(bench, "e", "m", "inner")
        await bench.plane.load_all()
        for _ in range(1_000):
            bench.gate.wait()  # shut it
        reply = OneReply()
        asked = request([1.0, 2.0])
        asked.model_name = "e"
        Engine(bench.registry).infer(asked, reply)
        (tmp_path / "late" / "2").mkdir()
        (tmp_path / "late" / "2" / "model.onnx").write_text(TREBLING)
        await settle(bench)
        assert bench.registry.find("late", "").version == 2
        bench.gate.open(2)
        assert values(await reply.response())["y"] == [[4.0, 8.0]]
        bench.gate.open(2)
        assert await answer(bench) == [[6.0, 12.0]]

    polled(tmp_path, test)


def test_an_ensemble_that_changes_is_replaced_and_a_bad_one_is_not(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        add(bench, "e", "m")
        await bench.plane.load_all()
        change(bench, "e", of("m", "m"))
        await settle(bench)
        assert await answer(bench) == [[4.0, 8.0]]
        change(bench, "e", of("late", "m", "m"))
        await settle(bench)
        assert bench.states()["e"] == {1: "READY"}
        assert "what was loaded before serves on: ensemble e contains models" in bench.reason("e")
        assert await answer(bench) == [[4.0, 8.0]]
        bench.add("late", 1, config=MAX_BATCH, text=TREBLING)
        await settle(bench)
        assert bench.reason("e") == ""
        assert await answer(bench) == [[12.0, 24.0]]

    polled(tmp_path, test)


def test_an_ensemble_whose_files_are_bad_now_does_not_come_back_as_it_was(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        add(bench, "e", "late")
        await bench.plane.load_all()
        config = of("late").replace('output { name: "y"', 'output { name: "y" label_filename: "labels.txt"')
        change(bench, "e", config)
        await settle(bench)
        bench.add("late", 1, config=MAX_BATCH)
        await settle(bench)
        assert bench.states() == {"e": {1: "UNAVAILABLE"}, "late": {1: "READY"}, "m": {1: "READY"}}
        assert "labels.txt: no such label file" in bench.reason("e")

    polled(tmp_path, test)


def test_labels_come_from_the_model_however_deep_it_is(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        tensors = [f'{{ name: "{name}" data_type: TYPE_FP32 dims: [ 2 ] %s }}' for name in "xy"]
        labelled = tensors[1] % 'label_filename: "labels.txt"'
        bench.add("l", 1, config=f"{MAX_BATCH} input {tensors[0] % ''} output {labelled}")
        (tmp_path / "l" / "labels.txt").write_text("cat\ndog\n")
        add(bench, "e", "m", "l")
        add(bench, "outer", "e")
        await bench.plane.load_all()
        outer = bench.registry.find("outer", "")
        assert isinstance(outer, EnsembleVersion)
        assert outer.members.labels == {"y": ("cat", "dog")}
        (tmp_path / "e").rename(tmp_path.parent / "e")
        await settle(bench)
        (tmp_path.parent / "e").rename(tmp_path / "e")  # from now on it is looked at after 'outer'
        await settle(bench)
        outer = bench.registry.find("outer", "")
        assert isinstance(outer, EnsembleVersion)
        (tmp_path / "l" / "labels.txt").write_text("cat\nwolf\n")
        (tmp_path / "l" / "1" / "model.onnx").write_text(TREBLING)
        await settle(bench)
        assert bench.registry.find("outer", "") is outer
        assert outer.members.labels == {"y": ("cat", "wolf")}

    polled(tmp_path, test)


def test_answers_that_depend_on_what_came_before_are_not_kept(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        bench.add("s", 1, config=f"{MAX_BATCH} sequence_batching {{ }}")
        add(bench, "inner", "s")
        add(bench, "e", "m", "inner")
        change(bench, "e", of("m", "inner") + "response_cache { enable: true }")
        await bench.plane.load_all()
        assert bench.states()["e"] == {1: "UNAVAILABLE"}
        assert bench.reason("e") == (
            "ensemble 'e': field 'response_cache.enable' cannot go with sequence_batching of model 's': "
            "answers depend on what came before; remove one of the two"
        )

    polled(tmp_path, test)


def test_an_ensemble_that_becomes_a_model_is_watched_no_more(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        add(bench, "e", "m")
        await bench.plane.load_all()
        (tmp_path / "e" / "1" / "model.onnx").write_text(DOUBLING)
        change(bench, "e", MAX_BATCH)
        await settle(bench)
        assert await answer(bench) == [[2.0, 4.0]]
        assert not isinstance(bench.registry.find("e", ""), EnsembleVersion)
        for state in (State.DRAINING, State.UNAVAILABLE):  # as where its session goes bad
            bench.registry.set_state("e", 1, state)
        assert bench.states() == {"e": {1: "UNAVAILABLE"}, "m": {1: "READY"}}

    polled(tmp_path, test)


def test_an_ensemble_that_is_removed_is_forgotten_and_its_models_serve(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        add(bench, "e", "m")
        await bench.plane.load_all()
        shutil.rmtree(tmp_path / "e")
        await settle(bench)
        assert bench.states() == {"m": {1: "READY"}}
        shutil.rmtree(tmp_path / "m")
        await settle(bench)
        assert bench.states() == {}

    polled(tmp_path, test)


def test_both_are_removed_at_once(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        add(bench, "e", "m")
        await bench.plane.load_all()
        shutil.rmtree(tmp_path / "e")
        shutil.rmtree(tmp_path / "m")
        await settle(bench)
        await settle(bench)
        assert bench.states() == {}

    polled(tmp_path, test)


def test_a_model_that_is_taken_down_takes_the_ensemble_and_its_requests_along(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        add(bench, "e", "m", "m")
        await bench.plane.load_all()
        for _ in range(1_000):
            bench.gate.wait()
        reply = OneReply()
        asked = request([1.0, 2.0])
        asked.model_name = "e"
        Engine(bench.registry).infer(asked, reply)
        await turn()
        member = bench.registry.find("m", "")
        assert isinstance(member, LoadedVersion)
        bench.registry.set_state("m", 1, State.DRAINING, "its session went bad")
        assert bench.states()["e"] == {1: "DRAINING"}
        abandoned = asyncio.create_task(member.abandon("it is not at ready state"))
        bench.gate.open(1)  # the first step runs already; the second finds the session gone
        error = await reply.error()
        assert isinstance(error, NotReady)
        assert str(error) == "in ensemble 'e', it is not at ready state"
        await abandoned
        bench.registry.set_state("m", 1, State.UNAVAILABLE, "its session went bad")
        await until(bench, lambda: bench.states()["e"] == {1: "UNAVAILABLE"})
        assert bench.reason("e").endswith("which has no loaded version: its session went bad")

    polled(tmp_path, test)


def test_explicit_mode_loads_the_models_of_an_ensemble_with_it(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        bench.add("other", 1)
        add(bench, "inner", "m")
        add(bench, "e", "inner")
        await bench.plane.load_all()
        assert bench.states() == {"e": {1: "READY"}, "inner": {1: "READY"}, "m": {1: "READY"}, "other": {}}

    polled(tmp_path, test, load_models=("e",))


def test_what_nobody_needs_without_an_ensemble_is_known(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        for name in ("own", "shared"):
            bench.add(name, 1, config=MAX_BATCH)
        add(bench, "inner", "own", "shared")
        add(bench, "outer", "inner", "m")
        add(bench, "other", "shared")
        await bench.plane.load_all()
        ensembles = bench.plane._loader.ensembles
        assert ensembles.dependents("m") == []
        assert ensembles.dependents("other") == []
        assert sorted(ensembles.dependents("outer")) == ["inner", "m", "own"]
        assert sorted(ensembles.dependents("outer", kept=("inner",))) == ["m"]
        assert ensembles.dependents("inner") == ["own"]

    polled(tmp_path, test)


def asking(root: Path, test: Callable[[Bench], Coroutine[None, None, None]]) -> None:
    """Run a test on a bench that loads on request, and has 'm' and an ensemble 'e' of it."""

    async def main() -> None:
        bench = Bench(root, load_models=(), on_request=True)
        bench.gate.open(1_000)
        bench.add("m", 1, config=MAX_BATCH)
        add(bench, "e", "m")
        await bench.plane.load_all()
        await test(bench)
        await bench.plane.unload_all()

    run(main)


def test_an_ensemble_that_is_asked_for_brings_its_models(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        add(bench, "outer", "e", "m")
        await bench.plane.load("outer")
        assert bench.states() == {"e": {1: "READY"}, "m": {1: "READY"}, "outer": {1: "READY"}}
        assert [bench.registry.entry(name).failed_loads for name in ("e", "m", "outer")] == [0, 0, 0]
        assert await answer(bench, "outer") == [[4.0, 8.0]]

    asking(tmp_path, test)


def test_an_ensemble_whose_model_cannot_be_had_says_so_to_who_asks(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        add(bench, "f", "g")
        add(bench, "g", "f")
        add(bench, "h", "nobody")
        for name, reason in (
            ("f", "circular dependency between ensembles: f -> g -> f"),
            ("h", "ensemble h contains models that are not available or ambiguous: nobody"),
        ):
            with pytest.raises(LoadFailed, match=reason):
                await bench.plane.load(name)

    asking(tmp_path, test)


def test_what_came_with_an_ensemble_goes_with_it_where_that_is_asked_for(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        await bench.plane.load("e")
        await bench.plane.unload("e")
        assert bench.states() == {"e": {1: "UNAVAILABLE"}, "m": {1: "READY"}}
        await bench.plane.load("e")
        await bench.plane.unload("e", with_dependents=True)
        assert bench.states() == {"e": {1: "UNAVAILABLE"}, "m": {1: "UNAVAILABLE"}}
        assert bench.registry.all_ready()
        await bench.plane.load("m")
        await bench.plane.load("e")
        await bench.plane.unload("e", with_dependents=True)
        assert bench.states()["m"] == {1: "READY"}, "it was asked for by name"

    asking(tmp_path, test)


def test_an_ensemble_that_was_unloaded_does_not_come_back_with_its_model(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        await bench.plane.load("e")
        await bench.plane.unload("m")
        await until(bench, lambda: bench.states()["e"] == {1: "UNAVAILABLE"})
        assert not bench.registry.all_ready()
        await bench.plane.load("m")
        assert bench.states()["e"] == {1: "READY"}
        await bench.plane.unload("m")
        await bench.plane.unload("e")
        await bench.plane.load("m")
        assert bench.states() == {"e": {1: "UNAVAILABLE"}, "m": {1: "READY"}}
        assert bench.registry.all_ready()

    asking(tmp_path, test)


def test_going_down_with_requests_in_flight_answers_them(tmp_path: Path) -> None:
    async def main() -> None:
        bench = Bench(tmp_path)
        bench.add("m", 1, config=MAX_BATCH)
        add(bench, "e", "m", "m")
        await bench.plane.load_all()
        replies = [OneReply() for _ in range(3)]
        for reply in replies:
            asked = request([1.0, 2.0])
            asked.model_name = "e"
            Engine(bench.registry).infer(asked, reply)
        bench.gate.open(1_000)
        await bench.plane.unload_all()
        assert [values(await reply.response())["y"] for reply in replies] == [[[4.0, 8.0]]] * 3
        assert bench.states() == {"e": {1: "UNAVAILABLE"}, "m": {1: "UNAVAILABLE"}}

    run(main)
