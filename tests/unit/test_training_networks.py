"""The lecture's networks: how many parameters, which shapes, whose names. The big ones are built without memory."""

from __future__ import annotations

import math
import re
from itertools import pairwise

import pytest
import torch
from torch import nn

from training import nets
from training.files import TrainingError
from training.nets import alexnet, mlp, resnet_cifar, vgg
from training.nets.formulas import convolution_parameters, convolved, pooled

PARAMETERS = {
    "neocognitron": 24 * 25 + 2 * 24 * 24 * 25 + 3 * 24,
    "neocognitron_classifier": 24 * 25 + 24 * 24 * 25 + 2 * 24 + 24 * 6 * 6 * 24 + 24,
    "mlp_shallow": 426_430,
    "mlp_deep": 426_430,
    "deep_sigmoid": 256 * 200 + 200 + 2 * (200 * 200 + 200) + 200 * 10 + 10,
    "lstm_rows": 84_234,
    "lenet5": 60_000,
    "lenet5_modern": 61_706,
    "letters26": 104 + 8 + 1_212 + 24 + 5_018,
    "alexnet": 61_100_840,
    "alexnet_two_tower": 60_965_224,
    "convnetjs_cifar10": 22_466,
    "vgg11": 132_863_336,
    "vgg13": 133_047_848,
    "vgg16": 138_357_544,
    "vgg19": 143_667_240,
    "vgg11_bn": 132_868_840,
    "vgg13_bn": 133_053_736,
    "vgg16_bn": 138_365_992,
    "vgg19_bn": 143_678_248,
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
    "resnet20": 269_722,
    "resnet32": 464_154,
    "resnet44": 658_586,
    "resnet56": 853_018,
    "resnet110": 1_727_962,
}
KEYS = {
    "alexnet": 16,
    "vgg11": 22, "vgg13": 26, "vgg16": 32, "vgg19": 38,
    "vgg11_bn": 62, "vgg13_bn": 76, "vgg16_bn": 97, "vgg19_bn": 118,
    "resnet18": 122, "resnet34": 218, "resnet50": 320, "resnet101": 626, "resnet152": 932,
}  # fmt: skip
"""How many entries torchvision's state_dict has."""


def hollow(name: str, classes: int | None = None) -> nn.Module:
    with torch.device("meta"):
        return nets.build(name, classes).eval()


def shapes_of(name: str) -> dict[str, tuple[int, ...]]:
    """Of each layer's output, by the layer's name, for two inputs of the paper's size."""
    network, shapes = hollow(name), {}
    for layer, module in network.named_modules():
        if not isinstance(module, nn.LSTM):
            module.register_forward_hook(lambda _m, _i, out, layer=layer: shapes.update({layer: tuple(out.shape)}))
    network(torch.zeros(2, *nets.NETWORKS[name].input_shape, device="meta"))
    return shapes


def test_no_network_is_left_out() -> None:
    assert set(PARAMETERS) == set(nets.NETWORKS)


@pytest.mark.parametrize(("name", "count"), PARAMETERS.items())
def test_parameters(name: str, count: int) -> None:
    assert sum(parameter.numel() for parameter in hollow(name).parameters()) == count


@pytest.mark.parametrize("name", nets.NETWORKS)
def test_the_papers_input_becomes_a_score_for_each_of_the_papers_classes(name: str) -> None:
    assert shapes_of(name)[""] == (2, nets.NETWORKS[name].classes)


@pytest.mark.parametrize("name", sorted(set(nets.NETWORKS) - {"lenet5"}))
def test_classes_may_be_others_than_the_papers(name: str) -> None:
    x = torch.zeros(2, *nets.NETWORKS[name].input_shape, device="meta")
    assert hollow(name, classes=7)(x).shape == (2, 7)


def test_lenets_bitmaps_are_for_ten_digits() -> None:
    with pytest.raises(TrainingError, match=r"ten digits, not for 26 classes\. Use lenet5_modern"):
        nets.build("lenet5", classes=26)


def test_an_unknown_network_is_refused_with_a_list_of_those_there_are() -> None:
    with pytest.raises(TrainingError, match=r"no network named 'resnet51'\. There are: .*resnet50"):
        nets.build("resnet51")


