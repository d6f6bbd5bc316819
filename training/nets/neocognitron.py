"""Neocognitron: K. Fukushima, "Neocognitron: A Self-organizing Neural Network Model…", Biological Cybernetics 36, 1980.

Three modules of S cells, which match features that they find by themselves, and C cells, which forgive where they are.

    input   (N, 1, 16, 16)   0 and above
    s1 c1   (N, 24, 16, 16)  (N, 24, 10, 10)
    s2 c2   (N, 24, 8, 8)    (N, 24, 6, 6)
    s3 c3   (N, 24, 2, 2)    (N, 24, 1, 1)
    scores  (N, 24)          0 to 1: each plane of c3 stands for a pattern that the network has come across

There is no teacher, so that the scores' order is the network's own, and no gradient: `learn` reinforces winners. Sizes
of layers and fields, r, q and α are the paper's as remembered: they fit together, but were not compared with its text.
The spread of a field (γ) and the first weights are chosen here: the paper begins with faintly oriented planes, this
network with faint random ones.

`neocognitron_classifier` names what it sees: the first two modules, and in the third one's place a linear layer, which
has a teacher, on all cells of c2 (N, 864). Fukushima's "Neocognitron for Handwritten Digit Recognition", 2003, has a
supervised last stage too, but of S cells; a linear one is chosen here.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.nets.formulas import convolved

INPUT_SHAPE = (1, 16, 16)
CLASSES = 24


@dataclass(frozen=True, slots=True)
class Module:
    """One S layer and the C layer behind it."""

    planes: int
    s_padding: int
    """Of 5×5 fields."""
    selectivity: float
    """r: an S cell that has learned one feature answers to others whose cosine with it is above r/(1+r)."""
    learning_rate: float
    """q."""
    c_kernel: int
    c_padding: int
    """Negative: so many cells at the border are looked at by nobody."""


MODULES = (
    Module(24, s_padding=2, selectivity=4.0, learning_rate=1.0, c_kernel=5, c_padding=-1),
    Module(24, s_padding=1, selectivity=1.5, learning_rate=16.0, c_kernel=5, c_padding=1),
    Module(24, s_padding=0, selectivity=1.5, learning_rate=16.0, c_kernel=2, c_padding=0),
)
NETWORKS = {"neocognitron": MODULES, "neocognitron_classifier": MODULES[:2]}

S_KERNEL = 5
SATURATION = 0.5  # α
SPREAD = 0.9  # γ: how much less each step away from a field's centre counts
FAINT = 1e-3  # the first weights: enough to win where no plane knows the feature, too little to win anywhere else


def build(name: str, classes: int = CLASSES) -> Neocognitron:
    """A network that has seen nothing. `classes` is the last layer's number of planes, or of linear scores."""
    rows = NETWORKS[name]
    if name == "neocognitron_classifier":
        return Classifier(rows, classes)
    return Neocognitron(rows, [*(row.planes for row in rows[:-1]), classes])


class Neocognitron(nn.Module):
    """(N, 1, 16, 16) → (N, cells of the last C layer): with the paper's three modules, one a plane."""

    def __init__(self, rows: tuple[Module, ...], planes: list[int]) -> None:
        super().__init__()
        layers = nn.Sequential()
        depth, side = INPUT_SHAPE[0], INPUT_SHAPE[1]
        for index, (row, count) in enumerate(zip(rows, planes, strict=True), start=1):
            layers.add_module(f"s{index}", SCells(depth, count, row))
            layers.add_module(f"c{index}", CCells(row.c_kernel, row.c_padding))
            depth, side = count, convolved(side, S_KERNEL, row.s_padding)
            side = convolved(side, row.c_kernel, row.c_padding)
        layers.add_module("flatten", nn.Flatten())
        self.layers = layers
        self.cells = depth * side * side

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.layers(x)
        return scores

    def learn(self, images: Tensor, rounds: int) -> None:
        """Show the images (N, 1, 16, 16) one by one, `rounds` times, to one module after the other."""
        seen = images
        for layer in self.layers:
            if isinstance(layer, SCells):
                for _ in range(rounds):
                    for one in seen:
                        layer.learn(one[None])
            with torch.no_grad():
                seen = layer(seen)


