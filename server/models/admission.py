"""Whether a request fits a model, and how it will be laid out in a batch. Pure: configuration and request in, plan out.

Plans depend only on what a request states about its tensors, not on their data, so that `LoadedVersion` can remember
them. Wording and order of the checks follow Triton's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from server.errors import InvalidRequest, TooLarge, WrongShape
from server.messages import InferenceRequest, RequestedOutput, TensorSpec
from server.models.config import ModelConfig, TensorConfig
from server.pictures.preprocessing import CHANNEL_COUNTS, ImagePreprocessing
from server.scheduling.assembly import BatchLayout, InputData, InputLayout
from server.tensors import (
    BF16,
    BOOL,
    BYTES,
    FP16,
    UINT8,
    Array,
    Buffer,
    byte_size,
    decode_bytes_elements,
    split_bytes_elements,
)

MAX_ELEMENTS = 1 << 40
"""A tensor shape beyond this cannot be meant: refused before any arithmetic on memory."""


@dataclass(frozen=True, eq=False, slots=True)
class OutputPlan:
    """One output of an answer."""

    config: TensorConfig
    classification: int
    """Top classes to answer instead of the tensor; 0 for the tensor."""


@dataclass(frozen=True, eq=False, slots=True)
class Plan:
    """How requests of one shape are treated."""

    layout: BatchLayout
    rows: int
    order: tuple[int, ...]
    """For each input of the layout, its place in the request."""
    byte_sizes: tuple[int, ...]
    """Raw bytes expected for each input of the layout; 0 for BYTES."""
    elements: tuple[int, ...]
    """Elements of each input of the layout."""
    outputs: tuple[OutputPlan, ...]
    names: tuple[str, ...]
    """Names of `outputs`."""
    fixed_bytes: int
    """Sum of `byte_sizes`."""
    texts: tuple[int, ...]
    """Places in the request of what is sent as BYTES."""
    is_plain: bool
    """Whether the model's own tensors are the answer, without classes or another shape."""
    answer_bytes: int = 0
    """Of its raw outputs and of the message that they become; an output of no size in the configuration counts as much
    as all inputs."""
    pictures_at: int = -1
    """Which input of the layout is sent as pictures, to be made into what the layout says; -1: none."""
    pixels: tuple[int, ...] = ()
    """Height, width and channels of those pictures; () for encoded files, which say it themselves."""


def make_plan(config: ModelConfig, specs: Sequence[TensorSpec], outputs: Sequence[RequestedOutput], label: str) -> Plan:
    """Check what a request states. `label` is the request's prefix for messages. Raises `InvalidRequest`."""
    chosen = _outputs(config, outputs)
    by_name = _by_name(config, specs, label)
    _check_specified(config, specs, label)
    rows = _rows(config, by_name, label)
    layouts: list[InputLayout] = []
    sizes: list[int] = []
    elements: list[int] = []
    pictures_at = -1
    pixels: tuple[int, ...] = ()
    for index, tensor in enumerate(config.inputs):
        _, spec = by_name[tensor.name]
        preprocessing = _preprocessing_of(config, tensor, spec)
        if preprocessing is not None:
            pictures_at, pixels = index, _pixels(config, preprocessing, spec, label)
            dims: tuple[int, ...] = preprocessing.shape
            size, count = rows * prod(pixels) if pixels else 0, rows
        else:
            _check_datatype(config, tensor, spec, label)
            dims = _row_dims(config, tensor, spec, label)
            size, count = byte_size(tensor.datatype, dims) * rows, rows * prod(dims)
        row_bytes = byte_size(tensor.datatype, dims)
        layouts.append(InputLayout(tensor.name, tensor.datatype, _reshaped(tensor, dims), row_bytes))
        sizes.append(size)
        elements.append(count)
    order = tuple(by_name[tensor.name][0] for tensor in config.inputs)
    layout = BatchLayout(tuple(layouts), batched=config.max_batch_size > 0)
    return Plan(
        layout,
        rows,
        order,
        tuple(sizes),
        tuple(elements),
        chosen,
        names=tuple(output.config.name for output in chosen),
        fixed_bytes=sum(sizes),
        texts=tuple(place for place, spec in by_name.values() if spec.datatype == BYTES.name),
        is_plain=not any(output.classification or output.config.reshape is not None for output in chosen),
        answer_bytes=2 * sum(_answer_bytes(output, rows, sum(sizes)) for output in chosen),
        pictures_at=pictures_at,
        pixels=pixels,
    )


