"""ONNX Runtime's own tools on a network that Keras exported: quantised in both ways, and in half precision.

Expected answers are those of the network in float32, which quantisation comes near to, and of ONNX's reference
evaluator for half precision. `keras_tensorflow.py` runs first.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from onnxruntime.transformers.float16 import convert_float_to_float16
from writing import Writer

SOURCE = "keras_convolutional"
random = np.random.default_rng(5)
writer = Writer(("onnxruntime", "onnx", "numpy"))
pixels = random.random((4, 8, 8, 1), np.float32)


class Pictures(CalibrationDataReader):
    """What ranges are measured on."""

    def __init__(self) -> None:
        self._left = iter([{"pixels": random.random((16, 8, 8, 1), np.float32)} for _ in range(4)])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._left, None)


def exact(model: onnx.ModelProto, x: np.ndarray) -> dict[str, np.ndarray]:
    (y,) = ReferenceEvaluator(model).run(None, {"pixels": x})
    return {"Identity:0": y}


source = writer.served(SOURCE)
with tempfile.TemporaryDirectory() as folder:
    ready = Path(folder) / "ready.onnx"
    quant_pre_process(source, ready, skip_symbolic_shape=True)
    path = writer.served(
        "quantised_static", "quantize_static(keras_convolutional, quant_format=QDQ, per_channel=True, QUInt8, QInt8)"
    )
    quantize_static(
        ready,
        path,
        Pictures(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        reduce_range=True,  # processors without VNNI would saturate, and answer something else
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    path = writer.served("quantised_dynamic", "quantize_dynamic(keras_convolutional, QUInt8)")
    quantize_dynamic(ready, path, weight_type=QuantType.QUInt8)
for name in ("quantised_static", "quantised_dynamic"):
    writer.case(name, {"pixels": pixels}, exact(onnx.load(source), pixels))

half = convert_float_to_float16(onnx.load(source), keep_io_types=False)
writer.served("half_precision", "convert_float_to_float16(keras_convolutional, keep_io_types=False)").write_bytes(
    half.SerializeToString()
)
writer.case("half_precision", {"pixels": pixels.astype(np.float16)}, exact(half, pixels.astype(np.float16)))
writer.finish()