class Classifier(Neocognitron):
    """(N, 1, 16, 16) → linear scores (N, classes). Only `output` has gradients: its training leaves S cells alone."""

    def __init__(self, rows: tuple[Module, ...], classes: int) -> None:
        super().__init__(rows, [row.planes for row in rows])
        self.output = nn.Linear(self.cells, classes)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.output(super().forward(x))
        return scores


class SCells(nn.Module):
    """Feature matching: r·max(0, (1+e)/(1+h) − 1), excited by e = a∗u, inhibited by h = 2r/(1+r)·b·√(c∗u²).

    (N, D, H, W) → (N, planes, H', W'), 0 and above both.
    """

    c: Tensor

    def __init__(self, depth: int, planes: int, row: Module) -> None:
        super().__init__()
        self.padding, self.r, self.q = row.s_padding, row.selectivity, row.learning_rate
        c = field(S_KERNEL).expand(1, depth, -1, -1) / depth
        self.register_buffer("c", c.contiguous(), persistent=False)
        self.a = nn.Parameter(FAINT * torch.rand(planes, depth, S_KERNEL, S_KERNEL) * c, requires_grad=False)
        self.b = nn.Parameter(torch.zeros(planes), requires_grad=False)

    def forward(self, u: Tensor) -> Tensor:
        excitation = functional.conv2d(u, self.a, padding=self.padding)
        shunt = 2 * self.r / (1 + self.r) * self.b[:, None, None] * self.inhibition(u)
        return self.r * functional.relu((1 + excitation) / (1 + shunt) - 1)

    def inhibition(self, u: Tensor) -> Tensor:
        """√(c∗u²): how much there is to see. (N, D, H, W) → (N, 1, H', W')."""
        return functional.conv2d(u.square(), self.c, padding=self.padding).sqrt()

    @torch.no_grad()
    def learn(self, u: Tensor) -> None:
        """Reinforce the winners that one picture has (1, D, H, W): each plane by what its winner sees.

        All see what was there before any of them learned, as in the paper: winners come first, then weights.
        """
        seen = functional.unfold(u, S_KERNEL, padding=self.padding)[0]  # (D·F·F, places)
        inhibition = self.inhibition(u).flatten()  # (places,)
        found = winners(self(u)[0])
        if found:
            planes, places = map(list, zip(*found, strict=True))
            self.a[planes] += self.q * self.c * seen[:, places].T.reshape(-1, *self.a.shape[1:])
            self.b[planes] += self.q / 2 * inhibition[places]


class CCells(nn.Module):
    """Tolerant pooling: ψ((1+d∗u)/(1+v) − 1), v the planes' mean of d∗u, ψ(x) = x/(α+x) above 0.

    (N, planes, H, W) → (N, planes, H', W'), 0 to 1.
    """

    d: Tensor

    def __init__(self, kernel: int, padding: int) -> None:
        super().__init__()
        self.padding = padding
        self.register_buffer("d", field(kernel)[None, None], persistent=False)

    def forward(self, u: Tensor) -> Tensor:
        planes, margin = u.shape[1], [self.padding] * 4
        pooled = functional.conv2d(functional.pad(u, margin), self.d.expand(planes, -1, -1, -1), groups=planes)
        lateral = pooled.mean(dim=1, keepdim=True)
        x = functional.relu((1 + pooled) / (1 + lateral) - 1)
        return x / (SATURATION + x)


def winners(responses: Tensor) -> list[tuple[int, int]]:
    """(plane, place) of the cells to reinforce, the strongest first. (planes, H, W), place = row·W + column.

    Each silences its own plane and, in all planes, the cells whose fields' centres lie in its own field. A cell that
    does not answer wins nothing.
    """
    left, found = responses.numpy(force=True).copy(), []
    reach = S_KERNEL // 2
    for _ in range(len(left)):
        plane, place = divmod(int(left.argmax()), left[0].size)
        row, column = divmod(place, left.shape[2])
        if left[plane, row, column] <= 0:
            break
        found.append((plane, place))
        left[plane] = 0
        left[:, max(0, row - reach) : row + reach + 1, max(0, column - reach) : column + reach + 1] = 0
    return found


def field(kernel: int) -> Tensor:
    """γ^distance from the middle, adding up to 1. (kernel, kernel)."""
    offset = torch.arange(kernel) - (kernel - 1) / 2
    weights = SPREAD ** torch.hypot(offset[:, None], offset[None, :])
    return weights / weights.sum()
