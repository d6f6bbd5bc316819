"""The control plane on a repository of puppet models: what is loaded, and what becomes of it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from server.control import ControlPlane, ControlSettings
from server.engine import Engine
from server.errors import LoadFailed, NotReady
from server.models.lifecycle import State
from server.models.registry import Registry
from tests.fakes import OneReply, PuppetBackend, PuppetClock
from tests.unit.controlling import Bench, operators
from tests.unit.loaded import request, run, turn, values


def test_every_model_is_loaded_and_serves(tmp_path: Path) -> None:
    async def main() -> None:
        bench = Bench(tmp_path)
        bench.add("m", 1)
        bench.add("other", 1)
        await bench.plane.load_all()
        assert bench.states() == {"m": {1: "READY"}, "other": {1: "READY"}}
        assert bench.registry.all_ready()
        reply = OneReply()
        bench.gate.open()
        Engine(bench.registry).infer(request([1.0, 2.0]), reply)
        assert values(await reply.response()) == {"y": [[2.0, 4.0]]}
        await bench.plane.unload_all()

    run(main)


def test_the_configuration_is_completed_from_the_model(tmp_path: Path) -> None:
    async def main() -> None:
        bench = Bench(tmp_path)
        bench.add("m", 1)
        await bench.plane.load_all()
        config = bench.registry.find("m", "1").config
        assert (config.name, config.max_batch_size, config.inputs[0].dims) == ("m", 4, (2,))
        assert bench.registry.find("m", "1").load_seconds >= 0
        await bench.plane.unload_all()

    run(main)


def test_the_latest_version_is_loaded_where_the_configuration_says_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        bench = Bench(tmp_path)
        bench.add("m", 1, 2, 10)
        await bench.plane.load_all()
        assert bench.states() == {"m": {10: "READY"}}
        assert [path for path, _ in bench.backend.opened] == [tmp_path / "m" / "10" / "model.onnx"]
        await bench.plane.unload_all()

    run(main)


POLICIES = {
    "all": ("version_policy { all {} }", {1: "READY", 2: "READY", 5: "READY"}),
    "the latest two": ("version_policy { latest { num_versions: 2 } }", {2: "READY", 5: "READY"}),
    "specific ones": ("version_policy { specific { versions: [ 5, 1, 9 ] } }", {1: "READY", 5: "READY"}),
}


@pytest.mark.parametrize(("config", "states"), POLICIES.values(), ids=POLICIES)
def test_the_version_policy_decides_what_is_loaded(tmp_path: Path, config: str, states: dict[int, str]) -> None:
    async def main() -> None:
        bench = Bench(tmp_path)
        bench.add("m", 1, 2, 5, config=config)
        await bench.plane.load_all()
        assert bench.states() == {"m": states}
        await bench.plane.unload_all()

    run(main)


def test_a_version_that_fails_leaves_the_others_serving(tmp_path: Path) -> None:
    async def main() -> None:
        bench = Bench(tmp_path)
        bench.add("m", 1, 2, config="version_policy { all {} }")
        (tmp_path / "m" / "2" / "model.onnx").write_text("garbage")
        await bench.plane.load_all()
        assert bench.states() == {"m": {1: "READY", 2: "UNAVAILABLE"}}
        status = bench.registry.entry("m").statuses[2]
        assert status.reason == f"{tmp_path / 'm' / '2' / 'model.onnx'}: not a model"
        assert bench.registry.find("m", "").version == 1
        assert not bench.registry.all_ready()
        await bench.plane.unload_all()

    run(main)


BROKEN = {
    "an operator library that is not there": (operators("ops.so"), (1,), "ops.so: no such operator library"),
    "an operator library elsewhere": (operators("../ops.so"), (1,), "lies outside of the model's folder"),
    "a typo in the configuration": ("max_batch_sise: 4", (1,), "config.pbtxt: line 1: "),
    "a configuration that does not fit the model": (
        'input { name: "x" data_type: TYPE_INT8 dims: [ 2 ] } output { name: "y" data_type: TYPE_FP32 dims: [ 2 ] }',
        (1,),
        "config.pbtxt: ",
    ),
    "a GPU asked for by kind": ("instance_group { kind: KIND_GPU }", (1,), "asks for a GPU"),
    "a GPU asked for by number": ("instance_group { gpus: [ 0 ] }", (1,), "asks for a GPU"),
    "no version": (None, (), "it has no version; add a folder '1' with model.onnx"),
    "no version that is wanted": (
        "version_policy { specific { versions: [ 7 ] } }",
        (1, 2),
        "none of its versions [1, 2] is wanted; add a folder '1' with model.onnx",
    ),
}


@pytest.mark.parametrize(("config", "versions", "reason"), BROKEN.values(), ids=BROKEN)
def test_a_broken_model_says_why_and_the_others_serve(
    tmp_path: Path, config: str | None, versions: tuple[int, ...], reason: str
) -> None:
    async def main() -> None:
        bench = Bench(tmp_path)
        bench.add("broken", *versions, config=config)
        bench.add("fine", 1)
        await bench.plane.load_all()
        assert reason in bench.reason("broken")
        assert str(tmp_path / "broken") in bench.reason("broken")
        assert bench.states()["fine"] == {1: "READY"}
        assert bench.registry.entry("broken").latest is None
        assert not bench.registry.all_ready()
        await bench.plane.unload_all()

    run(main)


def test_an_empty_version_folder_fails_that_version(tmp_path: Path) -> None:
    async def main() -> None:
        bench = Bench(tmp_path)
        (tmp_path / "m" / "1").mkdir(parents=True)
        await bench.plane.load_all()
        assert bench.states() == {"m": {1: "UNAVAILABLE"}}
        assert "the version folder is empty" in bench.reason("m")

    run(main)


def test_a_backend_that_raises_the_unexpected_fails_that_version_only(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        bench = Bench(tmp_path)
        bench.add("a", 1)
        bench.add("b", 1)
        (tmp_path / "a" / "1" / "model.onnx").write_bytes(b"\xff")  # the puppet backend reads text
        await bench.plane.load_all()
        assert bench.states() == {"a": {1: "UNAVAILABLE"}, "b": {1: "READY"}}
        assert bench.reason("a").startswith("unexpected UnicodeDecodeError: ")
        await bench.plane.unload_all()

    run(main)
    assert "loading model 'a' version 1 raised" in caplog.text


def test_without_autocomplete_a_model_must_be_described(tmp_path: Path) -> None:
    async def main() -> None:
        bench = Bench(tmp_path, autocomplete=False)
        bench.add("m", 1)
        await bench.plane.load_all()
        assert bench.states() == {"m": {1: "UNAVAILABLE"}}
        assert "field 'output' is missing" in bench.reason("m")

    run(main)


def test_explicit_mode_loads_what_is_named_and_lists_the_rest(tmp_path: Path) -> None:
    async def main() -> None:
        bench = Bench(tmp_path, load_models=("wanted",))
        bench.add("wanted", 1)
        bench.add("other", 1)
        await bench.plane.load_all()
        assert bench.states() == {"wanted": {1: "READY"}, "other": {}}
        assert bench.registry.all_ready()
        await bench.plane.unload_all()

    run(main)


def test_explicit_mode_without_names_loads_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        bench = Bench(tmp_path, load_models=())
        bench.add("m", 1)
        await bench.plane.load_all()
        assert bench.states() == {"m": {}}
        assert bench.backend.opened == []

    run(main)


def test_a_star_names_every_model(tmp_path: Path) -> None:
    async def main() -> None:
        bench = Bench(tmp_path, load_models=("*",))
        bench.add("a", 1)
        bench.add("b", 1)
        await bench.plane.load_all()
        assert bench.states() == {"a": {1: "READY"}, "b": {1: "READY"}}
        await bench.plane.unload_all()

    run(main)


def test_a_named_model_that_does_not_exist_is_a_problem(tmp_path: Path) -> None:
    async def main() -> None:
        bench = Bench(tmp_path, load_models=("ghost",))
        await bench.plane.load_all()
        assert bench.reason("ghost") == "no repository has a model 'ghost'"
        assert not bench.registry.all_ready()

    run(main)


def test_a_repository_that_does_not_exist_stops_the_server(tmp_path: Path) -> None:
    async def main() -> None:
        bench = Bench(tmp_path / "nowhere")
        with pytest.raises(LoadFailed, match="nowhere"):
            await bench.plane.load_all()

    run(main)


def test_a_model_in_two_repositories_is_a_problem_only_where_it_is_wanted(tmp_path: Path) -> None:
    async def main() -> None:
        for root in ("first", "second"):
            (tmp_path / root / "twin" / "1").mkdir(parents=True)
        roots = (tmp_path / "first", tmp_path / "second")
        for load_models, problem in ((None, True), (("twin",), True), ((), False)):
            registry = Registry()
            settings = ControlSettings(roots, load_models, default_max_batch_size=4, autocomplete=True)
            await ControlPlane(settings, registry, PuppetBackend(), PuppetClock()).load_all()
            assert ("more than one repository" in registry.entry("twin").problem) is problem

    run(main)


def test_unloading_answers_what_is_in_progress_and_refuses_what_comes(tmp_path: Path) -> None:
    async def main() -> None:
        bench = Bench(tmp_path)
        bench.add("m", 1)
        await bench.plane.load_all()
        engine = Engine(bench.registry)
        replies = [OneReply() for _ in range(5)]
        for n, reply in enumerate(replies):
            engine.infer(request([float(n), 0.0]), reply)
        unload = asyncio.create_task(bench.plane.unload_all())
        await turn()
        assert bench.states() == {"m": {1: str(State.DRAINING)}}
        late = OneReply()
        named = request([1.0, 1.0])
        named.model_version = "1"
        engine.infer(named, late)
        assert [type(answer) for answer in late.answers] == [NotReady]
        bench.gate.open(5)
        await unload
        assert [values(await reply.response())["y"] for reply in replies] == [[[2.0 * n, 0.0]] for n in range(5)]
        assert bench.states() == {"m": {1: str(State.UNAVAILABLE)}}
        assert bench.reason("m") == "unloaded"

    run(main)


def test_unloading_nothing_is_done_at_once(tmp_path: Path) -> None:
    async def main() -> None:
        await Bench(tmp_path).plane.unload_all()

    run(main)
