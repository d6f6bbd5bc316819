"""Is deeper better, and does learning without labels help? The lecture's comparison, on scikit-learn's digits.

    python -m training experiment depth [--quick] [--run-dir runs/experiment-depth]

All 1,437 training digits are there to learn from without labels, a few of them with labels. Networks of sigmoid layers
get one of four starts, and then the same plain gradient descent with momentum on the labelled digits:

    plain    uniform in ±1/√fan-in
    scaled   Glorot and Bengio's bounds (2010) for sigmoids, 4·√6/√(fan-in + fan-out): a better start without learning
    dbn      a stack of RBMs, learnt with CD-1
    sdae     a stack of denoising autoencoders

A deep network's twin has one hidden layer and as many parameters. The seed decides weights, pre-training, which digits
are labelled and their order; within a seed all starts see the same ones. For each start, shape and number of labels the
learning rate is the one that is best on validation digits, which are labelled for this purpose only.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from training import digits
from training.nets.deep_sigmoid import CLASSES, UNITS, DeepSigmoid, Intensities
from training.pretraining import PRETRAINING
from training.pretraining.greedy import pretrain

MOMENTUM = 0.9


@dataclass(frozen=True, slots=True)
class Design:
    """What is compared with what."""

    starts: tuple[str, ...] = ("plain", "scaled", "dbn", "sdae")
    depths: tuple[int, ...] = (1, 2, 3, 4, 5, 6, 7)
    twins: tuple[int, ...] = (3, 7)
    """Depths that are also compared with one layer of as many parameters."""
    width: int = 100
    labelled: tuple[int, ...] = (100, 300, 1000)
    seeds: int = 3
    learning_rates: tuple[float, ...] = (0.1, 0.3, 1.0)
    """Constant for the first half of the steps, then linear down to 0."""
    steps: int = 600
    batch_size: int = 32
    pretraining_epochs: int = 20
    validation: int = 400


FULL = Design()
QUICK = Design(
    starts=("plain", "scaled", "dbn", "sdae"),
    depths=(1, 3),
    twins=(3,),
    width=24,
    labelled=(100,),
    seeds=2,
    learning_rates=(0.1, 0.3),
    steps=60,
    pretraining_epochs=1,
)


@dataclass(frozen=True, slots=True)
class Samples:
    """As `Intensities` has them, (N, 256). The validation digits are the last of the training digits, shuffled once."""

    units: Tensor
    labels: Tensor
    held_out_units: Tensor
    held_out_labels: Tensor


@dataclass(frozen=True, slots=True)
class Shape:
    """`depth` hidden layers of `width` units; `twin_of` is the depth that a shallow network is compared with."""

    depth: int
    width: int
    twin_of: int | None = None

    @property
    def parameters(self) -> int:
        """Weights and biases, the output's included."""
        first, others = (UNITS + 1) * self.width, (self.depth - 1) * (self.width + 1) * self.width
        return first + others + (self.width + 1) * CLASSES


@dataclass(frozen=True, slots=True)
class Result:
    """One trained network: a line of the CSV. `learning_rate` is the one chosen for its start, shape and labels."""

    start: str
    depth: int
    width: int
    twin_of: int | None
    parameters: int
    labelled: int
    seed: int
    learning_rate: float
    validation_accuracy: float
    held_out_accuracy: float


def run(design: Design, say: Callable[[str], None]) -> list[Result]:
    """Train all of them, those that differ only by seed and learning rate side by side."""
    torch.set_num_threads(1)
    samples = load()
    deepest = Shape(max(design.depths), design.width)
    results = []
    for start in design.starts:
        # Layers are learnt from the bottom up, so that a shallower network is the lower part of the deepest.
        towers = [begin(start, deepest, seed, samples, design.pretraining_epochs) for seed in range(design.seeds)]
        jobs = [(Shape(depth, design.width), towers) for depth in design.depths]
        for depth in design.twins:
            shape = twin(Shape(depth, design.width))
            wide = [begin(start, shape, seed, samples, design.pretraining_epochs) for seed in range(design.seeds)]
            jobs.append((shape, wide))
        for shape, networks in jobs:
            for labelled in design.labelled:
                trained = fine_tune(design, samples, start, shape, networks, labelled)
                results += trained
                mean = sum(result.held_out_accuracy for result in trained) / len(trained)
                say(f"{start:6} {shape.depth} × {shape.width:3}, {labelled:4} labels: {mean:.1%} held-out accuracy")
    return results


def load() -> Samples:
    """Undistorted, in an order that is the same for all seeds."""
    units, labels = _side(digits.training_digits())
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    return Samples(units[order], labels[order], *_side(digits.held_out_digits()))


def _side(pictures: digits.Digits) -> tuple[Tensor, Tensor]:
    images = torch.from_numpy(digits.to_input(pictures.images))
    return Intensities()(images), torch.from_numpy(pictures.labels).long()


def twin(deep: Shape) -> Shape:
    """One hidden layer, with as many parameters as comes nearest."""
    return Shape(1, round((deep.parameters - CLASSES) / (UNITS + 1 + CLASSES)), deep.depth)


