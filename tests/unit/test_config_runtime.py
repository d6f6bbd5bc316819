"""What a configuration decides about sessions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnxruntime
import pytest

from server.backends.base import SessionOptions
from server.errors import ConfigInvalid
from server.models.config import LoadSettings, load_settings, parse
from server.models.config_runtime import OLDER_CUDA_PARAMETERS, RUNTIME_PARAMETERS
from server.models.runtime import session_options

FOLDER = Path("/models/m")


def settings(text: str = "", **parameters: str) -> LoadSettings:
    for key, value in parameters.items():
        text += f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}'
    return load_settings(parse(text, "config.pbtxt"), "m", "config.pbtxt")


def options(text: str = "", *, cores: int = 8, **parameters: str) -> SessionOptions:
    given = settings(text, **parameters)
    count = given.instance_count
    return session_options(
        given, device=None, instances=count, cores=cores, folder=FOLDER, op_library=lambda name: FOLDER / name
    )


def test_without_a_word_a_session_is_shared_and_takes_all_cores() -> None:
    assert options() == SessionOptions(intra_op_threads=8, folder=FOLDER)
    assert settings().share_session


@pytest.mark.parametrize(("cores", "count", "threads"), [(8, 2, 4), (8, 3, 2), (2, 4, 1)])
def test_instances_share_the_cores(cores: int, count: int, threads: int) -> None:
    assert options(f"instance_group {{ count: {count} }}", cores=cores).intra_op_threads == threads


OPTIONS: dict[str, tuple[dict[str, str], dict[str, Any]]] = {
    "threads": ({"intra_op_thread_count": "3"}, {"intra_op_threads": 3}),
    "parallel": (
        {"execution_mode": "1", "inter_op_thread_count": "2"},
        {"parallel_operators": True, "inter_op_threads": 2},
    ),
    "no arena": ({"enable_mem_arena": "0"}, {"memory_arena": False}),
    "no pattern": ({"enable_mem_pattern": "0"}, {"memory_pattern": False}),
    "shrinkage": ({"memory.enable_memory_arena_shrinkage": "cpu:0"}, {"arena_shrinkage": "cpu:0"}),
    "cache": ({"optimized_model_cache": "true"}, {"cache_optimized_model": True}),
    "entries": (
        {"session.intra_op.allow_spinning": "1", "session.dynamic_block_base": "4"},
        {"entries": (("session.dynamic_block_base", "4"), ("session.intra_op.allow_spinning", "1"))},
    ),
}


@pytest.mark.parametrize(("parameters", "changed"), OPTIONS.values(), ids=OPTIONS)
def test_a_parameter_becomes_an_option(parameters: dict[str, str], changed: dict[str, Any]) -> None:
    assert options(**parameters) == SessionOptions(**{"intra_op_threads": 8, "folder": FOLDER, **changed})


def test_operator_libraries_are_found_in_the_models_folder() -> None:
    text = 'model_operations { op_library_filename: ["a.so", "ops/b.so"] }'
    assert options(text).op_libraries == (FOLDER / "a.so", FOLDER / "ops/b.so")


def test_instances_may_have_sessions_of_their_own() -> None:
    assert not settings(share_session="false").share_session


WRONG = {
    "an entry that ONNX Runtime would ignore": ("session.allow_spinning", "1", "is not supported by this server"),
    "an entry that names a file": ("session.node_partition_config_file", "/x", "is not supported by this server"),
    "a value that it would ignore": ("session.intra_op.allow_spinning", "true", "must be 0 or 1, not 'true'"),
    "no number": ("session.dynamic_block_base", "-4", "must be an integer of at least 0, not '-4'"),
    "no processors": ("session.intra_op_thread_affinities", "1;a", "must be processors such as"),
    "no device": ("memory.enable_memory_arena_shrinkage", "CPU:0", "must be cpu:0, gpu:N, or several"),
    "a second processor's memory": ("memory.enable_memory_arena_shrinkage", "cpu:1", "must be cpu:0, gpu:N"),
    "no switch": ("share_session", "no", "must be true or false, not 'no'"),
}


@pytest.mark.parametrize(("key", "value", "problem"), WRONG.values(), ids=WRONG)
def test_what_would_do_nothing_is_refused_by_name(key: str, value: str, problem: str) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        settings(**{key: value})
    assert f"field 'parameters['{key}']' {problem}" in str(caught.value)


def test_an_arena_that_is_off_cannot_shrink() -> None:
    with pytest.raises(ConfigInvalid, match="needs the arena that enable_mem_arena 0 turns off"):
        settings(**{"enable_mem_arena": "0", "memory.enable_memory_arena_shrinkage": "cpu:0"})


def test_onnx_runtime_knows_every_entry() -> None:
    (library,) = (Path(onnxruntime.__file__).parent / "capi").glob("onnxruntime_pybind11_state*.so")
    content = library.read_bytes()
    entries = RUNTIME_PARAMETERS.keys() - OLDER_CUDA_PARAMETERS.keys()
    assert [key for key in entries if key.encode() + b"\0" not in content] == []
