"""Models on a real GPU, opened as the server opens them: same answers as on the CPU, whatever is asked for."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto

from server.backends import cuda
from server.backends.base import Session
from server.backends.gpus import count_gpus, gpu_reader, page_locked_memory
from server.backends.onnx import OnnxBackend
from server.errors import LoadFailed
from server.models.config import load_settings, parse
from server.models.config_accelerators import CUDA_OPTIONS, TENSORRT
from server.models.placement import place
from server.models.runtime import session_options
from tests import onnx_models

pytestmark = pytest.mark.gpu

GPU = "instance_group { kind: KIND_GPU gpus: 0 }"
GRAPHS = GPU + " optimization { cuda { graphs: true } }"


def accelerator(name: str, parameters: str = "") -> str:
    inner = f'gpu_execution_accelerator {{ name: "{name}" {parameters} }}'
    return f"{GPU} optimization {{ execution_accelerators {{ {inner} }} }}"


def load(folder: Path, model: ModelProto, config: str = GPU, *, cache: Path | None = None) -> Session:
    """The session of the first instance, by the same steps as in `server.control`."""
    path = folder / "1" / "model.onnx"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.SerializeToString())
    backend = OnnxBackend(cache)
    settings = load_settings(parse(config, "config.pbtxt"), "m", "config.pbtxt")
    placement = place(settings, backend.devices())
    options = session_options(
        settings, device=placement[0], instances=len(placement), cores=2, folder=folder, op_library=Path
    )
    return backend.load(path, options).for_instance()


def rows(count: int, seed: int = 0, width: int = 32) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, width), np.float32)


def on_the_cpu(folder: Path, x: np.ndarray) -> np.ndarray:
    session = load(folder / "cpu", onnx_models.mlp(), "instance_group { kind: KIND_CPU }")
    return session.run({"x": x}, ["y"])[0]


CONFIGS = {
    "plain": GPU,
    "automatic": "",
    "ordinary memory": GPU + " optimization { input_pinned_memory { enable: false } }",
    "graphs": GRAPHS,
    "options": accelerator("cuda", 'parameters { key: "gpu_mem_limit" value: "1073741824" }'),
    "shrinkage": GPU
    + ' parameters { key: "memory.enable_memory_arena_shrinkage" value { string_value: "cpu:0;gpu:0" } }',
    "nothing on the CPU": GPU + ' parameters { key: "session.disable_cpu_ep_fallback" value { string_value: "1" } }',
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_the_answers_are_those_of_the_cpu(tmp_path: Path, config: str) -> None:
    session = load(tmp_path, onnx_models.mlp(), config)
    for count in (1, 5, 1, 5, 5, 8):
        x = rows(count, seed=count)
        (y,) = session.run({"x": x}, ["y"])
        np.testing.assert_allclose(y, on_the_cpu(tmp_path, x), atol=2e-3)  # TF32 has ten bits


def test_a_recording_reads_what_is_new_every_time(tmp_path: Path) -> None:
    session = load(tmp_path, onnx_models.affine("FP32", ("N", 4)), GRAPHS)
    for value in range(20):
        (y,) = session.run({"x": np.full((3, 4), value, np.float32)}, ["y"])
        assert (y == 3 * value + 1).all()


def test_each_instance_records_for_itself(tmp_path: Path) -> None:
    sessions = [load(tmp_path / str(n), onnx_models.affine("FP32", ("N", 4)), GRAPHS) for n in range(2)]
    for value in range(10):
        for n, session in enumerate(sessions):
            (y,) = session.run({"x": np.full((2, 4), value + 100 * n, np.float32)}, ["y"])
            assert (y == 3 * (value + 100 * n) + 1).all()


def test_instances_run_side_by_side_on_one_session(tmp_path: Path) -> None:
    shared = load(tmp_path, onnx_models.mlp())
    wanted = [on_the_cpu(tmp_path, rows(16, seed)) for seed in range(4)]
    wrong: list[int] = []

    def lane(seed: int) -> None:
        session = shared.for_instance()
        x = session.empty((16, 32), np.dtype(np.float32))
        for _ in range(100):
            x[:] = rows(16, seed)
            if not np.allclose(session.run({"x": x}, ["y"])[0], wanted[seed], atol=2e-3):
                wrong.append(seed)

    threads = [threading.Thread(target=lane, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize("datatype", ["FP16", "BF16", "INT64", "BYTES", "BOOL"])
def test_every_kind_of_tensor_comes_back(tmp_path: Path, datatype: str) -> None:
    session = load(tmp_path, onnx_models.identity(datatype))
    dtype = session.inputs[0].datatype.dtype
    x = np.array([["a", "bc"]], object) if datatype == "BYTES" else np.array([[1, 0]]).astype(dtype)
    assert (session.run({"x": x}, ["y"])[0] == x).all()


def test_staging_memory_is_page_locked(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    array = page_locked_memory(0)((1024, 1024), np.dtype(np.float32))
    array[:] = 1
    session = load(tmp_path, onnx_models.mlp())
    session.empty((64, 32), np.dtype(np.float32))[:] = 2
    assert "ordinary memory" not in caplog.text
    assert "not page-locked" not in caplog.text


def test_every_option_of_cuda_is_known_to_onnx_runtime(tmp_path: Path) -> None:
    words = {"arena_extend_strategy": "kSameAsRequested", "cudnn_conv_algo_search": "DEFAULT"}
    numbers = {"gpu_mem_limit": "1073741824", "tunable_op_max_tuning_duration_ms": "10", "sdpa_kernel": "0"}
    values = dict.fromkeys(CUDA_OPTIONS, "0") | words | numbers
    parameters = " ".join(f'parameters {{ key: "{key}" value: "{value}" }}' for key, value in values.items())
    load(tmp_path, onnx_models.mlp(), accelerator("cuda", parameters))


def test_memory_is_limited_for_each_model(tmp_path: Path) -> None:
    config = accelerator("cuda", 'parameters { key: "gpu_mem_limit" value: "1048576" }')
    session_or_error: list[object] = []
    try:
        session = load(tmp_path, onnx_models.mlp(1024), config)  # 8 MB of weights
        session.run({"x": rows(4, width=1024)}, ["y"])
    except Exception as error:  # noqa: BLE001 -- at load or at the first run, as ONNX Runtime has it
        session_or_error.append(error)
    assert session_or_error, "a limit of 1 MB let 8 MB of weights in"


def test_tensorrt_gives_the_answers_of_the_cpu_and_keeps_its_engines(tmp_path: Path) -> None:
    if TENSORRT not in OnnxBackend().devices().providers:
        pytest.skip("needs an ONNX Runtime with TensorRT")
    cache = tmp_path / "cache"
    config = accelerator("tensorrt", 'parameters { key: "trt_engine_cache_enable" value: "true" }')
    try:
        session = load(tmp_path / "m", onnx_models.mlp(), config, cache=cache)
    except LoadFailed as error:
        pytest.skip(f"needs TensorRT's libraries: {error}")
    x = rows(4)
    np.testing.assert_allclose(session.run({"x": x}, ["y"])[0], on_the_cpu(tmp_path, x), atol=2e-3)
    assert list(cache.glob("tensorrt-*/*.engine"))


def test_recordings_are_bounded_on_the_gpu_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "MAX_GRAPHS", 2)
    session = load(tmp_path, onnx_models.affine("FP32", ("N", 4)), GRAPHS)
    for count in (1, 2, 3, 4, 3, 2, 1):
        (y,) = session.run({"x": np.full((count, 4), count, np.float32)}, ["y"])
        assert y.shape == (count, 4)
        assert (y == 3 * count + 1).all()


def test_the_gpus_tell_how_busy_they_are() -> None:
    read = gpu_reader()
    assert read is not None, "nvidia-ml-py is of the extra 'gpu'"
    gpus = read()
    assert len(gpus) >= count_gpus()[0]
    assert all(gpu.uuid.startswith("GPU-") and gpu.memory_total_bytes for gpu in gpus)
