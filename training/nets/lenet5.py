"""LeNet-5: Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, "Gradient-Based Learning Applied to Document Recognition", 1998.

Two rows of one table. `lenet5` is the paper's network, section II.B, figure 2: 60,000 trainable parameters.
`lenet5_modern` is what the name means today: all of C3 connected, plain mean pooling, a linear output: 61,706.

    input (N, 1, 32, 32) float32, paper -0.1 and ink 1.175
    C1    (N, 6, 28, 28)    5×5 convolution
    S2    (N, 6, 14, 14)    2×2 mean; in the paper times a coefficient plus a bias for each map, both learned
    C3    (N, 16, 10, 10)   5×5 convolution; in the paper each map sees some of S2's maps only (table I)
    S4    (N, 16, 5, 5)     as S2
    C5    (N, 120, 1, 1)    5×5 convolution, which at this input size sees everything
    F6    (N, 84)           fully connected
    scores (N, 10) float32, the largest wins: minus the distance to ten bitmaps of 7×12 = 84 pixels (scaled), or linear
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.files import TrainingError

INPUT_SHAPE = (1, 32, 32)
CLASSES = 10

# The paper reads a distance as -log of a probability. Two bitmaps are 40 to 200 apart, so that every answer, even a
# wrong one, would have probability 1. A softness of 8 is Gaussian noise of variance 4 on each of F6's units.
SOFTNESS = 8.0

# Table I: which maps of S2 each of C3's sixteen maps sees. Different inputs make them learn different things.
TABLE_I = (
    *((i, (i + 1) % 6, (i + 2) % 6) for i in range(6)),
    *((i, (i + 1) % 6, (i + 2) % 6, (i + 3) % 6) for i in range(6)),
    (0, 1, 3, 4),
    (1, 2, 4, 5),
    (0, 2, 3, 5),
    (0, 1, 2, 3, 4, 5),
)

# The targets of F6, drawn for this project: look-alikes have near codes, so that a confusion is visible as one.
BITMAPS = """
....... ....... ....... ....... ....... ....... ....... ....... ....... .......
..###.. ...##.. .#####. .#####. ....##. ####### ..####. ####### .#####. .#####.
.##.##. ..###.. ##...## ##...## ...###. ##..... .##.... ####### ##...## ##...##
.#...#. .####.. ##...## .....## ..####. ##..... ##..... .....## ##...## ##...##
##...## ...##.. .....## .....## .##.##. ######. ##..... ....##. ##...## ##...##
##...## ...##.. ....##. ..####. ##..##. ##...## ######. ....##. .#####. ##...##
##...## ...##.. ...##.. .....## ##..##. .....## ##...## ...##.. ##...## .######
##...## ...##.. ..##... .....## ####### .....## ##...## ...##.. ##...## .....##
.#...#. ...##.. .##.... .....## ....##. .....## ##...## ..##... ##...## .....##
.##.##. ...##.. ##..... ##...## ....##. ##...## ##...## ..##... ##...## ....##.
..###.. .###### ####### .#####. ....##. .#####. .#####. ..##... .#####. .####..
....... ....... ....... ....... ....... ....... ....... ....... ....... .......
"""


@dataclass(frozen=True, slots=True)
class Variant:
    """What the two networks of this name do differently."""

    c3_sees: tuple[tuple[int, ...], ...] | None
    """For each map of C3 the maps of S2 that it sees; None: all of them."""
    learned_subsampling: bool
    """A coefficient and a bias for each map, and squashing, after the 2×2 mean."""
    bitmap_output: bool
    """Euclidean radial basis units around `BITMAPS`; otherwise linear."""


NETWORKS = {
    "lenet5": Variant(c3_sees=TABLE_I, learned_subsampling=True, bitmap_output=True),
    "lenet5_modern": Variant(c3_sees=None, learned_subsampling=False, bitmap_output=False),
}


def build(name: str, classes: int = CLASSES) -> nn.Sequential:
    """A freshly initialised network of the table; the layers bear the paper's names."""
    row = NETWORKS[name]
    if row.bitmap_output and classes != CLASSES:
        raise TrainingError(f"{name} has bitmaps for ten digits, not for {classes} classes. Use lenet5_modern.")
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["c1"] = nn.Conv2d(1, 6, 5)
    layers["squash1"] = Squash()
    layers["s2"] = Subsampling(6) if row.learned_subsampling else nn.AvgPool2d(2)
    layers["c3"] = PartialConv2d(row.c3_sees, 5) if row.c3_sees else nn.Conv2d(6, 16, 5)
    layers["squash3"] = Squash()
    layers["s4"] = Subsampling(16) if row.learned_subsampling else nn.AvgPool2d(2)
    layers["c5"] = nn.Conv2d(16, 120, 5)
    layers["squash5"] = Squash()
    layers["flatten"] = nn.Flatten()
    layers["f6"] = nn.Linear(120, 84)
    layers["squash6"] = Squash()
    layers["output"] = BitmapDistance(bitmaps()) if row.bitmap_output else nn.Linear(84, classes)
    network = nn.Sequential(layers)
    initialise(network)
    return network