def _answer_bytes(output: OutputPlan, rows: int, request_bytes: int) -> int:
    config = output.config
    if config.datatype is BYTES or min(config.dims, default=0) < 0:
        return request_bytes
    return rows * byte_size(config.datatype, tuple(config.dims))


def inputs_in_order(config: ModelConfig, plan: Plan, request: InferenceRequest) -> list[InputData]:
    """The data in the layout's order: BYTES decoded to text, pictures as they came. Raises `InvalidRequest`."""
    result: list[InputData] = []
    if not plan.texts and plan.pictures_at < 0:  # what most requests are: views of messages, of the right sizes
        for place, size in zip(plan.order, plan.byte_sizes, strict=True):
            data = request.buffers[place]
            if type(data) is not memoryview or len(data) != size:
                break
            result.append(data)
        else:
            return result
        result.clear()
    for i, tensor in enumerate(plan.layout.inputs):
        data = request.buffers[plan.order[i]]
        if data is None:
            if plan.elements[i]:
                raise _no_data(config, tensor)
            data = b""
        if i == plan.pictures_at:
            if not plan.pixels:
                result.append(data)
                continue
            if not isinstance(data, (bytes, memoryview, np.ndarray)):
                data = data.read()  # it is cut into pictures at once
        if tensor.datatype is BYTES:
            assert isinstance(data, (bytes, memoryview, np.ndarray)), "BYTES are never left elsewhere"
            result.append(_text(config, tensor, plan.elements[i], data, request.label()))
            continue
        size = data.nbytes if isinstance(data, np.ndarray) else len(data)
        if size != plan.byte_sizes[i]:
            raise _wrong_size(config, tensor, plan.byte_sizes[i], size, request.label())
        result.append(data)
    return result


def check_sizes(config: ModelConfig, plan: Plan, request: InferenceRequest) -> None:
    """As `inputs_in_order`, for data that go to another model as they are: BYTES are left to it."""
    for i, tensor in enumerate(plan.layout.inputs):
        data = request.buffers[plan.order[i]]
        if data is None and plan.elements[i]:
            raise _no_data(config, tensor)
        if tensor.datatype is not BYTES and data is not None:
            size = data.nbytes if isinstance(data, np.ndarray) else len(data)
            if size != plan.byte_sizes[i]:
                raise _wrong_size(config, tensor, plan.byte_sizes[i], size, request.label())


def pictures(config: ModelConfig, plan: Plan, data: Buffer | Array, label: str) -> list[Buffer | Array]:
    """The pictures that one input holds, a row each: files, or pixels of the plan's shape. Raises `InvalidRequest`."""
    if plan.pixels:
        assert isinstance(data, (bytes, memoryview)), "only BYTES come as arrays"
        return list(np.frombuffer(data, np.uint8).reshape(plan.rows, *plan.pixels))
    try:
        if not isinstance(data, np.ndarray):
            return list(split_bytes_elements(data, plan.rows))
        if data.size != plan.rows:
            raise ValueError(f"expected {plan.rows} elements, got {data.size}")
        if _is_text(data):
            raise ValueError("they are text that another model wrote, and no images")
    except ValueError as error:
        raise _bad_elements(config, plan.layout.inputs[plan.pictures_at].name, label, error) from None
    return list(data.ravel().tolist())


def wire_bytes(plan: Plan, request: InferenceRequest) -> int:
    """The bytes of the request's tensors as they came, for whoever counts what waits."""
    size = plan.fixed_bytes
    for place in plan.texts:
        data = request.buffers[place]
        if data is not None:
            size += sum(len(element) for element in data.tolist()) if isinstance(data, np.ndarray) else len(data)
    return size


def _outputs(config: ModelConfig, requested: Sequence[RequestedOutput]) -> tuple[OutputPlan, ...]:
    known = {tensor.name: tensor for tensor in config.outputs}
    if not requested:
        return tuple(OutputPlan(tensor, 0) for tensor in config.outputs)
    plans: dict[str, OutputPlan] = {}
    for output in requested:
        tensor = known.get(output.name)
        if tensor is None:
            raise InvalidRequest(f"unexpected inference output '{output.name}' for model '{config.name}'")
        if output.name in plans:
            raise InvalidRequest(f"output '{output.name}' is requested twice for model '{config.name}'")
        if output.classification and tensor.datatype in (BYTES, BOOL, FP16, BF16):
            raise InvalidRequest(
                f"classification is not possible for output '{output.name}' of model '{config.name}': "
                f"its datatype is {tensor.datatype.name}"
            )
        plans[output.name] = OutputPlan(tensor, output.classification)
    return tuple(plans.values())