def begin(start: str, shape: Shape, seed: int, samples: Samples, epochs: int) -> DeepSigmoid:
    """The network before it sees a label."""
    torch.manual_seed(seed)
    network = DeepSigmoid(nn.Identity(), UNITS, [shape.width] * shape.depth, CLASSES)
    if start == "scaled":
        for layer in network.hidden:
            assert isinstance(layer, nn.Linear)
            nn.init.xavier_uniform_(layer.weight, gain=4)
    elif start != "plain":
        row = PRETRAINING[start]
        pretrain(network, lambda: samples.units, row.make, dataclasses.replace(row.schedule, epochs=epochs))
    return network


def fine_tune(
    design: Design, samples: Samples, start: str, shape: Shape, networks: Sequence[DeepSigmoid], labelled: int
) -> list[Result]:
    """Train with labels, M = seeds × learning rates networks at once; one result for each seed, of the best rate."""
    rates = torch.tensor(design.learning_rates).repeat(design.seeds)  # (M,): all rates of seed 0, then of seed 1...
    seeds = torch.arange(design.seeds).repeat_interleave(len(design.learning_rates))
    weights, biases = side_by_side(networks, shape.depth, len(design.learning_rates))
    parameters = [*weights, *biases]
    velocities = [torch.zeros_like(parameter) for parameter in parameters]
    batches = choose_batches(design, len(samples.labels), labelled)  # (seeds, steps, batch)

    for step in range(design.steps):
        chosen = batches[seeds, step]  # (M, batch)
        scores = forward(weights, biases, samples.units[chosen])
        # A sum over the networks: each one's gradient is of its own mean over its batch.
        loss = functional.cross_entropy(scores.flatten(0, 1), samples.labels[chosen].flatten(), reduction="sum")
        gradients = torch.autograd.grad(loss / design.batch_size, parameters)
        rate = (rates * min(1.0, 2 * (1 - step / design.steps)))[:, None, None]
        with torch.no_grad():
            for parameter, velocity, gradient in zip(parameters, velocities, gradients, strict=True):
                velocity.mul_(MOMENTUM).add_(gradient)
                parameter.sub_(rate * velocity)

    known = slice(len(samples.labels) - design.validation, None)
    validation = accuracy(weights, biases, samples.units[known], samples.labels[known]).view(design.seeds, -1)
    held_out = accuracy(weights, biases, samples.held_out_units, samples.held_out_labels).view(design.seeds, -1)
    best = int(validation.mean(dim=0).argmax())
    return [
        Result(
            start=start,
            depth=shape.depth,
            width=shape.width,
            twin_of=shape.twin_of,
            parameters=shape.parameters,
            labelled=labelled,
            seed=seed,
            learning_rate=design.learning_rates[best],
            validation_accuracy=validation[seed, best].item(),
            held_out_accuracy=held_out[seed, best].item(),
        )
        for seed in range(design.seeds)
    ]


def choose_batches(design: Design, count: int, labelled: int) -> Tensor:
    """Which digits each seed sees at each step, (seeds, steps, batch). A seed's 100 labels are among its 300."""
    batches = []
    for seed in range(design.seeds):
        generator = torch.Generator().manual_seed(seed)
        mine = torch.randperm(count - design.validation, generator=generator)[:labelled]
        batches.append(mine[torch.randint(labelled, (design.steps, design.batch_size), generator=generator)])
    return torch.stack(batches)


def side_by_side(networks: Sequence[DeepSigmoid], depth: int, copies: int) -> tuple[list[Tensor], list[Tensor]]:
    """Each network's lowest `depth` layers and output, `copies` times: weights (M, out, in), biases (M, 1, out)."""
    places = list(zip(*([*network.hidden[:depth], network.output] for network in networks), strict=True))
    weights = [torch.stack([layer.weight.detach() for layer in place]) for place in places]
    biases = [torch.stack([layer.bias.detach() for layer in place])[:, None] for place in places]

    def copied(tensors: list[Tensor]) -> list[Tensor]:
        return [tensor.repeat_interleave(copies, dim=0).requires_grad_() for tensor in tensors]

    return copied(weights), copied(biases)


def forward(weights: Sequence[Tensor], biases: Sequence[Tensor], x: Tensor) -> Tensor:
    """`DeepSigmoid.forward` of M networks. (M, N, units) → (M, N, classes)."""
    for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
        x = torch.sigmoid(torch.baddbmm(bias, x, weight.mT))
    return torch.baddbmm(biases[-1], x, weights[-1].mT)


@torch.no_grad()
def accuracy(weights: Sequence[Tensor], biases: Sequence[Tensor], units: Tensor, labels: Tensor) -> Tensor:
    """Of each of M networks on the same digits, 0 to 1. (M,)."""
    scores = forward(weights, biases, units.expand(len(weights[0]), -1, -1))
    return (scores.argmax(dim=2) == labels).float().mean(dim=1)
