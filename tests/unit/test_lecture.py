"""The lecture's worked examples, number for number."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from training import lecture
from training.nets.formulas import convolution_parameters, convolved

ANSWER = [[[2, 3, 3], [3, 7, 3], [8, 10, -3]], [[-8, -8, -3], [-3, 1, 0], [-3, -8, -5]]]


def test_one_dimensional_convolution() -> None:
    x = torch.tensor([1.0, 1, -1, 1, 1, 2, 1, -1, 1, 2, -1, -1, 2])
    y = torch.tensor([1.0, -1, 1])
    assert lecture.convolve(x, y).tolist() == [1, 0, -1, 3, -1, 2, 0, 0, 3, 0, -2, 2, 2, -3, 2]
    assert lecture.convolve(y, x).tolist() == lecture.convolve(x, y).tolist() == np.convolve(x, y).tolist()


def test_shared_weights_slide_over_the_inputs() -> None:
    x, w = torch.arange(9.0).square(), torch.tensor([1.0, -2, 0.5, 3, -1, 2])
    v = [sum(w[i - 1] * x[i + j - 2] for i in range(1, 7)) for j in range(1, 5)]
    assert lecture.slide(x, w).tolist() == [value.item() for value in v]


def test_the_convolution_layer_of_the_5x5x3_example() -> None:
    volume = torch.tensor([lecture.VOLUME], dtype=torch.float32)
    layer = lecture.convolution_layer()
    assert layer(volume).tolist() == [ANSWER]
    side = convolved(5, kernel=3, padding=1, stride=2)
    assert layer(volume).shape == (1, 2, side, side)
    assert sum(p.numel() for p in layer.parameters()) == convolution_parameters(kernel=3, depth=3, filters=2)


def test_the_pages_padded_planes_are_the_volume_with_a_margin_of_zeros() -> None:
    planes = (
        "0000000 0001020 0102010 0102200 0200200 0212200 0000000",
        "0000000 0212110 0212010 0021010 0122220 0012010 0000000",
        "0000000 0211200 0100100 0010000 0102100 0221110 0000000",
    )
    padded = np.pad(np.array(lecture.VOLUME), ((0, 0), (1, 1), (1, 1)))
    assert padded.tolist() == [[[int(digit) for digit in row] for row in plane.split()] for plane in planes]


def test_the_boats_error() -> None:
    error = lecture.total_error(torch.tensor([0.0, 0, 1, 0]), torch.tensor([0.2, 0.4, 0.1, 0.3]))
    assert error.item() == pytest.approx(0.55)


def test_relu() -> None:
    x = torch.tensor([-2.0, -0.5, 3.0], requires_grad=True)
    y = nn.ReLU()(x)
    y.sum().backward()
    assert y.tolist() == [0, 0, 3]
    assert x.grad is not None and x.grad.tolist() == [0, 0, 1]


@pytest.mark.parametrize("a", [0.0, 0.1, 1.0])
def test_leaky_relu(a: float) -> None:
    x = torch.tensor([-2.0, -0.5, 3.0], requires_grad=True)
    y = nn.LeakyReLU(a)(x)
    y.sum().backward()
    assert y.tolist() == pytest.approx([-2 * a, -0.5 * a, 3])
    assert x.grad is not None and x.grad.tolist() == pytest.approx([a, a, 1])


@pytest.mark.parametrize(("inputs", "weights"), [(13, 3), (9, 6), (4, 1), (5, 5)])
def test_autograd_agrees_with_both_formulas_of_back_propagation(inputs: int, weights: int) -> None:
    generator = torch.Generator().manual_seed(inputs)
    x = torch.randn(inputs, dtype=torch.float64, generator=generator, requires_grad=True)
    w = torch.randn(weights, dtype=torch.float64, generator=generator, requires_grad=True)
    delta = torch.randn(inputs - weights + 1, dtype=torch.float64, generator=generator)
    lecture.slide(x, w).backward(delta)
    assert x.grad is not None and w.grad is not None
    torch.testing.assert_close(lecture.input_gradient(delta, w.detach()), x.grad)
    torch.testing.assert_close(lecture.weight_gradient(delta, x.detach()), w.grad)
