"""What a model's own graph says about its configuration: what to fill in, and whether the two agree. Pure.

The rules, and the wording of the refusals, are those of Triton's ONNX Runtime backend. Messages name model and
tensor; whoever knows the file adds it.
"""

from __future__ import annotations

from collections.abc import Sequence

from server.backends.base import GraphTensor
from server.models.config_types import TensorConfig


class Disagreement(ValueError):
    """The configuration and the model file cannot both be right."""


def can_batch(inputs: Sequence[GraphTensor], outputs: Sequence[GraphTensor]) -> bool:
    """Whether every tensor has a free first dimension. A model without inputs has nothing to batch."""
    return bool(inputs) and all(tensor.shape[:1] == (-1,) for tensor in (*inputs, *outputs))


def fill_max_batch_size(model: str, configured: int, batchable: bool, default: int) -> int:
    """The batch size to run with; 0 is not configured. Raises Disagreement where the model cannot batch but should."""
    if batchable:
        return configured or default
    if configured:
        raise Disagreement(
            f"autofill failed for model '{model}': model does not support batching while non-zero max_batch_size"
            " is specified"
        )
    return 0


def fill_shape(model: str, tensor: GraphTensor, batching: bool) -> tuple[tuple[int, ...], tuple[int, ...] | None]:
    """The `dims` and `reshape` to configure. Scalars are sent as one element, since `dims` cannot be empty.

    Raises Disagreement for a size that is fixed at 0, which some exporters write for one that is free.
    """
    if 0 in tensor.shape:
        raise Disagreement(
            f"model '{model}', tensor '{tensor.name}': the model's own shape is {_text(tensor.shape)}, and a size of 0"
            " holds nothing; export it with a free dimension in its place"
        )
    dims = tensor.shape[1:] if batching else tensor.shape
    if dims:
        return dims, None
    return (1,), () if batching else None


def is_plain_scalar(tensor: GraphTensor | None, dims: tuple[int, ...], batching: bool) -> bool:
    """Whether `dims: [1]` stands for a scalar, which Triton writes without a reshape where the model does not batch."""
    return tensor is not None and tensor.shape == () and dims == (1,) and not batching


def check(
    model: str,
    kind: str,
    configured: Sequence[TensorConfig],
    graph: Sequence[GraphTensor],
    batching: bool,
) -> None:
    """Raise Disagreement where a configured tensor contradicts the graph. `kind` is "input" or "output"."""
    by_name = {tensor.name: tensor for tensor in graph}
    allowed = ", ".join(by_name)
    for tensor in configured:
        if tensor.name not in by_name:
            raise Disagreement(
                f"model '{model}': unexpected inference {kind} '{tensor.name}', allowed {kind}s are: {allowed}"
            )
        _check_tensor(f"model '{model}', tensor '{tensor.name}'", tensor, by_name[tensor.name], batching)
    if kind == "input":
        missing = [name for name in by_name if name not in {tensor.name for tensor in configured}]
        if missing:
            raise Disagreement(
                f"model '{model}': configuration expects {len(configured)} inputs, model provides {len(graph)};"
                f" add input(s): {', '.join(missing)}"
            )


def _check_tensor(label: str, configured: TensorConfig, graph: GraphTensor, batching: bool) -> None:
    if configured.datatype != graph.datatype:
        raise Disagreement(
            f"{label}: the model expects data-type {graph.datatype.name} but the model configuration specifies"
            f" {configured.datatype.name}"
        )
    if batching and graph.shape[:1] != (-1,):
        raise Disagreement(
            f"{label}: for the model to support batching the shape should have at least 1 dimension and the first"
            f" dimension must be -1; but shape expected by the model is {_text(graph.shape)}"
        )
    shape = (-1, *configured.model_dims) if batching else configured.model_dims
    if len(shape) != len(graph.shape):
        detail = (
            "an initial batch dimension because max_batch_size > 0 followed by the explicit tensor shape, making"
            f" complete shape {_text(shape)}"
            if batching
            else f"shape {_text(shape)}"
        )
        raise Disagreement(
            f"{label}: the model expects {len(graph.shape)} dimensions (shape {_text(graph.shape)}) but the model"
            f" configuration specifies {len(shape)} dimensions ({detail})"
        )
    if any(expected not in (-1, given) for expected, given in zip(graph.shape, shape, strict=True)):
        raise Disagreement(
            f"{label}: the model expects shape {_text(graph.shape)} but the model configuration specifies shape"
            f" {_text(shape)}"
        )


def _text(shape: tuple[int, ...]) -> str:
    return f"[{','.join(map(str, shape))}]"
