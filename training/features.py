"""What a network has learned to look for, as pictures: the filters of its first layer, and its maps of one image."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn


def first_filters(network: nn.Module, shape: Sequence[int]) -> NDArray[np.float32] | None:
    """The weights of the first convolution (K, C, F, F), or of the first linear layer, if that reads the image itself.

    `shape` is an image's (C, H, W); a linear layer's weights are returned as K images. None: neither comes first.
    """
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            return _array(layer.weight)
        if isinstance(layer, nn.Linear):
            return _array(layer.weight.view(-1, *shape)) if layer.in_features == math.prod(shape) else None
    return None


def feature_maps(network: nn.Module, image: Tensor) -> dict[str, NDArray[np.float32]]:
    """What the network makes of one image (C, H, W): of each size of map the last one, (maps, height, width), by layer.

    "Last" is after activation and normalisation, before the next pooling or stride. Maps of one pixel are no pictures.
    """
    by_shape: dict[tuple[int, ...], tuple[str, NDArray[np.float32]]] = {}

    def keep(name: str, output: Tensor) -> None:
        if isinstance(output, Tensor) and output.dim() == 4 and output.shape[2] * output.shape[3] > 1:
            shape = tuple(output.shape[1:])
            by_shape.pop(shape, None)
            by_shape[shape] = (name, _array(output[0]))

    leaves = [(name, layer) for name, layer in network.named_modules() if not list(layer.children())]
    hooks = [
        layer.register_forward_hook(lambda _layer, _inputs, output, name=name: keep(name, output))
        for name, layer in leaves
    ]
    network.eval()
    try:
        with torch.no_grad():
            network(image[None])
    finally:
        for hook in hooks:
            hook.remove()
    return dict(by_shape.values())


def _array(tensor: Tensor) -> NDArray[np.float32]:
    return np.array(tensor.detach().float().cpu().numpy())
