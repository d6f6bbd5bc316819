"""ONNX Runtime on a GPU: memory that reaches the device fast, and recorded runs.

Nothing here has run on a GPU yet; docs/gpu.md says what has been tried and how.

**Streams.** Instances share a session. ONNX Runtime takes a stream of its own for every run that is in progress (since
1.14, where no user stream is set), so N instances use N streams, and the weights are in memory once. A run copies its
inputs on that stream: with two instances, the next batch is copied while this one runs. Staging in page-locked memory
makes those copies asynchronous: CUDA knows such memory by its address, so numpy arrays go in as they are. It comes
from the driver: ONNX Runtime shows its own to Python only once its CUDA library is registered as a plugin, and
sessions that are opened from then on come about in another way than those before.

**CUDA graphs** are recorded for fixed addresses and shapes, on the one stream of their session. So each instance has a
session of its own, and each set of input shapes a binding with device memory of its own.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import numpy as np
import onnxruntime as ort

from server.backends.base import RUN_LOG_SEVERITY, GraphTensor, Session
from server.backends.gpus import Empty, page_locked_memory
from server.errors import LoadFailed
from server.tensors import BF16, BYTES, Array

log = logging.getLogger(__name__)

MAX_GRAPHS = 32
"""Sets of input shapes that one instance records; further ones run without. Recordings hold memory for good."""

CUDA = "CUDAExecutionProvider"

_NO_CAPTURE = "-1"  # ONNX Runtime's word for a run that is neither recorded nor replayed


class CudaSession:
    """A model on one GPU, for several instances. Implements `base.Session`."""

    fixed_shapes = True  # a new shape makes cuDNN choose its algorithms anew

    def __init__(self, session: Session, empty: Empty) -> None:
        self.inputs = session.inputs
        self.outputs = session.outputs
        self.run = session.run
        self.interrupt = session.interrupt
        self.empty = empty
        self._session = session

    def for_instance(self) -> CudaSession:
        """See `base.Session.for_instance`: streams are taken run by run, and staging is the instance's."""
        return self

    def interruptible(self) -> CudaSession:
        """See `base.Session.interruptible`."""
        return CudaSession(self._session.interruptible(), self.empty)


class GraphSession:
    """A model on one GPU whose runs are recorded and replayed, for one instance alone. Implements `base.Session`."""

    fixed_shapes = True

    def __init__(
        self,
        session: ort.InferenceSession,
        plain: Session,
        empty: Empty,
        device: tuple[str, int],
        *,
        records: bool = True,
    ) -> None:
        self.inputs = plain.inputs
        self.outputs = plain.outputs
        self.empty = empty
        self._session = session
        self._plain = plain
        self._device = device
        self._records = records
        self._bindings: dict[tuple[object, ...], _Binding] = {}
        self._without_capture = _run_options(_NO_CAPTURE)
        self._interrupted = False

    def for_instance(self) -> GraphSession:
        """See `base.Session.for_instance`."""
        return self

    def interruptible(self) -> GraphSession:
        """See `base.Session.interruptible`. The second and later ones record nothing: the first one's recordings, and
        their numbers, are ONNX Runtime's for good."""
        if not self._interrupted:
            return self
        return GraphSession(self._session, self._plain, self.empty, self._device, records=False)

    def interrupt(self) -> None:
        """See `base.Session.interrupt`."""
        self._interrupted = True
        self._without_capture.terminate = True
        for binding in tuple(self._bindings.values()):
            binding.interrupt()

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
        """See `base.Session.run`. The first run of new shapes is an ordinary one, which tells the outputs' shapes."""
        key = (tuple((name, array.shape) for name, array in inputs.items()), tuple(outputs))
        binding = self._bindings.get(key)
        if binding is not None:
            return binding.run(inputs)
        results: list[Array] = self._session.run(outputs, inputs, self._without_capture)
        if self._records and len(self._bindings) < MAX_GRAPHS:
            number = len(self._bindings) + 1
            self._bindings[key] = _Binding(
                self._session, self._device, number, inputs, dict(zip(outputs, results, strict=True))
            )
        return results


class _Binding:
    """Device memory for one set of shapes, and the recording that reads and writes it."""

    def __init__(
        self,
        session: ort.InferenceSession,
        device: tuple[str, int],
        number: int,
        inputs: Mapping[str, Array],
        outputs: Mapping[str, Array],
    ) -> None:
        self._session = session
        self._options = _run_options(str(number))
        self._binding = session.io_binding()
        self._inputs = {name: _device_value(array, device) for name, array in inputs.items()}
        self._outputs = {name: _device_value(array, device) for name, array in outputs.items()}
        for name, value in self._inputs.items():
            self._binding.bind_ortvalue_input(name, value)
        for name, value in self._outputs.items():
            self._binding.bind_ortvalue_output(name, value)

    def run(self, inputs: Mapping[str, Array]) -> list[Array]:
        for name, value in self._inputs.items():
            value.update_inplace(inputs[name])
        self._session.run_with_iobinding(self._binding, self._options)
        arrays: list[Array] = [value.numpy() for value in self._outputs.values()]
        return [array if array.flags.owndata else array.copy() for array in arrays]  # the next run writes over values

    def interrupt(self) -> None:
        self._options.terminate = True


def gpu_session(
    session: ort.InferenceSession, plain: Session, path: Path, device: int, *, graphs: bool, pinned: bool
) -> CudaSession | GraphSession:
    """The session of a model on a GPU. `plain` runs it without what this file adds.

    Raises LoadFailed where ONNX Runtime left the GPU out, and where CUDA graphs cannot hold the model's tensors.
    """
    if CUDA not in session.get_providers():  # it only logs why, and goes on without
        raise LoadFailed(
            f"{path}: ONNX Runtime could not start its CUDA provider on GPU {device}; its libraries may be missing: "
            "install onnxruntime-gpu[cuda,cudnn], and see the log"
        )
    empty = staging_memory(device) if pinned else np.empty
    if not graphs:
        return CudaSession(plain, empty)
    check_graph_tensors(path, (*plain.inputs, *plain.outputs))
    return GraphSession(session, plain, empty, ("cuda", device))


def check_graph_tensors(path: Path, tensors: Sequence[GraphTensor]) -> None:
    """Raise LoadFailed for a tensor that cannot be bound to device memory of a fixed address from numpy."""
    for tensor in tensors:
        if tensor.datatype in (BYTES, BF16):
            raise LoadFailed(
                f"{path}: field 'optimization.cuda.graphs' cannot go with '{tensor.name}', which is "
                f"{tensor.datatype.name}; remove the field"
            )


def staging_memory(device: int) -> Empty:
    """What makes arrays for a GPU's inputs: page-locked, or ordinary ones where the driver gives no such memory."""
    try:
        return page_locked_memory(device)
    except OSError as error:
        log.warning("inputs for GPU %d are staged in ordinary memory: %s", device, error)
        return np.empty


def preload_libraries() -> None:
    """Find CUDA and cuDNN where pip puts them. What is missing is printed, and told again when a session needs it."""
    output = StringIO()
    with redirect_stdout(output):
        ort.preload_dlls()
    for line in output.getvalue().splitlines():
        log.debug("%s", line)


def _device_value(array: Array, device: tuple[str, int]) -> ort.OrtValue:
    return ort.OrtValue.ortvalue_from_shape_and_type(list(array.shape), array.dtype, *device)


def _run_options(graph: str) -> ort.RunOptions:
    options = ort.RunOptions()
    options.log_severity_level = RUN_LOG_SEVERITY
    options.add_run_config_entry("gpu_graph_id", graph)
    return options
