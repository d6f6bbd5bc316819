"""Each option of a session, on the real ONNX Runtime: what it does, or what ONNX Runtime says where it cannot."""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
import threading
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, helper

from server.backends import model_cache
from server.backends.base import Session, SessionOptions
from server.backends.onnx import OnnxBackend, session_settings
from server.errors import LoadFailed
from tests import onnx_models

OPERATORS = """
int registered = 0;
void *RegisterCustomOps(void *options, const void *api) { registered++; return 0; }
"""


def write(folder: Path, model: ModelProto) -> Path:
    (folder / "1").mkdir(parents=True, exist_ok=True)
    path = folder / "1" / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def load(path: Path, *, cache: Path | None = None, allow_custom_ops: bool = True, **options: object) -> Session:
    options = {"intra_op_threads": 1, "folder": path.parent.parent, **options}
    return OnnxBackend(cache, allow_custom_ops=allow_custom_ops).load(path, SessionOptions(**options))


def spinning(*entries: tuple[str, str]) -> str:
    options = SessionOptions(intra_op_threads=2, entries=entries)
    return session_settings(Path("model.onnx"), options).get_session_config_entry("session.intra_op.allow_spinning")


def affine(session: Session, x: int = 7) -> int:
    (y,) = session.run({"x": np.array([[x]], np.int64)}, ["y"])
    return int(y[0, 0])


def test_a_session_entry_that_onnx_runtime_cannot_use_fails_the_load_with_its_reason(tmp_path: Path) -> None:
    path = write(tmp_path, onnx_models.mlp())
    entries = (("session.intra_op_thread_affinities", "1;1;1"),)
    with pytest.raises(LoadFailed, match=r"ONNX Runtime cannot load it: .*affinities: 3, thread_pool_size: 2"):
        load(path, intra_op_threads=2, entries=entries)


def test_a_session_entry_has_its_effect(tmp_path: Path) -> None:
    model = onnx_models.identity("FP32", ("N", 4))
    model.graph.output[0].type.tensor_type.shape.dim[
        1
    ].dim_value = 3  # which ONNX Runtime lets pass, unless told not to
    path = write(tmp_path, model)
    load(path, entries=(("session.strict_shape_type_inference", "0"),))
    with pytest.raises(LoadFailed, match="Inferred=4 Declared=3"):
        load(path, entries=(("session.strict_shape_type_inference", "1"),))


def test_threads_spin_while_they_wait_only_where_a_model_asks_for_it() -> None:
    assert spinning() == "0"
    assert spinning(("session.intra_op.allow_spinning", "1")) == "1"


def test_an_arena_is_shrunk_after_every_run(tmp_path: Path) -> None:
    path = write(tmp_path, onnx_models.affine())
    assert affine(load(path, arena_shrinkage="cpu:0")) == 22
    # Only a run that really goes looking for the arena can miss it.
    session = load(path, arena_shrinkage="cpu:0", memory_arena=False)
    with pytest.raises(Exception, match=r"Did not find an arena based allocator .* shrink list: cpu:0"):
        affine(session)


@pytest.mark.parametrize(("level", "nodes"), [(2, 3), (-1, 2), (1, 2), (None, 2)])
def test_a_graph_level_decides_what_is_left_of_the_graph(tmp_path: Path, level: int | None, nodes: int) -> None:
    model = onnx_models.affine()
    model.graph.node[-1].output[0] = "z"
    model.graph.node.append(helper.make_node("Identity", ["z"], ["y"]))
    path, cache = write(tmp_path / "m", model), tmp_path / "cache"
    load(path, cache=cache, cache_optimized_model=True, graph_optimization_level=level)
    (graph,) = cache.glob("*/model.onnx")
    assert len(onnx.load(graph, load_external_data=False).graph.node) == nodes


def test_an_optimised_graph_is_served_from_the_cache(tmp_path: Path) -> None:
    path, cache = write(tmp_path / "m", onnx_models.affine()), tmp_path / "cache"
    assert affine(load(path, cache=cache, cache_optimized_model=True)) == 22
    (entry,) = cache.iterdir()
    (entry / model_cache.MODEL).write_bytes(onnx_models.affine(factor=5).SerializeToString())
    assert affine(load(path, cache=cache, cache_optimized_model=True)) == 36