@pytest.mark.parametrize("name", ["mlp_deep", "lstm_rows", "lenet5", "letters26", "alexnet", "resnet20"])
def test_in_evaluation_mode_the_same_picture_has_the_same_answer(name: str) -> None:
    torch.manual_seed(0)
    network = nets.build(name).eval()
    x = torch.rand(2, *nets.NETWORKS[name].input_shape)
    with torch.no_grad():
        assert torch.equal(network(x), network(x))


# The formulas.


def test_layer_formulas() -> None:
    assert convolved(5, kernel=3, padding=1, stride=2) == 3  # the lecture's worked example
    assert convolved(227, kernel=11, stride=4) == 55  # AlexNet's, exactly
    assert convolved(224, kernel=11, padding=2, stride=4) == 55  # with a rest
    assert pooled(55, kernel=3, stride=2) == 27
    assert convolution_parameters(kernel=3, depth=3, filters=2) == 56


@pytest.mark.parametrize(("kernel", "padding", "stride"), [(1, 0, 1), (3, 1, 2), (5, 0, 3), (11, 2, 4), (2, 1, 5)])
def test_the_formula_is_torchs(kernel: int, padding: int, stride: int) -> None:
    layer = nn.Conv2d(3, 4, kernel, stride, padding)
    for width in (11, 12, 32, 37):
        side = convolved(width, kernel, padding, stride)
        assert layer(torch.zeros(1, 3, width, width)).shape == (1, 4, side, side)
    assert sum(p.numel() for p in layer.parameters()) == convolution_parameters(kernel, 3, 4)


# AlexNet.


@pytest.mark.parametrize("name", alexnet.NETWORKS)
def test_alexnets_shapes(name: str) -> None:
    widths = [row.maps for row in alexnet.NETWORKS[name]]
    conv1 = convolved(224, 11, padding=2, stride=4)
    pool1 = pooled(conv1, 3, 2)
    pool2 = pooled(convolved(pool1, 5, padding=2), 3, 2)
    pool5 = pooled(convolved(pool2, 3, padding=1), 3, 2)
    assert (conv1, pool1, pool2, pool5) == (55, 27, 13, 6)
    shapes, network = shapes_of(name), hollow(name)
    convolutions = [key for key, module in network.named_modules() if isinstance(module, nn.Conv2d)]
    pools = [key for key, module in network.named_modules() if isinstance(module, nn.MaxPool2d)]
    sides = [conv1, pool1, pool2, pool2, pool2]
    assert [shapes[key] for key in convolutions] == [(2, w, s, s) for w, s in zip(widths, sides, strict=True)]
    assert [shapes[key][2] for key in pools] == [pool1, pool2, pool5]
    assert shapes["flatten"] == (2, 256 * pool5 * pool5)


def test_alexnets_keys_and_shapes_are_torchvisions() -> None:
    assert {key: tuple(value.shape) for key, value in hollow("alexnet").state_dict().items() if "weight" in key} == {
        "features.0.weight": (64, 3, 11, 11),
        "features.3.weight": (192, 64, 5, 5),
        "features.6.weight": (384, 192, 3, 3),
        "features.8.weight": (256, 384, 3, 3),
        "features.10.weight": (256, 256, 3, 3),
        "classifier.1.weight": (4096, 9216),
        "classifier.4.weight": (4096, 4096),
        "classifier.6.weight": (1000, 4096),
    }


def test_the_two_towers_see_each_their_own_half_in_convolutions_2_4_and_5() -> None:
    torch.manual_seed(0)
    second = [module for module in nets.build("alexnet_two_tower").modules() if isinstance(module, nn.Conv2d)][1]
    x = torch.rand(1, 96, 9, 9)
    upper_gone = torch.cat([x[:, :48], torch.zeros(1, 48, 9, 9)], dim=1)
    assert torch.equal(second(x)[:, :128], second(upper_gone)[:, :128])
    assert not torch.equal(second(x)[:, 128:], second(upper_gone)[:, 128:])
    groups = [module.groups for module in hollow("alexnet_two_tower").modules() if isinstance(module, nn.Conv2d)]
    assert groups == [1, 2, 1, 2, 2]


