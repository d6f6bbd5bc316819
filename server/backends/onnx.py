"""ONNX Runtime on the CPU: opens `model.onnx` and runs batches.

One session serves any number of threads: its weights are in memory once. `run` releases the interpreter lock;
opening a session does not.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path

import numpy as np
import onnxruntime as ort

from server import tensors
from server.backends.base import GraphTensor, SessionOptions
from server.backends.memory import is_out_of_memory
from server.errors import LoadFailed, OutOfMemory
from server.tensors import Array, DataType

ORT_TYPES: dict[str, DataType] = {
    "tensor(bool)": tensors.BOOL,
    "tensor(uint8)": tensors.UINT8,
    "tensor(uint16)": tensors.UINT16,
    "tensor(uint32)": tensors.UINT32,
    "tensor(uint64)": tensors.UINT64,
    "tensor(int8)": tensors.INT8,
    "tensor(int16)": tensors.INT16,
    "tensor(int32)": tensors.INT32,
    "tensor(int64)": tensors.INT64,
    "tensor(float16)": tensors.FP16,
    "tensor(float)": tensors.FP32,
    "tensor(double)": tensors.FP64,
    "tensor(bfloat16)": tensors.BF16,
    "tensor(string)": tensors.BYTES,
}

ONNX_BFLOAT16 = 16  # TensorProto.DataType.BFLOAT16

OPTIMIZATION_LEVELS = {
    None: ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
    0: ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
    -1: ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    1: ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    2: ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
}


class OnnxSession:
    """One model on ONNX Runtime. Implements `base.Session`."""

    def __init__(self, session: ort.InferenceSession, path: Path) -> None:
        self._session = session
        self.inputs = tuple(_graph_tensor(node, path) for node in session.get_inputs())
        self.outputs = tuple(_graph_tensor(node, path) for node in session.get_outputs())
        # numpy has no bfloat16, so such a model takes and gives OrtValues; all others take the shorter way.
        self._has_bf16 = any(t.datatype is tensors.BF16 for t in self.inputs + self.outputs)
        self._bf16_inputs = {t.name for t in self.inputs if t.datatype is tensors.BF16}

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
        """See `base.Session.run`."""
        try:
            if self._has_bf16:
                return self._run_ort_values(inputs, outputs)
            results: list[Array] = self._session.run(outputs, inputs)
        except Exception as error:  # ONNX Runtime's exceptions share no base class of their own
            if is_out_of_memory(error):
                raise OutOfMemory(f"it found no memory: {error}") from error
            raise
        return results

    def _run_ort_values(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
        feed = {
            name: ort.OrtValue.ortvalue_from_numpy_with_onnx_type(array, ONNX_BFLOAT16)
            if name in self._bf16_inputs
            else ort.OrtValue.ortvalue_from_numpy(array)
            for name, array in inputs.items()
        }
        return [_to_numpy(value) for value in self._session.run_with_ort_values(outputs, feed)]


class OnnxBackend:
    """Opens ONNX files. Implements `base.Backend`."""

    def load(self, path: Path, options: SessionOptions) -> OnnxSession:
        """See `base.Backend.load`."""
        settings = ort.SessionOptions()
        settings.intra_op_num_threads = options.intra_op_threads
        settings.inter_op_num_threads = options.inter_op_threads
        settings.enable_cpu_mem_arena = options.memory_arena
        settings.enable_mem_pattern = options.memory_pattern
        settings.graph_optimization_level = OPTIMIZATION_LEVELS[options.graph_optimization_level]
        if options.parallel_operators:
            settings.execution_mode = ort.ExecutionMode.ORT_PARALLEL
        # Batches come and go, and the event loop needs the cores in between: waiting threads sleep instead of spin.
        settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
        settings.add_session_config_entry("session.inter_op.allow_spinning", "0")
        settings.log_severity_level = 3
        return _open(path, settings)


def _open(path: Path, settings: ort.SessionOptions) -> OnnxSession:
    try:
        session = ort.InferenceSession(path, settings, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions share no base class of their own
        raise LoadFailed(f"{path}: ONNX Runtime cannot load it: {error}") from error
    return OnnxSession(session, path)


def _graph_tensor(node: ort.NodeArg, path: Path) -> GraphTensor:
    datatype = ORT_TYPES.get(node.type)
    if datatype is None:
        raise LoadFailed(
            f"{path}: '{node.name}' is a {node.type}, and only tensors of the protocol's datatypes can be served; "
            "export the model without sequences and maps (for scikit-learn: zipmap=False)"
        )
    return GraphTensor(node.name, datatype, tuple(d if isinstance(d, int) else -1 for d in node.shape))


def _to_numpy(value: ort.OrtValue) -> Array:
    if value.element_type() != ONNX_BFLOAT16:
        array: Array = value.numpy()
        return array
    shape = tuple(value.shape())
    if prod(shape) == 0:
        return np.empty(shape, dtype=np.uint16)
    bits = ctypes.cast(value.data_ptr(), ctypes.POINTER(ctypes.c_uint16))
    return np.ctypeslib.as_array(bits, shape).copy()  # the memory is the OrtValue's and goes with it
