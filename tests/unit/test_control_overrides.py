"""The control plane when a configuration or files come along with a load."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from server.errors import InvalidRequest, LoadFailed, QueueFull
from server.models.overrides import Override
from tests.unit.controlling import DOUBLING, LONG, Bench, answer, loads, until
from tests.unit.requesting import Held, asking, files, kept, refusal

PLAIN = Override(json.dumps({"max_batch_size": 2}))


def test_a_configuration_that_comes_along_holds_until_a_load_without_one(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        await bench.plane.load("m", PLAIN)
        assert bench.registry.find("m", "1").config.max_batch_size == 2
        await bench.plane.load("m", PLAIN)
        assert loads(bench) == ["1"], "it is the same once more"
        await bench.plane.load("m")
        assert bench.registry.find("m", "1").config.max_batch_size == 4
        assert loads(bench) == ["1", "1"]

    asking(tmp_path, test)


WRONG = {
    "no JSON": ("{max_batch", "Invalid config override: Failed to load JSON"),
    "no object": ("[]", "Invalid config override: it must be a JSON object"),
    "an unknown field": (
        '{"max_batch_sise": 1}',
        "there is no field 'max_batch_sise'; a configuration has: name, platform, backend, runtime, version_policy",
    ),
    "an unknown field of one of several": (
        '{"instanceGroup": [{"count": 1}, {"cuont": 1}]}',
        "there is no field 'instance_group.cuont'; 'instance_group' has: name, kind, count, rate_limiter",
    ),
    "an unknown field of an entry": (
        '{"parameters": {"intra_op_thread_count": {"stringvalue": "1"}}}',
        "there is no field 'parameters.stringvalue'; 'parameters' has: string_value",
    ),
    "an unknown word": ('{"instance_group": [{"kind": "KIND_TPU"}]}', "Invalid enum value KIND_TPU"),
    "a wrong type": ('{"max_batch_size": "many"}', "Invalid config override: "),
    "an infinite depth": ('{"instance_group": ' + "[" * 100_000, "Invalid config override: "),
    "another model's name": ('{"name": "n"}', "field 'name' is 'n', but the model's folder is 'm'"),
    "another backend": ('{"backend": "python"}', "this server serves 'onnxruntime' only"),
    "a giant": (" " * (1 << 20) + "{}", "1048576 are allowed"),
}


@pytest.mark.parametrize(("config", "reason"), WRONG.values(), ids=WRONG)
def test_a_configuration_that_is_none_changes_nothing(tmp_path: Path, config: str, reason: str) -> None:
    async def test(bench: Bench) -> None:
        await bench.plane.load("m")
        with pytest.raises(InvalidRequest) as caught:
            await bench.plane.load("m", Override(config))
        message = str(caught.value)
        assert message.startswith("failed to load 'm', failed to poll from model repository: Invalid config override: ")
        assert reason in message and len(message) < 2000
        assert bench.states() == {"m": {1: "READY"}}
        assert bench.reason("m") == ""
        assert loads(bench) == ["1"]

    asking(tmp_path, test)


def test_files_that_come_along_are_served_instead_of_the_repositorys_and_go_with_the_version(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        await bench.plane.load("m")
        await bench.plane.load("m", files())
        assert bench.states() == {"m": {7: "READY"}}
        assert await answer(bench) == [[3.0, 6.0]]
        assert kept(bench) == ["m"]
        await bench.plane.load("m", files(DOUBLING))
        assert await answer(bench) == [[2.0, 4.0]]
        assert kept(bench) == ["m"], "those of the version before are gone"
        await bench.plane.load("m")
        assert bench.states() == {"m": {1: "READY"}}
        assert kept(bench) == []

    asking(tmp_path, test)


def test_labels_come_along_with_a_model(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        output = {"name": "y", "data_type": "TYPE_FP32", "dims": [2], "label_filename": "labels.txt"}
        override = Override(
            json.dumps({"output": [output]}), {"1/model.onnx": DOUBLING.encode(), "labels.txt": b"cat\ndog\n"}
        )
        await bench.plane.load("m", override)
        assert bench.registry.find("m", "1").config.outputs[0].labels == ("cat", "dog")

    asking(tmp_path, test)


def test_a_model_of_which_only_files_came_leaves_nothing_behind(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        await bench.plane.load("new", files())
        assert bench.states() == {"m": {}, "new": {7: "READY"}}
        await bench.plane.unload("new")
        assert bench.states() == {"m": {}}
        for override in (files(LONG), files(path="no/version"), files(config='{"max_batch_size": -1}')):
            await refusal(bench.plane.load("new", override), LoadFailed)
            assert bench.states() == {"m": {}}
        assert kept(bench) == []
        assert (bench.plane._loader.folders, bench.plane._loader.tried) == ({}, {})

    asking(tmp_path, test)


def test_code_does_not_come_along(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        config = json.dumps({"model_operations": {"op_library_filename": ["ops.so"]}})
        override = Override(config, {"1/model.onnx": DOUBLING.encode(), "ops.so": b"\x7fELF"})
        message = await refusal(bench.plane.load("m", override), InvalidRequest)
        assert "code is taken from model repositories only" in message
        assert kept(bench) == [] and loads(bench) == []
        (tmp_path / "m" / "ops.so").touch()
        await bench.plane.load("m", Override(config))
        assert [options.op_libraries for _, options in bench.backend.opened] == [(tmp_path / "m" / "ops.so",)]

    asking(tmp_path, test)


def test_files_that_are_bad_change_nothing(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        await bench.plane.load("m", files(path="1/model.onnx"))
        assert "not a model" in await refusal(bench.plane.load("m", files(LONG, path="1/model.onnx")), LoadFailed)
        assert await answer(bench) == [[3.0, 6.0]]
        assert kept(bench) == ["m"]

    asking(tmp_path, test)


def test_a_wrong_configuration_is_not_tried_again(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        await refusal(bench.plane.load("m", Override('{"max_batch_size": -1}')), LoadFailed)
        assert loads(bench) == ["1"]

    asking(tmp_path, test, load_retries=5)


def test_what_comes_along_is_bounded_and_given_back(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        bench.add("n", 1)
        held = Held(bench, "m")
        first = asyncio.create_task(bench.plane.load("m", files(path="1/model.onnx")))
        await until(bench, lambda: bench.states()["m"] == {1: "LOADING"})
        message = await refusal(bench.plane.load("n", files("x" * 200)), QueueFull)
        assert "Exceeds maximum queued bytes" in message
        await bench.plane.unload("n")
        held.gates["m"].set()
        await first
        await refusal(bench.plane.load("n", files("x" * 200)), LoadFailed)
        assert bench.plane._brought.used == 0

    asking(tmp_path, test, max_queued_bytes=100)