def _by_name(config: ModelConfig, specs: Sequence[TensorSpec], label: str) -> dict[str, tuple[int, TensorSpec]]:
    expected = [tensor.name for tensor in config.inputs]
    by_name: dict[str, tuple[int, TensorSpec]] = {}
    for index, spec in enumerate(specs):
        if spec.name in by_name:
            raise InvalidRequest(f"{label}input '{spec.name}' already exists in request")
        if spec.name not in expected:
            raise InvalidRequest(f"unexpected inference input '{spec.name}' for model '{config.name}'")
        by_name[spec.name] = (index, spec)
    missing = [name for name in expected if name not in by_name]
    if missing:
        raise InvalidRequest(
            f"{label}expected {len(expected)} inputs but got {len(by_name)} inputs for model '{config.name}'. "
            f"Got input(s) {_quoted(by_name)}, but missing required input(s) {_quoted(missing)}. "
            "Please provide all required input(s)."
        )
    return by_name


def _check_specified(config: ModelConfig, specs: Sequence[TensorSpec], label: str) -> None:
    for spec in specs:
        if any(dim < 0 for dim in spec.shape):
            raise WrongShape(
                f"{label}All input dimensions should be specified for input '{spec.name}' for model '{config.name}', "
                f"got {_shape(spec.shape)}"
            )


def _rows(config: ModelConfig, by_name: dict[str, tuple[int, TensorSpec]], label: str) -> int:
    if config.max_batch_size == 0:
        return 1
    rows: int | None = None
    for _, spec in by_name.values():
        if not spec.shape:
            raise WrongShape(
                f"{label}input '{spec.name}' has no shape but model requires batch dimension for '{config.name}'"
            )
        if rows is None:
            rows = spec.shape[0]
        elif spec.shape[0] != rows:
            raise WrongShape(f"{label}input '{spec.name}' batch size does not match other inputs for '{config.name}'")
    if rows is None or rows < 1:
        raise WrongShape(f"{label}inference request batch-size must be >= 1 for '{config.name}'")
    if rows > config.max_batch_size and not config.split_oversize:
        raise TooLarge(f"{label}inference request batch-size must be <= {config.max_batch_size} for '{config.name}'")
    return rows


def _preprocessing_of(config: ModelConfig, tensor: TensorConfig, spec: TensorSpec) -> ImagePreprocessing | None:
    """How pictures become this input, where the request sends pictures for it."""
    preprocessing = config.preprocessing
    if preprocessing is None or tensor.name != preprocessing.input:
        return None
    if spec.datatype == tensor.datatype.name:  # UINT8: the model's own shape is no picture to be resized
        own = spec.datatype != UINT8.name or _fits(tensor, _without_batch(config, spec))
        return None if own else preprocessing
    return preprocessing if spec.datatype in (BYTES.name, UINT8.name) else None


def _pixels(config: ModelConfig, preprocessing: ImagePreprocessing, spec: TensorSpec, label: str) -> tuple[int, ...]:
    """The shape of each picture; () where they are files."""
    dims = _without_batch(config, spec)
    if spec.datatype == BYTES.name:
        if dims not in ((), (1,)):
            raise WrongShape(
                f"{label}unexpected shape for input '{spec.name}' for model '{config.name}'. "
                f"Encoded images are one element a row, got {_shape(spec.shape)}."
            )
        return ()
    if len(dims) != 3 or not (dims[0] and dims[1]) or dims[2] not in CHANNEL_COUNTS:
        raise WrongShape(
            f"{label}unexpected shape for input '{spec.name}' for model '{config.name}'. "
            f"UINT8 images are height, width and 1, 3 or 4 channels, got {_shape(spec.shape)}."
        )
    if dims[0] * dims[1] > preprocessing.max_pixels:
        raise TooLarge(
            f"{label}images of input '{spec.name}' have {dims[1]}×{dims[0]} pixels; model '{config.name}' takes "
            f"{preprocessing.max_pixels} (image.max_pixels)"
        )
    return dims


