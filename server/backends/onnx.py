"""ONNX Runtime: opens `model.onnx` and runs batches.

One session serves any number of threads: its weights are in memory once. `run` releases the interpreter lock. So does
opening a session, since ONNX Runtime 1.31; closing one does not. Several may be opened at once, but for those on a GPU
or with operators of their own: ONNX Runtime does not guard what they share.
"""

from __future__ import annotations

import copy
import ctypes
import logging
import threading
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from server import tensors
from server.backends import cuda, model_cache
from server.backends.base import RUN_LOG_SEVERITY, Devices, GraphTensor, Session, SessionOptions
from server.backends.external_data import external_files
from server.backends.gpus import count_gpus
from server.backends.load_failures import explained, unserved_type
from server.backends.loading import LoadAttempt, LoadTurns, holds_up_others
from server.backends.memory import is_out_of_memory
from server.backends.model_cache import cache_key
from server.backends.run_memory import RunMemory
from server.errors import LoadFailed, OutOfMemory
from server.tensors import Array, DataType

log = logging.getLogger(__name__)

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

SLEEP_WHILE_WAITING = {"session.intra_op.allow_spinning": "0", "session.inter_op.allow_spinning": "0"}
"""Batches come and go, and the event loop needs the cores in between: threads spin only where a model asks for it."""

TENSORRT = "TensorrtExecutionProvider"
ENGINE_CACHES = ("engine", "timing")
"""What TensorRT keeps on disk, each if it is asked to."""

_SAVED_WEIGHTS = "session.optimized_model_external_initializers_file_name"


