"""The control plane on repositories at a distance: started from, followed, away."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from server.errors import LoadFailed, ShuttingDown, Unavailable
from tests.fakes import Gate
from tests.stores import PuppetStore
from tests.unit.controlling import (
    DOUBLING,
    LONG,
    TREBLING,
    TWO_VERSIONS,
    Bench,
    answer,
    loads,
    settle,
    write,
)
from tests.unit.loaded import run


def test_a_model_that_turns_up_in_two_repositories_serves_on(tmp_path: Path) -> None:
    async def main() -> None:
        store = PuppetStore()
        bench = Bench(tmp_path, poll=True, stores={"s3://bucket/models": store})
        bench.add("m", 1)
        await bench.plane.load_all()
        store.put("m/1/model.onnx", DOUBLING)
        for _ in range(3):
            await bench.plane.poll()
        assert "more than one repository" in bench.registry.entry("m").problem
        store.remove("m/1/model.onnx")
        for _ in range(3):
            await bench.plane.poll()
        assert bench.registry.entry("m").problem == ""
        assert bench.states() == {"m": {1: "READY"}}
        assert loads(bench) == ["1"]
        await bench.plane.unload_all()

    run(main)


def test_a_store_that_is_away_does_not_hold_up_a_folder(tmp_path: Path) -> None:
    async def main() -> None:
        store = PuppetStore()
        store.put("far/1/model.onnx", DOUBLING)
        bench = Bench(tmp_path, poll=True, stores={"s3://bucket/models": store})
        bench.add("m", 1)
        await bench.plane.load_all()
        store.down = "no route"
        write(bench, 2)
        await settle(bench)
        assert bench.states() == {"far": {1: "READY"}, "m": {2: "READY"}}
        assert bench.plane.unseen_repositories == 1
        store.down = ""
        await bench.plane.poll()
        assert bench.plane.unseen_repositories == 0
        await bench.plane.unload_all()

    run(main)


def test_a_store_at_a_distance_is_followed_like_a_folder(tmp_path: Path) -> None:
    async def main() -> None:
        store = PuppetStore()
        store.put("m/config.pbtxt", TWO_VERSIONS)
        for version in (1, 2, 3):
            store.put(f"m/{version}/model.onnx", DOUBLING)
        bench = Bench(tmp_path, poll=True, stores={"s3://bucket/models": store})
        bench.gate.open(1_000)
        await bench.plane.load_all()
        assert bench.states() == {"m": {2: "READY", 3: "READY"}}
        assert "m/1/model.onnx" not in store.reads
        store.put("m/3/model.onnx", TREBLING)
        await settle(bench)
        assert await answer(bench) == [[3.0, 6.0]]
        assert loads(bench) == ["3", "2", "3"], "version 2 has not changed"
        store.content["m/3/model.onnx"] = b"damaged on its way"
        store.lie_about("m/3/model.onnx", tag="new", size=18)
        await settle(bench)
        assert "its MD5 is" in bench.registry.entry("m").problem
        store.down = "no route"
        await settle(bench)
        assert bench.states() == {"m": {2: "READY", 3: "READY"}}
        assert await answer(bench) == [[3.0, 6.0]]
        await bench.plane.unload_all()

    run(main)


def test_a_version_that_serves_is_kept_here_while_its_successor_is_bad(tmp_path: Path) -> None:
    async def main() -> None:
        store = PuppetStore()
        store.put("m/1/model.onnx", DOUBLING)
        bench = Bench(tmp_path, poll=True, stores={"s3://bucket/models": store})
        await bench.plane.load_all()
        path = bench.backend.opened[0][0]
        store.put("m/2/model.onnx", LONG)
        for _ in range(4):
            await bench.plane.poll()
        assert bench.states() == {"m": {1: "READY", 2: "UNAVAILABLE"}}
        assert path.is_file(), "it may have to be loaded again"
        await bench.plane.unload_all()

    run(main)


def test_explicit_mode_fetches_only_what_is_named(tmp_path: Path) -> None:
    async def main() -> None:
        store = PuppetStore()
        for name in ("a", "b"):
            store.put(f"{name}/1/model.onnx", DOUBLING)
        bench = Bench(tmp_path, load_models=("a",), stores={"s3://bucket/models": store})
        await bench.plane.load_all()
        assert bench.states() == {"a": {1: "READY"}, "b": {}}
        assert store.reads == ["a/1/model.onnx"]
        await bench.plane.unload_all()

    run(main)


def test_a_store_that_cannot_be_listed_stops_the_server_at_start(tmp_path: Path) -> None:
    async def main() -> None:
        bench = Bench(tmp_path, stores={"s3://bucket/models": PuppetStore(down="no route")})
        with pytest.raises(LoadFailed, match="no route"):
            await bench.plane.load_all()
        await bench.plane.unload_all()

    run(main)


def test_a_repository_without_models_is_told_at_start(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        bench = Bench(tmp_path, stores={"s3://bucket/modles": PuppetStore()})
        await bench.plane.load_all()
        await bench.plane.unload_all()

    run(main)
    assert f"there is no model in {tmp_path}, s3://bucket/modles" in caplog.text


def test_a_model_at_a_distance_is_fetched_when_it_is_asked_for(tmp_path: Path) -> None:
    async def main() -> None:
        store = PuppetStore()
        store.put("m/1/model.onnx", DOUBLING)
        store.put("other/1/model.onnx", DOUBLING)
        bench = Bench(tmp_path, load_models=(), on_request=True, stores={"s3://bucket/models": store})
        bench.gate.open(1_000)
        await bench.plane.load_all()
        assert store.reads == []
        assert await bench.plane.index() == {"m": "", "other": ""}
        await bench.plane.load("m")
        assert await answer(bench) == [[2.0, 4.0]]
        store.put("m/1/model.onnx", TREBLING)
        store.put("new/1/model.onnx", DOUBLING)
        await bench.plane.load("m")
        assert await answer(bench) == [[3.0, 6.0]]
        await bench.plane.load("new")
        assert bench.states() == {"m": {1: "READY"}, "new": {1: "READY"}, "other": {}}
        assert "other/1/model.onnx" not in store.reads
        await bench.plane.unload_all()

    run(main)


def test_a_store_that_is_away_is_no_fault_of_who_asks(tmp_path: Path) -> None:
    async def main() -> None:
        store = PuppetStore()
        store.put("m/1/model.onnx", DOUBLING)
        bench = Bench(tmp_path, load_models=("m",), on_request=True, stores={"s3://bucket/models": store})
        await bench.plane.load_all()
        store.down = "no route"
        with pytest.raises(Unavailable, match=r"failed to load 'm', failed to poll from model repository: .*no route"):
            await bench.plane.load("m")
        assert bench.states() == {"m": {1: "READY"}}
        await bench.plane.unload_all()

    run(main)


def test_a_configuration_by_name_decides_which_versions_are_fetched(tmp_path: Path) -> None:
    async def main() -> None:
        store = PuppetStore()
        store.put("m/config.pbtxt", TWO_VERSIONS)
        store.put("m/configs/one.pbtxt", "version_policy { specific { versions: 1 } }")
        for version in (1, 2):
            store.put(f"m/{version}/model.onnx", DOUBLING)
        bench = Bench(tmp_path, config_name="one", stores={"s3://bucket/models": store})
        await bench.plane.load_all()
        assert bench.states() == {"m": {1: "READY"}}
        assert "m/2/model.onnx" not in store.reads
        await bench.plane.unload_all()

    run(main)


def test_a_server_that_stops_waits_for_no_fetch_that_was_asked_for(tmp_path: Path) -> None:
    async def main() -> None:
        fetching, gate = asyncio.Event(), Gate()
        loop = asyncio.get_running_loop()

        def hold(_: str) -> None:
            loop.call_soon_threadsafe(fetching.set)
            gate.wait()

        store = PuppetStore(on_read=hold)
        store.put("m/1/model.onnx", DOUBLING)
        bench = Bench(tmp_path, load_models=(), on_request=True, stores={"s3://bucket/models": store})
        await bench.plane.load_all()
        load = asyncio.create_task(bench.plane.load("m"))
        await fetching.wait()
        bench.plane.give_up_loads()
        with pytest.raises(ShuttingDown, match=r"failed to load 'm', .*: given up, because the server stops"):
            await load
        gate.open()
        await bench.plane.unload_all()
        assert bench.states() == {"m": {}}

    run(main)
