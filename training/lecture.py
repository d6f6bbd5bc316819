"""The lecture's worked examples as code: convolution, its back-propagation, the boat's error, and a layer to be served.

    python -m training lecture [--repository model_repository] [--version N]

writes `lecture_conv`: the convolution layer of the page "Camada convolucional" (W₁ = H₁ = 5, D₁ = 3; K = 2, F = 3,
S = 2, P = 1), whose weights are the page's own. The tests ask it for the page's answer.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.export.graph import INPUT, to_onnx
from training.export.parity import TOLERANCE, compare, probes, worst_of
from training.export.repository import Interface, Port, config, write_version

NAME = "lecture_conv"
OUTPUT = "output"

VOLUME = (
    ((0, 0, 1, 0, 2), (1, 0, 2, 0, 1), (1, 0, 2, 2, 0), (2, 0, 0, 2, 0), (2, 1, 2, 2, 0)),
    ((2, 1, 2, 1, 1), (2, 1, 2, 0, 1), (0, 2, 1, 0, 1), (1, 2, 2, 2, 2), (0, 1, 2, 0, 1)),
    ((2, 1, 1, 2, 0), (1, 0, 0, 1, 0), (0, 1, 0, 0, 0), (1, 0, 2, 1, 0), (2, 2, 1, 1, 1)),
)
"""The page's input, without its margin: three planes of 5×5."""
FILTERS = (
    (((-1, 0, 1), (0, 0, 1), (1, -1, 1)), ((-1, 0, 1), (1, -1, 1), (0, 1, 0)), ((-1, 1, 1), (1, 1, 0), (0, -1, 0))),
    (((0, 1, -1), (0, -1, 0), (0, -1, 1)), ((-1, 0, 0), (1, -1, 0), (1, -1, 0)), ((-1, 1, -1), (0, -1, -1), (1, 0, 0))),
)
"""W0 and W1, each three planes of 3×3."""
BIASES = (1, 0)

CARD = """\
# lecture_conv

The lecture's worked example of a convolution layer, with the page's own weights: nothing here was trained.

`input` float32 (batch, 3, 5, 5) → `output` float32 (batch, 2, 3, 3): two filters of 3×3×3, in steps of 2, with a margin
of one zero all around (W₂ = (5 − 3 + 2·1)/2 + 1 = 3). The page's volume has the page's answer:

    [[2, 3, 3], [3, 7, 3], [8, 10, -3]]    and    [[-8, -8, -3], [-3, 1, 0], [-3, -8, -5]]

Weights, volume and this model's making are in `training/lecture.py`:

    python -m training lecture
"""


def convolution_layer() -> nn.Conv2d:
    """The page's layer. (N, 3, 5, 5) → (N, 2, 3, 3)."""
    layer = nn.Conv2d(3, 2, kernel_size=3, stride=2, padding=1)
    layer.load_state_dict({"weight": torch.tensor(FILTERS), "bias": torch.tensor(BIASES)})
    return layer.eval()


def write_model(repository: Path, version: int | None) -> Path:
    """Export the layer into the repository, and return the new version's folder."""
    layer, shape = convolution_layer(), (3, 5, 5)
    graph = to_onnx(layer, torch.zeros(2, *shape), OUTPUT)
    worst_of(NAME, compare(NAME, graph, layer, probes(shape, (1, 2, 5))), TOLERANCE)
    interface = Interface(Port(INPUT, "TYPE_FP32", shape), Port(OUTPUT, "TYPE_FP32", (2, 3, 3)))
    settings = config(NAME, interface, threads=1, labelled=False)
    target = write_version(repository, NAME, version, {"model.onnx": graph}, interface, settings, (), CARD)
    print(f"{target / 'model.onnx'}: {len(graph)} bytes")
    return target


def convolve(x: Tensor, w: Tensor) -> Tensor:
    """The signal processor's x ∗ w: w in reverse slides over x, wherever the two meet. (N,), (M,) → (N+M-1,)."""
    return slide(x, w.flip(0), margin=len(w) - 1)


def slide(x: Tensor, w: Tensor, margin: int = 0) -> Tensor:
    """A convolution layer's x ∗ w, where nothing is reversed: y_n = Σ w_j·x_(n+j-1). (N,), (M,) → (N-M+1+2·margin,)."""
    return functional.conv1d(x[None, None], w[None, None], padding=margin)[0, 0]


def input_gradient(delta: Tensor, w: Tensor) -> Tensor:
    """δ⁽ⁱ⁾ = δ⁽ⁱ⁺¹⁾ ∗ flip(w): what the input of y = slide(x, w) owes to each y. (N-M+1,), (M,) → (N,)."""
    return slide(delta, w.flip(0), margin=len(w) - 1)


def weight_gradient(delta: Tensor, x: Tensor) -> Tensor:
    """∂J/∂w = δ⁽ⁱ⁺¹⁾ ∗ x: what the weights owe. (N-M+1,), (N,) → (M,)."""
    return slide(x, delta)


def total_error(target: Tensor, p: Tensor) -> Tensor:
    """½Σ(target − p)² of one picture's classes. (classes,), (classes,) → ()."""
    return (target - p).square().sum() / 2
