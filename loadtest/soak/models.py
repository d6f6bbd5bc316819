"""The repository that is soaked: small models whose answers follow from what they are asked."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from loadtest.errors import LoadTestError

LENET5 = "lenet5"
"""Copied from the committed models: pictures, and arithmetic worth the name."""
AFFINE = "affine"
"""y = 3x + 1, rows of any length: from a few bytes to a megabyte."""
TEXT = "text"
"""y = x, BYTES."""
CACHED = "cached"
"""As `affine`, with the response cache."""
TOTAL = "total"
"""Sums up a sequence."""
PAIR = "pair"
"""An ensemble: y = 3 (3x + 1) + 1."""
STEP = "step"
"""What the ensemble is made of; nobody else asks it."""
PATIENT = "patient"
"""As `affine`; a lone request waits `PATIENT_DELAY_US`, so that it can be left. Nobody leaves another model."""
RELOADED = "reloaded"
"""As `affine`; loaded again and again beside itself, and asked all the time."""
FLEETING = "fleeting"
"""As `affine`; unloaded and loaded, and asked all the time."""

PATIENT_DELAY_US = 200_000
MAX_ROWS = 16
SEQUENCE_SLOTS = 64
STEPS_OF_PAIR = 2

_DYNAMIC = "dynamic_batching { max_queue_delay_microseconds: 500 }"
_CONFIGS = {
    AFFINE: _DYNAMIC,
    TEXT: _DYNAMIC,
    CACHED: f"{_DYNAMIC} response_cache {{ enable: true }}",
    STEP: _DYNAMIC,
    PATIENT: f"dynamic_batching {{ max_queue_delay_microseconds: {PATIENT_DELAY_US} }}",
    RELOADED: _DYNAMIC,
    FLEETING: _DYNAMIC,
    TOTAL: "sequence_batching { max_sequence_idle_microseconds: 600000000 direct {} state { "
    'input_name: "total_in" output_name: "total_out" data_type: TYPE_FP32 dims: [ 1 ] } }',
}
_ONE_THREAD = 'parameters { key: "intra_op_thread_count" value { string_value: "1" } }'
_ENSEMBLE = f"""
platform: "ensemble"
max_batch_size: {MAX_ROWS}
input {{ name: "x" data_type: TYPE_FP32 dims: [ -1 ] }}
output {{ name: "y" data_type: TYPE_FP32 dims: [ -1 ] }}
ensemble_scheduling {{
  step {{ model_name: "{STEP}" input_map {{ key: "x" value: "x" }} output_map {{ key: "y" value: "between" }} }}
  step {{ model_name: "{STEP}" input_map {{ key: "x" value: "between" }} output_map {{ key: "y" value: "y" }} }}
}}
"""


def write_repository(root: Path, committed: Path) -> list[str]:
    """Writes all models below `root`, which is emptied before, and returns their names. `committed` has LeNet-5."""
    try:
        import onnx
    except ImportError as error:
        raise LoadTestError("the package onnx is missing, which writes the models: make install-dev") from error
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    try:
        shutil.copytree(committed / LENET5, root / LENET5)
    except OSError as error:
        raise LoadTestError(f"no model '{LENET5}' in {committed}: {error}") from error
    graphs = dict.fromkeys((AFFINE, CACHED, STEP, PATIENT, RELOADED, FLEETING), _affine(onnx))
    graphs |= {TEXT: _identity(onnx), TOTAL: _total(onnx)}
    for name, graph in graphs.items():
        rows = SEQUENCE_SLOTS if name == TOTAL else MAX_ROWS
        (root / name / "1").mkdir(parents=True)
        (root / name / "1" / "model.onnx").write_bytes(graph)
        (root / name / "config.pbtxt").write_text(f"max_batch_size: {rows}\n{_CONFIGS[name]}\n{_ONE_THREAD}\n")
    (root / PAIR / "1").mkdir(parents=True)
    (root / PAIR / "config.pbtxt").write_text(_ENSEMBLE)
    return [LENET5, *graphs, PAIR]


def _affine(onnx: Any) -> bytes:
    helper = onnx.helper
    nodes = [helper.make_node("Mul", ["x", "three"], ["m"]), helper.make_node("Add", ["m", "one"], ["y"])]
    constants = [
        helper.make_tensor("three", onnx.TensorProto.FLOAT, [1], [3]),
        helper.make_tensor("one", onnx.TensorProto.FLOAT, [1], [1]),
    ]
    real = onnx.TensorProto.FLOAT
    return _model(onnx, nodes, [("x", real, ["N", "D"])], [("y", real, ["N", "D"])], constants)


def _identity(onnx: Any) -> bytes:
    text = onnx.TensorProto.STRING
    nodes = [onnx.helper.make_node("Identity", ["x"], ["y"])]
    return _model(onnx, nodes, [("x", text, ["N", "D"])], [("y", text, ["N", "D"])])


def _total(onnx: Any) -> bytes:
    helper, real = onnx.helper, onnx.TensorProto.FLOAT
    nodes = [helper.make_node("Add", ["total_in", "x"], ["y"]), helper.make_node("Identity", ["y"], ["total_out"])]
    return _model(
        onnx,
        nodes,
        [("x", real, ["N", 1]), ("total_in", real, ["N", 1])],
        [("y", real, ["N", 1]), ("total_out", real, ["N", 1])],
    )


Value = tuple[str, int, list[str | int]]
"""Name, ONNX's element type, shape."""


def _model(
    onnx: Any, nodes: Sequence[Any], inputs: Sequence[Value], outputs: Sequence[Value], constants: Sequence[Any] = ()
) -> bytes:
    helper = onnx.helper
    values = [[helper.make_tensor_value_info(*value) for value in side] for side in (inputs, outputs)]
    graph = helper.make_graph(list(nodes), "soaked", *values, list(constants))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    written: bytes = model.SerializeToString()
    return written