def test_local_response_normalisation_is_the_papers_sum_not_torchs_mean() -> None:
    a = 100 * torch.rand(1, 8, 2, 2, generator=torch.Generator().manual_seed(0))
    by_hand = torch.empty_like(a)
    for i in range(8):
        neighbours = a[:, max(0, i - 2) : i + 3].square().sum(dim=1)
        by_hand[:, i] = a[:, i] / (2 + 1e-4 * neighbours) ** 0.75
    assert torch.allclose(alexnet.local_response_normalisation()(a), by_hand, rtol=1e-5)


# VGG.


@pytest.mark.parametrize("name", ["vgg11", "vgg13", "vgg16", "vgg19"])
def test_vggs_number_counts_its_layers_with_weights(name: str) -> None:
    layers = [module for module in hollow(name).modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    assert len(layers) == int(name.removeprefix("vgg"))


def test_vggs_shapes() -> None:
    shapes = shapes_of("vgg16")
    pools = [key for key, module in hollow("vgg16").named_modules() if isinstance(module, nn.MaxPool2d)]
    expected, side = [], 224
    for width in vgg.WIDTHS:
        assert convolved(side, 3, padding=1) == side
        side = pooled(side, 2, 2)
        expected.append((2, width, side, side))
    assert [shapes[key] for key in pools] == expected
    assert shapes["flatten"] == (2, 512 * 7 * 7)


@pytest.mark.parametrize(
    ("name", "places"),
    [
        ("vgg11", [0, 3, 6, 8, 11, 13, 16, 18]),
        ("vgg16", [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28]),
        (
            "vgg16_bn",
            [0, 1, 3, 4, 7, 8, 10, 11, 14, 15, 17, 18, 20, 21, 24, 25, 27, 28, 30, 31, 34, 35, 37, 38, 40, 41],
        ),
    ],
)
def test_vggs_keys_are_torchvisions(name: str, places: list[int]) -> None:
    keys = [key for key in hollow(name).state_dict() if key.endswith("weight")]
    assert keys == [f"features.{i}.weight" for i in places] + [f"classifier.{i}.weight" for i in (0, 3, 6)]


# ResNet.


@pytest.mark.parametrize("name", KEYS)
def test_as_many_keys_as_torchvision_has(name: str) -> None:
    assert len(hollow(name).state_dict()) == KEYS[name]


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"])
def test_resnets_keys_are_torchvisions(name: str) -> None:
    statistics = "weight|bias|running_mean|running_var|num_batches_tracked"
    pattern = re.compile(
        r"conv1\.weight|fc\.(weight|bias)|"
        rf"bn1\.({statistics})|"
        rf"layer[1-4]\.\d+\.(conv[123]\.weight|bn[123]\.({statistics})|downsample\.(0\.weight|1\.({statistics})))"
    )
    state = hollow(name).state_dict()
    assert [key for key in state if not pattern.fullmatch(key)] == []
    blocks = {"resnet18": (2, 2, 2, 2), "resnet101": (3, 4, 23, 3), "resnet152": (3, 8, 36, 3)}
    counted = tuple(len({key.split(".")[1] for key in state if key.startswith(f"layer{i}.")}) for i in (1, 2, 3, 4))
    assert counted == blocks.get(name, (3, 4, 6, 3))
    projected = {key.split(".downsample")[0] for key in state if "downsample" in key}
    first = {"layer2.0", "layer3.0", "layer4.0"}
    assert projected == (first if name in ("resnet18", "resnet34") else first | {"layer1.0"})


def test_resnet50s_shapes_of_weights_are_torchvisions() -> None:
    state = hollow("resnet50").state_dict()
    expected = {
        "conv1.weight": (64, 3, 7, 7),
        "layer1.0.conv1.weight": (64, 64, 1, 1),
        "layer1.0.conv2.weight": (64, 64, 3, 3),
        "layer1.0.conv3.weight": (256, 64, 1, 1),
        "layer1.0.downsample.0.weight": (256, 64, 1, 1),
        "layer1.0.downsample.1.running_var": (256,),
        "layer1.2.conv1.weight": (64, 256, 1, 1),
        "layer2.0.conv1.weight": (128, 256, 1, 1),
        "layer4.2.conv3.weight": (2048, 512, 1, 1),
        "layer4.2.bn3.num_batches_tracked": (),
        "fc.weight": (1000, 2048),
    }
    assert {key: tuple(state[key].shape) for key in expected} == expected


@pytest.mark.parametrize(("name", "expansion"), [("resnet18", 1), ("resnet50", 4)])
def test_resnets_shapes(name: str, expansion: int) -> None:
    shapes = shapes_of(name)
    side = convolved(convolved(224, 7, padding=3, stride=2), 3, padding=1, stride=2)
    assert shapes["maxpool"] == (2, 64, side, side) and side == 56
    for stage, width in enumerate((64, 128, 256, 512), start=1):
        if stage > 1:
            side = convolved(side, 3, padding=1, stride=2)
        assert shapes[f"layer{stage}"] == (2, expansion * width, side, side)
    assert side == 7


def test_a_bottleneck_takes_its_step_in_the_3x3_convolution() -> None:
    state = dict(hollow("resnet50").named_modules())
    assert [state[f"layer2.0.conv{i}"].stride for i in (1, 2, 3)] == [(1, 1), (2, 2), (1, 1)]


@pytest.mark.parametrize("name", resnet_cifar.NETWORKS)
def test_the_cifar_resnets_have_6n_plus_2_layers_and_shortcuts_without_parameters(name: str) -> None:
    layers = [module for module in hollow(name).modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    assert len(layers) == int(name.removeprefix("resnet")) == 6 * resnet_cifar.NETWORKS[name] + 2
    shapes = shapes_of(name)
    assert [shapes[f"layer{i}"] for i in (1, 2, 3)] == [(2, 16, 32, 32), (2, 32, 16, 16), (2, 64, 8, 8)]


def test_option_a_takes_every_second_pixel_and_adds_empty_maps() -> None:
    x = torch.arange(2 * 4 * 4.0).reshape(1, 2, 4, 4)
    shortcut = resnet_cifar.Block(2, 4).shortcut(x)
    assert torch.equal(shortcut[0, :2], x[0, :, ::2, ::2])
    assert shortcut.shape == (1, 4, 2, 2) and not shortcut[0, 2:].any()
    assert torch.equal(resnet_cifar.Block(2, 2).shortcut(x), x)


# The small ones.


def test_convnetjs_shapes_and_parameters() -> None:
    shapes, network = shapes_of("convnetjs_cifar10"), hollow("convnetjs_cifar10")
    depth, side = 3, 32
    for index, filters in enumerate((16, 20, 20), start=1):
        assert convolved(side, 5, padding=2) == side
        side = pooled(side, 2, 2)
        assert shapes[f"pool{index}"] == (2, filters, side, side)
        layer = network.get_submodule(f"conv{index}")
        assert sum(p.numel() for p in layer.parameters()) == convolution_parameters(5, depth, filters)
        depth = filters
    assert shapes["flatten"] == (2, 320)


def test_letters26_has_haykins_maps() -> None:
    shapes = shapes_of("letters26")
    c1 = convolved(28, 5)
    c3 = convolved(pooled(c1, 2, 2), 5)
    assert (c1, pooled(c1, 2, 2), c3, pooled(c3, 2, 2), convolved(pooled(c3, 2, 2), 4)) == (24, 12, 8, 4, 1)
    assert {layer: shapes[layer][1:] for layer in ("c1", "s2", "c3", "s4", "output")} == {
        "c1": (4, 24, 24),
        "s2": (4, 12, 12),
        "c3": (12, 8, 8),
        "s4": (12, 4, 4),
        "output": (26, 1, 1),
    }


def test_shallow_and_deep_perceptrons_are_of_equal_size() -> None:
    def size(hidden: tuple[int, ...]) -> int:
        widths = [math.prod(mlp.INPUT_SHAPE), *hidden, mlp.CLASSES]
        return sum(above * below + above for below, above in pairwise(widths))

    assert size(mlp.NETWORKS["mlp_shallow"]) == size(mlp.NETWORKS["mlp_deep"]) == 426_430


def test_the_lstm_reads_rows_from_the_top_and_any_number_of_them() -> None:
    torch.manual_seed(0)
    network = nets.build("lstm_rows").eval()
    x = torch.rand(1, 1, 32, 32)
    states, _ = network.lstm(x[:, 0])
    assert torch.equal(network(x), network.output(states[:, -1]))
    assert torch.equal(network(x[:, :, :20]), network.output(states[:, 19]))
    assert (network.lstm.bias_ih_l0 + network.lstm.bias_hh_l0)[128:256].tolist() == [1.0] * 128