def _check_datatype(config: ModelConfig, tensor: TensorConfig, spec: TensorSpec, label: str) -> None:
    if spec.datatype != tensor.datatype.name:
        raise InvalidRequest(
            f"{label}inference input '{tensor.name}' data-type is '{spec.datatype}', "
            f"but model '{config.name}' expects '{tensor.datatype.name}'"
        )


def _row_dims(config: ModelConfig, tensor: TensorConfig, spec: TensorSpec, label: str) -> tuple[int, ...]:
    """The request's dims without the batch axis, checked against the configuration."""
    dims = _without_batch(config, spec)
    if not _fits(tensor, dims):
        expected = (-1, *tensor.dims) if config.max_batch_size else tensor.dims
        note = (
            " NOTE: Setting a non-zero max_batch_size in the model config requires a batch dimension in front of every "
            "input shape; to state full shapes in the config, set max_batch_size to zero."
            if config.max_batch_size
            else ""
        )
        raise WrongShape(
            f"{label}unexpected shape for input '{tensor.name}' for model '{config.name}'. "
            f"Expected {_shape(expected)}, got {_shape(spec.shape)}.{note}"
        )
    if prod(max(dim, 1) for dim in spec.shape) > MAX_ELEMENTS:  # numpy refuses giant sides of empty tensors, too
        raise TooLarge(
            f"{label}input '{tensor.name}' for model '{config.name}' has too many elements: {_shape(spec.shape)}"
        )
    return dims


def _without_batch(config: ModelConfig, spec: TensorSpec) -> tuple[int, ...]:
    return spec.shape[1:] if config.max_batch_size else spec.shape


def _fits(tensor: TensorConfig, dims: tuple[int, ...]) -> bool:
    return len(dims) == len(tensor.dims) and all(want in (-1, got) for want, got in zip(tensor.dims, dims, strict=True))


def _reshaped(tensor: TensorConfig, dims: tuple[int, ...]) -> tuple[int, ...]:
    """The model's own dims: `reshape` with its free dimensions filled in the order in which `dims` has them."""
    if tensor.reshape is None:
        return dims
    free = [got for want, got in zip(tensor.dims, dims, strict=True) if want == -1]
    return tuple(free.pop(0) if want == -1 else want for want in tensor.reshape)


def _no_data(config: ModelConfig, tensor: InputLayout) -> InvalidRequest:
    return InvalidRequest(f"unable to find data for input tensor '{tensor.name}' for model '{config.name}' in request.")


def _wrong_size(config: ModelConfig, tensor: InputLayout, expected: int, got: int, label: str) -> WrongShape:
    return WrongShape(
        f"{label}input byte size mismatch for input '{tensor.name}' for model '{config.name}'. "
        f"Expected {expected}, got {got}"
    )


def _is_text(elements: Array) -> bool:
    """Whether a model wrote them: runtimes give text, and callers send bytes."""
    return bool(elements.size) and isinstance(elements.flat[0], str)


def _text(config: ModelConfig, tensor: InputLayout, count: int, data: Buffer | Array, label: str) -> Array:
    try:
        elements = data if isinstance(data, np.ndarray) else decode_bytes_elements(data, count)
        if elements.size != count:
            raise ValueError(f"expected {count} elements, got {elements.size}")
        if elements is data and _is_text(elements):
            return elements.reshape(-1)
        texts = np.empty(count, dtype=object)
        texts[:] = [element.decode() for element in elements]
    except UnicodeDecodeError as error:
        what = f"{label}input '{tensor.name}' for model '{config.name}' holds bytes that are not UTF-8 text"
        raise InvalidRequest(f"{what}: {error}").logged_as(what) from None
    except ValueError as error:
        raise _bad_elements(config, tensor.name, label, error) from None
    return texts


def _bad_elements(config: ModelConfig, name: str, label: str, error: ValueError) -> InvalidRequest:
    what = f"{label}incorrect contents of BYTES input '{name}' for model '{config.name}'"
    return InvalidRequest(f"{what}: {error}").logged_as(what)


def _quoted(names: Sequence[str] | dict[str, tuple[int, TensorSpec]]) -> str:
    return "[" + ",".join(f"'{name}'" for name in names) + "]"


def _shape(dims: Sequence[int]) -> str:
    return "[" + ",".join(str(dim) for dim in dims) + "]"