def test_another_model_is_another_entry_of_the_cache(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    for factor in (3, 5, 3):
        path = write(tmp_path / "m", onnx_models.affine(factor=factor))
        assert affine(load(path, cache=cache, cache_optimized_model=True)) == 7 * factor + 1
    assert len(list(cache.iterdir())) == 2


def test_weights_in_the_cache_give_the_same_answers_bit_for_bit(tmp_path: Path) -> None:
    path, cache = write(tmp_path / "m", onnx_models.mlp(64)), tmp_path / "cache"
    x = np.random.default_rng(1).standard_normal((5, 64), np.float32)
    answers = [
        load(path, cache=cache, cache_optimized_model=wanted).run({"x": x}, ["y"])[0] for wanted in (False, True, True)
    ]
    (entry,) = cache.iterdir()
    assert (entry / model_cache.WEIGHTS).stat().st_size >= 2 * 64 * 64 * 4
    assert (answers[0] == answers[1]).all() and (answers[0] == answers[2]).all()


def test_a_broken_entry_of_the_cache_is_made_anew(tmp_path: Path) -> None:
    path, cache = write(tmp_path / "m", onnx_models.affine()), tmp_path / "cache"
    load(path, cache=cache, cache_optimized_model=True)
    (entry,) = cache.iterdir()
    (entry / model_cache.MODEL).write_bytes(b"half a file")
    for _ in range(2):
        assert affine(load(path, cache=cache, cache_optimized_model=True)) == 22
    assert (entry / model_cache.MODEL).read_bytes() != b"half a file"


def test_writers_of_one_entry_do_not_disturb_each_other(tmp_path: Path) -> None:
    path, cache = write(tmp_path / "m", onnx_models.mlp()), tmp_path / "cache"
    sessions: list[Session] = []

    def open_it() -> None:
        sessions.append(load(path, cache=cache, cache_optimized_model=True))

    threads = [threading.Thread(target=open_it) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(sessions) == 6
    assert [re.fullmatch("[0-9a-f]{64}", entry.name) is not None for entry in cache.iterdir()] == [True]


def test_a_cache_without_a_folder_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, onnx_models.affine())
    with pytest.raises(LoadFailed, match=r"'optimized_model_cache'\] needs a folder .*--model-cache-dir"):
        load(path, cache_optimized_model=True)


def test_external_weights_inside_of_the_folder_are_served(tmp_path: Path) -> None:
    path = write(tmp_path, onnx_models.external_weights("weights/w.bin"))
    (path.parent / "weights").mkdir()
    (path.parent / "weights" / "w.bin").write_bytes(np.arange(4, dtype=np.float32).tobytes())
    (y,) = load(path).run({"x": np.ones((1, 4), np.float32)}, ["y"])
    assert y.tolist() == [[1, 2, 3, 4]]


def test_external_weights_elsewhere_are_refused_before_onnx_runtime_sees_them(tmp_path: Path) -> None:
    path = write(tmp_path / "m", onnx_models.external_weights("../../secret"))
    (tmp_path / "secret").write_bytes(bytes(16))
    with pytest.raises(LoadFailed, match=r"external data '\.\./\.\./secret' lies outside of the model's folder"):
        load(path)


def test_an_operator_library_is_registered_with_every_session(tmp_path: Path) -> None:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    path, library = write(tmp_path, onnx_models.affine()), tmp_path / "operators.so"
    source = tmp_path / "operators.c"
    source.write_text(OPERATORS)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source], check=True)
    sessions = [load(path, op_libraries=(library,)) for _ in range(2)]
    assert [affine(session) for session in sessions] == [22, 22]
    assert ctypes.c_int.in_dll(ctypes.CDLL(str(library)), "registered").value == 2


def test_an_operator_library_is_not_even_opened_where_nobody_allows_it(tmp_path: Path) -> None:
    path = write(tmp_path, onnx_models.affine())
    with pytest.raises(LoadFailed, match=r"names code, which this server does not run; .*--allow-custom-ops=true"):
        load(path, op_libraries=(path,), allow_custom_ops=False)


def test_a_file_that_is_no_operator_library_fails_the_load_with_onnx_runtimes_reason(tmp_path: Path) -> None:
    path = write(tmp_path, onnx_models.affine())
    with pytest.raises(LoadFailed, match=r"'model_operations.op_library_filename': .*invalid ELF header"):
        load(path, op_libraries=(path,))
