"""A network as an ONNX graph: what stands before and behind it, and torch's exporter."""

from __future__ import annotations

import logging
import warnings

import onnx
import onnxruntime
import torch
from torch import Tensor, nn

from training.export.pixels import Pixels, Scaling
from training.export_options import DEFAULT_OPSET, INPUTS, OUTPUTS
from training.files import TrainingError

INPUT, OUTPUT = INPUTS["tensor"], OUTPUTS["softmax"]


class Served(nn.Module):
    """The network as its clients see it: probabilities unless `softmax` is off, of pixels where there is a scaling."""

    def __init__(self, network: nn.Module, *, softmax: bool = True, scaling: Scaling | None = None) -> None:
        super().__init__()
        self.pixels = None if scaling is None else Pixels(scaling)
        self.network = network
        self.softmax = softmax

    def forward(self, images: Tensor) -> Tensor:
        scores: Tensor = self.network(images if self.pixels is None else self.pixels(images))
        return scores.softmax(dim=1) if self.softmax else scores


def to_onnx(
    model: nn.Module,
    example: Tensor,
    output: str = OUTPUT,
    *,
    input_name: str = INPUT,
    opset: int = DEFAULT_OPSET,
    open_axes: dict[int, str] | None = None,
) -> bytes:
    """One self-contained, checked ONNX file with a dynamic first axis named "batch". `example` has at least 2 rows.

    `open_axes` are more axes of the input that stay open, and their names.
    """
    # The exporter logs that torchvision is absent, and trips over a deprecation of torch's own.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        # An LSTM of torch's keeps its weights in a list too, and refreshes it when it is exported; its loop is traced
        # with tensors whose gradients torch then asks for.
        warnings.filterwarnings("ignore", r"The tensor attributes? .*_flat_weights", UserWarning)
        warnings.filterwarnings("ignore", r"The \.grad attribute of a Tensor", UserWarning)
        program = torch.onnx.export(
            model,
            (example,),
            dynamo=True,
            input_names=[input_name],
            output_names=[output],
            dynamic_shapes=({0: "batch", **(open_axes or {})},),
            opset_version=opset,
            verbose=False,
        )
    assert program is not None
    proto = program.model_proto
    written = next(entry.version for entry in proto.opset_import if not entry.domain)
    if written != opset:
        raise TrainingError(
            f"torch wrote operators of opset {written}, not of {opset}. Nothing was written. "
            f"Leave out --opset, or use --opset {written}."
        )
    return checked(proto)


def checked(proto: onnx.ModelProto) -> bytes:
    """The model as a file, if ONNX's checker finds its types and shapes in order and ONNX Runtime loads it."""
    strip(proto)
    onnx.checker.check_model(proto, full_check=True)
    graph = bytes(proto.SerializeToString(deterministic=True))
    try:
        onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise TrainingError(
            f"ONNX Runtime {onnxruntime.__version__} does not load the exported graph: {error}. Nothing was written. "
            "With --opset, try a lower one."
        ) from error
    return graph


def strip(proto: onnx.ModelProto) -> None:
    """Drop the exporter's notes: they are longer than some graphs, and hold paths of the machine that exported."""
    graph = proto.graph
    for noted in (proto, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        noted.ClearField("metadata_props")
