"""LeNet-5 as the paper has it: parameters, shapes, connections, activation, output units."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from training import nets
from training.nets import lenet5

PARAMETERS = {
    "lenet5": {"c1": 156, "s2": 12, "c3": 1_516, "s4": 32, "c5": 48_120, "f6": 10_164},
    "lenet5_modern": {"c1": 156, "c3": 2_416, "c5": 48_120, "f6": 10_164, "output": 850},
}


@pytest.mark.parametrize(("name", "total"), [("lenet5", 60_000), ("lenet5_modern", 61_706)])
def test_parameters_of_each_layer(name: str, total: int) -> None:
    network = lenet5.build(name)
    counts = {layer: sum(p.numel() for p in module.parameters()) for layer, module in network.named_children()}
    assert {layer: count for layer, count in counts.items() if count} == PARAMETERS[name]
    assert sum(p.numel() for p in network.parameters() if p.requires_grad) == total


def convolved(width: int, kernel: int, padding: int = 0, stride: int = 1) -> int:
    return (width - kernel + 2 * padding) // stride + 1


@pytest.mark.parametrize("name", lenet5.NETWORKS)
def test_shape_after_each_layer(name: str) -> None:
    c1 = convolved(32, 5)
    s2 = convolved(c1, 2, stride=2)
    c3 = convolved(s2, 5)
    s4 = convolved(c3, 2, stride=2)
    c5 = convolved(s4, 5)
    expected = {
        "c1": (3, 6, c1, c1),
        "s2": (3, 6, s2, s2),
        "c3": (3, 16, c3, c3),
        "s4": (3, 16, s4, s4),
        "c5": (3, 120, c5, c5),
        "f6": (3, 84),
        "output": (3, lenet5.NETWORKS[name].classes),
    }
    assert (c1, s2, c3, s4, c5) == (28, 14, 10, 5, 1)
    shapes, x = {}, torch.zeros(3, 1, 32, 32)
    for layer, module in lenet5.build(name).named_children():
        x = module(x)
        shapes[layer] = tuple(x.shape)
    assert {layer: shapes[layer] for layer in expected} == expected


def test_table_i() -> None:
    sees = lenet5.TABLE_I
    assert [len(row) for row in sees] == [3] * 6 + [4] * 9 + [6]
    assert sees[:2] == ((0, 1, 2), (1, 2, 3)) and sees[4:7] == ((4, 5, 0), (5, 0, 1), (0, 1, 2, 3))
    assert sees[12:] == ((0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5), (0, 1, 2, 3, 4, 5))
    assert len({frozenset(row) for row in sees}) == 16
    assert all(sum(i in row for row in sees) == 10 for i in range(6))


def test_c3_has_weights_where_table_i_connects_and_nowhere_else() -> None:
    layer = lenet5.PartialConv2d(lenet5.TABLE_I, 5)
    nn.init.constant_(layer.weight, 1.0)
    connected = torch.tensor([[i in row for i in range(6)] for row in lenet5.TABLE_I])
    assert torch.equal(layer.dense(), connected[:, :, None, None].expand(16, 6, 5, 5).float())


def test_a_fully_connected_partial_convolution_is_a_convolution() -> None:
    torch.manual_seed(0)
    dense = nn.Conv2d(2, 3, 5)
    partial = lenet5.PartialConv2d([(0, 1)] * 3, 5)
    with torch.no_grad():
        partial.weight.copy_(dense.weight.reshape(6, 5, 5))
        partial.bias.copy_(dense.bias)
    x = torch.randn(2, 2, 9, 9)
    assert torch.equal(partial(x), dense(x))


def test_squash() -> None:
    squash = lenet5.Squash()
    ends = squash(torch.tensor([-1.0, 0.0, 1.0, 100.0]))
    assert torch.allclose(ends, torch.tensor([-1.0, 0.0, 1.0, 1.7159]), atol=1e-4)


def test_subsampling_squashes_coefficient_times_mean_plus_bias() -> None:
    layer = lenet5.Subsampling(1)
    with torch.no_grad():
        layer.coefficient.fill_(2.0)
        layer.bias.fill_(-0.5)
    answer = layer(torch.tensor([[[[0.1, 0.2], [0.3, 0.8]]]]))
    assert torch.allclose(answer, lenet5.Squash()(torch.tensor(2.0 * 0.35 - 0.5)).reshape(1, 1, 1, 1))


def test_bitmaps_are_ten_different_pictures() -> None:
    codes = lenet5.bitmaps()
    assert codes.shape == (10, 84) and set(codes.unique().tolist()) == {-1.0, 1.0}
    pixels_apart = ((codes[:, None] != codes[None]).sum(dim=2) + 84 * torch.eye(10)).min()
    assert pixels_apart == 10
    seven = codes[7].reshape(12, 7)
    assert seven[1].tolist() == [1.0] * 7 and seven[0].tolist() == [-1.0] * 7


def test_score_is_minus_the_squared_distance_over_the_softness() -> None:
    units = lenet5.BitmapDistance(torch.tensor([[1.0, -1.0, 1.0], [-1.0, -1.0, -1.0]]))
    scores = units(torch.tensor([[1.0, -1.0, 1.0], [0.0, 0.0, 0.5]]))
    assert torch.allclose(scores * lenet5.SOFTNESS, torch.tensor([[0.0, -8.0], [-2.25, -4.25]]))


def test_competitive_loss_by_hand() -> None:
    scores = torch.log(torch.tensor([[0.5, 0.25], [0.1, 0.2]]))
    loss = lenet5.competitive_loss(scores, torch.tensor([0, 1]), rejection=torch.log(torch.tensor(4.0)).item())
    by_hand = -torch.log(torch.tensor([0.5 / (0.5 + 0.25 + 0.25), 0.2 / (0.1 + 0.2 + 0.25)])).mean()
    assert torch.allclose(loss, by_hand)


def test_weights_start_within_the_papers_bounds_and_fill_them() -> None:
    torch.manual_seed(0)
    network = lenet5.build("lenet5")
    partial = network.c3
    assert isinstance(partial, lenet5.PartialConv2d)
    bounds = {
        "c1": (network.c1.weight, 2.4 / 25),
        "c5": (network.c5.weight, 2.4 / 400),
        "f6": (network.f6.weight, 2.4 / 120),
    }
    bounds |= {"c3, 3 maps": (partial.weight[:18], 2.4 / 75), "c3, 6 maps": (partial.weight[54:], 2.4 / 150)}
    for layer, (weight, bound) in bounds.items():
        assert 0.9 * bound < weight.abs().max().item() <= bound, layer


def test_the_same_seed_builds_the_same_network() -> None:
    torch.manual_seed(3)
    first = nets.build("lenet5").state_dict()
    torch.manual_seed(3)
    again = nets.build("lenet5").state_dict()
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert sum(tensor.numel() for tensor in first.values()) == 60_000