class Squash(nn.Module):
    """1.7159·tanh(2x/3), of any shape. f(±1) = ±1, where its curvature is greatest: such targets do not saturate it."""

    def forward(self, x: Tensor) -> Tensor:
        return 1.7159 * torch.tanh(2 / 3 * x)


class Subsampling(nn.Module):
    """The paper's S layers: squash(coefficient·mean + bias), two numbers a map. (N, C, 2H, 2W) → (N, C, H, W)."""

    def __init__(self, maps: int) -> None:
        super().__init__()
        self.coefficient = nn.Parameter(torch.empty(maps))
        self.bias = nn.Parameter(torch.empty(maps))
        self.squash = Squash()

    def forward(self, x: Tensor) -> Tensor:
        mean = functional.avg_pool2d(x, 2)
        squashed: Tensor = self.squash(mean * self.coefficient[:, None, None] + self.bias[:, None, None])
        return squashed


class PartialConv2d(nn.Module):
    """A convolution whose output map k sees the input maps `sees[k]` only: only those weights exist.

    (N, C, H, W) → (N, len(sees), H-F+1, W-F+1). `weight` holds an F×F kernel for each connection, output map by map.
    """

    connection: Tensor
    unconnected: Tensor

    def __init__(self, sees: Sequence[Sequence[int]], kernel: int) -> None:
        super().__init__()
        self.sees = sees
        self.inputs = 1 + max(max(row) for row in sees)
        places = [self.inputs * k + i for k, row in enumerate(sees) for i in row]
        self.register_buffer("connection", torch.tensor(places), persistent=False)
        # A constant, so that the exporter folds the scatter away and ONNX sees one plain kernel.
        self.register_buffer("unconnected", torch.zeros(len(sees) * self.inputs, kernel, kernel), persistent=False)
        self.weight = nn.Parameter(torch.empty(len(places), kernel, kernel))
        self.bias = nn.Parameter(torch.empty(len(sees)))

    def dense(self) -> Tensor:
        """The equivalent full kernel, zero where nothing is connected. (len(sees), C, F, F)."""
        kernels = self.unconnected.index_copy(0, self.connection, self.weight)
        return kernels.view(len(self.sees), self.inputs, *self.weight.shape[1:])

    def forward(self, x: Tensor) -> Tensor:
        return functional.conv2d(x, self.dense(), self.bias)


class BitmapDistance(nn.Module):
    """Euclidean radial basis units with fixed centres w: -Σ(x − w)²/SOFTNESS. (N, 84) → (N, 10); 0 is a perfect match.

    The paper's units give the distance itself, where the least wins. The sign is turned, as all networks give scores.
    """

    centres: Tensor

    def __init__(self, centres: Tensor) -> None:
        super().__init__()
        self.register_buffer("centres", centres, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return -(x[:, None, :] - self.centres).square().sum(dim=2) / SOFTNESS


def bitmaps() -> Tensor:
    """`BITMAPS` as numbers: +1 ink, -1 paper. (10, 84), each digit row by row."""
    rows = [line.split() for line in BITMAPS.split("\n") if line]
    return torch.tensor([[1.0 if c == "#" else -1.0 for row in rows for c in row[digit]] for digit in range(CLASSES)])


def initialise(network: nn.Sequential) -> None:
    """Uniform in ±2.4/F, F the unit's fan-in, without maps that are not connected (appendix A of the paper)."""
    for layer in network:
        if isinstance(layer, PartialConv2d):
            fan_in = torch.tensor([len(row) * layer.weight[0].numel() for row in layer.sees])
            per_connection = torch.tensor([len(row) * layer.weight[0].numel() for row in layer.sees for _ in row])
            _uniform(layer.weight, 2.4 / per_connection[:, None, None])
            _uniform(layer.bias, 2.4 / fan_in)
        elif isinstance(layer, Subsampling):
            _uniform(layer.coefficient, torch.tensor(2.4))  # four inputs share the coefficient of their mean: 4 · 2.4/4
            _uniform(layer.bias, torch.tensor(2.4 / 4))
        elif isinstance(layer, nn.Conv2d | nn.Linear):
            bound = torch.tensor(2.4 / layer.weight[0].numel())
            _uniform(layer.weight, bound)
            assert layer.bias is not None
            _uniform(layer.bias, bound)


def competitive_loss(scores: Tensor, labels: Tensor, rejection: float = 5.0) -> Tensor:
    """The paper's criterion, equation 9: -score of the right class + log(e^-j + Σ e^score), mean over the batch.

    (N, 10), (N,) → (). The first term draws F6 to its bitmap, the second pushes it from all others. The constant j
    (`rejection`) stands for "no digit at all": a digit that is nearer than j to its bitmap, and to no other, is done.
    """
    wanted = scores.gather(1, labels[:, None]).squeeze(1)
    nothing = scores.new_full((len(scores), 1), -rejection)
    return (torch.logsumexp(torch.cat([scores, nothing], dim=1), dim=1) - wanted).mean()


def _uniform(parameter: Tensor, bound: Tensor) -> None:
    with torch.no_grad():
        parameter.uniform_(-1, 1).mul_(bound)
