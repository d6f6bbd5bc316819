"""How the control plane opens models: sessions, devices, threads, libraries, warm-up."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from math import inf
from pathlib import Path

import pytest

from proto.model_config_pb2 import ModelConfig as ModelConfigMessage
from proto.model_config_pb2 import ModelInstanceGroup
from server.backends.base import Devices, SessionOptions
from server.backends.cores import available_cores
from server.backends.loading import LoadAttempt
from server.control import ControlPlane, ControlSettings
from server.engine import Engine
from server.models.registry import Registry
from server.tensors import Array
from tests.fakes import OneReply, PuppetBackend, PuppetClock, PuppetSession, fp32
from tests.unit.controlling import Bench, operators
from tests.unit.loaded import request, run


@pytest.mark.parametrize(("flag", "limit"), [(3, 3), (0, inf), (None, available_cores())])
def test_as_many_batches_run_as_the_flag_or_the_cores_say(flag: int | None, limit: float) -> None:
    async def main() -> None:
        settings = ControlSettings((), None, 4, autocomplete=True, max_running_batches=flag)
        plane = ControlPlane(settings, Registry(), PuppetBackend({}), PuppetClock())
        assert (plane.turns.limit, plane.turns.running) == (limit, 0)

    run(main)


@pytest.mark.parametrize(("parameter", "opened"), [("", 1), ('"true"', 1), ('"false"', 3)])
def test_instances_share_a_session_unless_the_configuration_says_otherwise(
    tmp_path: Path, parameter: str, opened: int
) -> None:
    async def main() -> None:
        config = "instance_group { count: 3 }"
        if parameter:
            config += f' parameters {{ key: "share_session" value {{ string_value: {parameter} }} }}'
        bench = Bench(tmp_path)
        bench.add("m", 1, config=config)
        await bench.plane.load_all()
        assert bench.states() == {"m": {1: "READY"}}
        assert len(bench.backend.opened) == opened
        assert {options.folder for _, options in bench.backend.opened} == {tmp_path / "m"}
        await bench.plane.unload_all()

    run(main)


TWO_GPUS = Devices(frozenset({"CPUExecutionProvider", "CUDAExecutionProvider"}), 2)


ON_GPUS = {
    "automatic": ("", [0, 1], 2),
    "one session for a device": ("instance_group { count: 2 kind: KIND_GPU }", [0, 1], 4),
    "sessions of their own": (
        "instance_group { count: 2 kind: KIND_GPU gpus: 1 } optimization { cuda { graphs: true } }", [1, 1], 2,
    ),
    "the CPU": ("instance_group { kind: KIND_CPU }", [None], 1),
}  # fmt: skip


@pytest.mark.parametrize(("config", "devices", "lanes"), ON_GPUS.values(), ids=ON_GPUS)
def test_sessions_are_opened_on_the_devices_of_the_instances(
    tmp_path: Path, config: str, devices: list[int | None], lanes: int
) -> None:
    async def main() -> None:
        bench = Bench(tmp_path)
        bench.backend.machine = TWO_GPUS
        bench.add("m", 1, config=config)
        await bench.plane.load_all()
        opened = [options for _, options in bench.backend.opened]
        assert [options.device for options in opened] == devices
        assert {options.intra_op_threads for options in opened} == {max(1, available_cores() // lanes)}
        served = ModelConfigMessage.FromString(bench.registry.find("m", "1").config.serialized)
        kind = ModelInstanceGroup.KIND_CPU if devices == [None] else ModelInstanceGroup.KIND_GPU
        assert [group.kind for group in served.instance_group] == [kind]
        await bench.plane.unload_all()

    run(main)


@pytest.mark.parametrize(("machine", "on_the_loop"), [(Devices(), True), (TWO_GPUS, False)], ids=["CPU", "GPU"])
def test_tiny_batches_of_a_gpu_stay_off_the_event_loop(tmp_path: Path, machine: Devices, on_the_loop: bool) -> None:
    async def main() -> None:
        threads: list[int] = []
        bench = Bench(tmp_path)
        bench.backend.machine = machine

        def double(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
            threads.append(threading.get_ident())
            return {"y": inputs["x"] * 2}

        bench.backend.sessions["quick"] = PuppetSession([fp32("x", -1, 2)], [fp32("y", -1, 2)], double)
        bench.add("m", 1, text="quick")
        await bench.plane.load_all()
        for _ in range(20):
            reply = OneReply()
            Engine(bench.registry).infer(request([1.0, 2.0]), reply)
            await reply.response()
        assert (threading.get_ident() in threads) is on_the_loop
        await bench.plane.unload_all()

    run(main)


def test_operator_libraries_are_looked_for_in_the_models_folder(tmp_path: Path) -> None:
    async def main() -> None:
        bench = Bench(tmp_path)
        bench.add("m", 1, config=operators("1/ops.so"))
        (tmp_path / "m" / "1" / "ops.so").touch()
        await bench.plane.load_all()
        assert [options.op_libraries for _, options in bench.backend.opened] == [(tmp_path / "m" / "1" / "ops.so",)]
        await bench.plane.unload_all()

    run(main)


@pytest.mark.parametrize(
    ("config", "threads"),
    [
        ('parameters { key: "intra_op_thread_count" value { string_value: "3" } }', 3),
        ('parameters { key: "intra_op_thread_count" value { string_value: "0" } } instance_group { count: 1024 }', 1),
    ],
    ids=["as configured", "never less than one"],
)
def test_the_threads_of_a_session(tmp_path: Path, config: str, threads: int) -> None:
    async def main() -> None:
        bench = Bench(tmp_path)
        bench.add("m", 1, config=config, text="garbage")  # so that no 4,096 lanes are made
        await bench.plane.load_all()
        [(_, options)] = bench.backend.opened
        assert options.intra_op_threads == threads

    run(main)


def test_one_thread_opens_all_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = set()

    async def main() -> None:
        bench = Bench(tmp_path)
        for name in "abc":
            bench.add(name, 1)
        load = bench.backend.load

        def load_and_tell(path: Path, options: SessionOptions, attempt: LoadAttempt) -> PuppetSession:
            names.add(threading.current_thread().name)
            return load(path, options, attempt)

        monkeypatch.setattr(bench.backend, "load", load_and_tell)
        await bench.plane.load_all()
        await bench.plane.unload_all()

    run(main)
    assert names == {"load_0"}


def test_a_version_is_measured_before_it_serves_and_that_is_no_inference(tmp_path: Path) -> None:
    async def main() -> None:
        bench = Bench(tmp_path)
        bench.add("m", 1)
        await bench.plane.load_all()
        loaded = bench.registry.find("m", "")
        assert loaded.costs.calibrated
        assert [line.rows for line in loaded.costs.lines()] == [1, 2, 4]
        assert (loaded.statistics.inference_count, loaded.statistics.execution_count) == (0, 0)
        await bench.plane.unload_all()

    run(main)


def test_a_version_whose_warm_up_sample_fails_is_unavailable(tmp_path: Path) -> None:
    async def main() -> None:
        bench = Bench(tmp_path)
        sample = (
            'model_warmup { name: "row" batch_size: 1 '
            'inputs { key: "x" value { data_type: TYPE_FP32 dims: [ 2 ] input_data_file: "row.bin" } } }'
        )
        bench.add("m", 1, config=sample)
        await bench.plane.load_all()
        assert bench.states() == {"m": {1: "UNAVAILABLE"}}
        assert bench.reason("m") == (
            f"{tmp_path / 'm' / 'config.pbtxt'}: field 'model_warmup[0].inputs['x']': "
            f"{tmp_path / 'm' / 'warmup' / 'row.bin'}: no such file; add it, or use zero_data or random_data in "
            "config.pbtxt"
        )

    run(main)


class Endless(PuppetSession):
    """A session whose every run lasts until it is interrupted."""

    def __init__(self) -> None:
        super().__init__([fp32("x", -1, 2)], [fp32("y", -1, 2)], self._wait)
        self.running = threading.Event()
        self._interrupted = threading.Event()

    def interrupt(self) -> None:
        self._interrupted.set()

    def _wait(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        self.running.set()
        if self._interrupted.wait(20):
            raise RuntimeError("Exiting due to terminate flag being set to true")
        return {"y": inputs["x"]}  # nobody interrupted it, and the load succeeds


def test_a_run_before_the_version_serves_is_interrupted_when_the_server_stops(tmp_path: Path) -> None:
    async def main() -> None:
        bench = Bench(tmp_path)
        bench.add("m", 1, text="endless")
        session = bench.backend.sessions["endless"] = Endless()
        loading = asyncio.ensure_future(bench.plane.load_all())
        await asyncio.to_thread(session.running.wait)
        bench.plane.give_up_loads()
        await loading
        assert bench.states() == {"m": {1: "UNAVAILABLE"}}
        assert bench.reason("m") == "given up, because the server stops"
        await bench.plane.unload_all()

    run(main)