class OnnxSession:
    """One model on ONNX Runtime. Implements `base.Session`."""

    fixed_shapes = False  # on the CPU, every size runs as it comes

    def __init__(
        self,
        session: ort.InferenceSession,
        path: Path,
        arena_shrinkage: str = "",
        run_memory: RunMemory | None = None,
    ) -> None:
        self._session = session
        self._run_memory = run_memory
        self.inputs = tuple(_graph_tensor("input", node, path) for node in session.get_inputs())
        self.outputs = tuple(_graph_tensor("output", node, path) for node in session.get_outputs())
        # numpy has no bfloat16, so such a model takes and gives OrtValues; all others take the shorter way.
        self._has_bf16 = any(t.datatype is tensors.BF16 for t in self.inputs + self.outputs)
        self._bf16_inputs = {t.name for t in self.inputs if t.datatype is tensors.BF16}
        self._arena_shrinkage = arena_shrinkage
        self._run_options = _run_options(arena_shrinkage)

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
        """See `base.Session.run`."""
        try:
            return self._run(inputs, outputs)
        except OutOfMemory:
            if self._run_memory is None:
                raise
            self._run_memory.give_back()
            return self._run(inputs, outputs)

    def _run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
        try:
            if self._has_bf16:
                return self._run_ort_values(inputs, outputs)
            results: list[Array] = self._session.run(outputs, inputs, self._run_options)
        except Exception as error:  # ONNX Runtime's exceptions share no base class of their own
            if is_out_of_memory(error):
                raise OutOfMemory(f"it found no memory: {error}") from error
            raise
        return results

    def for_instance(self) -> OnnxSession:
        """See `base.Session.for_instance`: on the CPU a session has no working memory."""
        return self

    def interruptible(self) -> OnnxSession:
        """See `base.Session.interruptible`."""
        other = copy.copy(self)
        other._run_options = _run_options(self._arena_shrinkage)  # noqa: SLF001 -- its own
        return other

    def interrupt(self) -> None:
        """See `base.Session.interrupt`: ONNX Runtime looks at the flag between operators, and rounds of a Loop."""
        self._run_options.terminate = True

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """See `base.Session.empty`."""
        return np.empty(shape, dtype)

    def _run_ort_values(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
        feed = {
            name: ort.OrtValue.ortvalue_from_numpy_with_onnx_type(array, ONNX_BFLOAT16)
            if name in self._bf16_inputs
            else ort.OrtValue.ortvalue_from_numpy(array)
            for name, array in inputs.items()
        }
        return [_to_numpy(value) for value in self._session.run_with_ort_values(outputs, feed, self._run_options)]


class OnnxBackend:
    """Opens ONNX files. Implements `base.Backend`."""

    def __init__(
        self,
        model_cache_dir: Path | None = None,
        *,
        allow_custom_ops: bool = False,
        run_memory: RunMemory | None = None,
    ) -> None:
        """`allow_custom_ops`: whether models may bring libraries with operators, which are code. `run_memory` bounds
        what runs on the CPU hold; without it they may hold what they like."""
        self._model_cache_dir = model_cache_dir
        self._allow_custom_ops = allow_custom_ops
        self._run_memory = run_memory
        self._devices: Devices | None = None
        self._looking = threading.Lock()
        """For devices."""
        self._alone = LoadTurns()
        """Of what must not be opened twice at once."""
        if holds_up_others(ort.__version__):
            log.warning(
                "with ONNX Runtime %s no request is answered while a model is opened; 1.31 and later let both go on",
                ort.__version__,
            )

    def devices(self) -> Devices:
        """See `base.Backend.devices`."""
        with self._looking:
            return self._look_for_devices()

    def _look_for_devices(self) -> Devices:
        if self._devices is None:
            providers = frozenset(ort.get_available_providers())
            count, problem = count_gpus() if cuda.CUDA in providers else (0, "")
            if count:
                cuda.preload_libraries()
            self._devices = Devices(providers, count, problem)
        return self._devices

    def load(self, path: Path, options: SessionOptions, attempt: LoadAttempt | None = None) -> Session:
        """See `base.Backend.load`. Without an `attempt` nobody interrupts it."""
        attempt = attempt or LoadAttempt()
        with self._alone.turn(attempt) if options.device is not None or options.op_libraries else nullcontext():
            return self._load(path, options, attempt)

    def _load(self, path: Path, options: SessionOptions, attempt: LoadAttempt) -> Session:
        if options.op_libraries and not self._allow_custom_ops:
            raise LoadFailed(
                f"{path}: field 'model_operations.op_library_filename' names code, which this server does not run; "
                "start it with --allow-custom-ops=true where whoever writes to its repositories is trusted with that"
            )
        files = external_files(path, options.folder or path.parent)
        options = self._with_engine_cache(path, files, options)
        if not options.cache_optimized_model:
            return self._open(path, session_settings(path, options), options, attempt)
        if options.device is not None:
            raise LoadFailed(
                f"{path}: parameters['optimized_model_cache'] is for models on the CPU; remove it (for TensorRT, use "
                "trt_engine_cache_enable)"
            )
        if self._model_cache_dir is None:
            raise LoadFailed(
                f"{path}: parameters['optimized_model_cache'] needs a folder for the optimised graphs; start the "
                "server with --model-cache-dir, or remove the parameter"
            )
        key = cache_key(
            (path, *files, *options.op_libraries),
            ort.__version__,
            options.graph_optimization_level,
            options.entries,
        )

        def open_entry(entry: Path) -> Session:
            settings = session_settings(path, options)
            settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
            return self._open(entry, settings, options, attempt)

        def open_and_save(entry: Path | None) -> Session:
            settings = session_settings(path, options)
            if entry is not None:
                settings.optimized_model_filepath = str(entry)
                # Beside the graph, not inside: a protobuf message ends at 2 GB, and a file of its own is memory-mapped.
                settings.add_session_config_entry(_SAVED_WEIGHTS, model_cache.WEIGHTS)
            return self._open(path, settings, options, attempt)

        return model_cache.open_through_cache(self._model_cache_dir, key, open_entry, open_and_save)

    def _open(self, path: Path, settings: ort.SessionOptions, options: SessionOptions, attempt: LoadAttempt) -> Session:
        try:
            with attempt.interruptible(lambda: settings.set_load_cancellation_flag(True)):
                log.debug("%s: being opened", path)
                return open_session(path, settings, options, self._run_memory)
        finally:
            if attempt.error is not None:
                log.info("%s: %s", path, attempt.error)  # who waited for it may be gone

    def _with_engine_cache(self, path: Path, files: Sequence[Path], options: SessionOptions) -> SessionOptions:
        """The options with a place for TensorRT's engines, one for each model, where they ask for any."""
        names = {name: dict(given) for name, given in options.providers}
        wanted = [cache for cache in ENGINE_CACHES if names.get(TENSORRT, {}).get(f"trt_{cache}_cache_enable") == "1"]
        if not wanted:
            return options
        if self._model_cache_dir is None:
            raise LoadFailed(
                f"{path}: trt_{wanted[0]}_cache_enable needs a folder: start the server with --model-cache-dir"
            )
        folder = self._model_cache_dir / f"tensorrt-{cache_key((path, *files), ort.__version__)}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise LoadFailed(f"{path}: trt_{wanted[0]}_cache_enable: {folder}: cannot be made: {error}") from error
        names[TENSORRT] |= {f"trt_{cache}_cache_path": str(folder) for cache in wanted}
        return replace(options, providers=tuple((name, tuple(given.items())) for name, given in names.items()))


def session_settings(path: Path, options: SessionOptions) -> ort.SessionOptions:
    """ONNX Runtime's own options for the model at `path`. Raises LoadFailed for a library that cannot be registered."""
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = options.intra_op_threads
    settings.inter_op_num_threads = options.inter_op_threads
    settings.enable_cpu_mem_arena = options.memory_arena
    settings.enable_mem_pattern = options.memory_pattern
    settings.graph_optimization_level = OPTIMIZATION_LEVELS[options.graph_optimization_level]
    if options.parallel_operators:
        settings.execution_mode = ort.ExecutionMode.ORT_PARALLEL
    for key, value in (SLEEP_WHILE_WAITING | dict(options.entries)).items():
        settings.add_session_config_entry(key, value)
    settings.log_severity_level = 3
    for library in options.op_libraries:
        try:
            settings.register_custom_ops_library(str(library.resolve()))  # a bare name would be looked for elsewhere
        except Exception as error:  # ONNX Runtime's exceptions share no base class of their own
            raise LoadFailed(f"{path}: field 'model_operations.op_library_filename': {error}") from error
    return settings


def open_session(
    path: Path, settings: ort.SessionOptions, options: SessionOptions, run_memory: RunMemory | None = None
) -> Session:
    """A session with these settings. Raises `LoadFailed`, also where its load is cancelled."""
    if run_memory is not None:
        run_memory.share(settings)
    try:
        # Without fallback: it would hide what is wrong with the options, and print to stdout.
        providers = [(name, dict(given)) for name, given in options.providers]
        session = ort.InferenceSession(path, settings, providers=providers, enable_fallback=False)
    except Exception as error:  # ONNX Runtime's exceptions share no base class of their own
        raise LoadFailed(f"{path}: ONNX Runtime cannot load it: {explained(str(error))}") from error
    plain = OnnxSession(session, path, options.arena_shrinkage, run_memory)
    if options.device is None:
        return plain
    return cuda.gpu_session(
        session, plain, path, options.device, graphs=options.cuda_graphs, pinned=options.pinned_memory
    )


def _run_options(arena_shrinkage: str) -> ort.RunOptions:
    options = ort.RunOptions()
    options.log_severity_level = RUN_LOG_SEVERITY
    if arena_shrinkage:
        options.add_run_config_entry("memory.enable_memory_arena_shrinkage", arena_shrinkage)
    return options


def _graph_tensor(kind: str, node: ort.NodeArg, path: Path) -> GraphTensor:
    datatype = ORT_TYPES.get(node.type)
    if datatype is None:
        raise LoadFailed(f"{path}: {unserved_type(kind, node.name, node.type)}")
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
