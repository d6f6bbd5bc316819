"""A network with weights from elsewhere, as a served model: a downloaded checkpoint, or random ones for benchmarks.

    python -m training export resnet50 --weights resnet50.pth [--labels imagenet.txt]
    python -m training export resnet50 --random-weights [--seed 0]

A checkpoint is what torch.save wrote: a state_dict, by itself or as the entry "state_dict" or "model" of a larger one,
with or without the "module." that nn.DataParallel puts before each key. The keys of AlexNet, VGG and ResNet are
torchvision's. Files are read without executing what is in them.
"""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from training import nets
from training.data import DATA_SETS
from training.data.registry import DataSet
from training.export.publish import publish
from training.export.source import Source
from training.export_options import PLAIN, ExportOptions
from training.files import TrainingError, first_line
from training.nets.neocognitron import Neocognitron
from training.nets.resnet import BasicBlock, Bottleneck
from training.nets.resnet_cifar import Block

RESIDUAL_GAIN = 0.2
"""Of random blocks' last batch norm."""


def export_weights(
    network_name: str,
    weights: Path | None,
    *,
    seed: int,
    labels: Path | None,
    repository: Path,
    name: str | None,
    version: int | None,
    pictures: str | None = None,
    options: ExportOptions = PLAIN,
) -> Path:
    """Export the network with the file's weights, or with random ones of the seed; return the new version's folder.

    `pictures` is the data set whose pictures the weights read; without it the model takes tensors only.
    """
    row = nets.find(network_name)
    names = read_labels(labels) if labels else ()
    data_set = None if pictures is None else find_data_set(pictures)
    torch.manual_seed(seed)
    network = nets.build(network_name, len(names) or None)
    if weights:
        load(network, weights, network_name)
        origin = f"`{weights.name}`, SHA-256 {hashlib.sha256(weights.read_bytes()).hexdigest()}"
        flag = f"--weights {weights.name}"
    else:
        settle(network, row.input_shape)
        origin = f"random, seed {seed}: for benchmarks; the answers mean nothing"
        flag = f"--random-weights --seed {seed}"
    name = name or network_name
    again = [f"python -m training export {network_name} {flag} --name {name}"]
    again += [f"--labels {labels.name}"] if labels else []
    again += [f"--pictures {pictures}"] if pictures else []
    source = Source(
        name,
        network_name,
        network,
        row.input_shape,
        len(names) or row.classes,
        names,
        preparation="Prepared as the weights were trained." if data_set is None else data_set.preprocessing,
        again=(" ".join(again),),
        weights=origin,
        pictures={} if data_set is None else data_set.pictures,
    )
    return publish(source, repository, version, options)


def find_data_set(name: str) -> DataSet:
    """The data set of that name, as one that says how pictures are prepared."""
    if name not in DATA_SETS:
        raise TrainingError(f"--pictures {name}: there is no data set of that name. There are: {', '.join(DATA_SETS)}.")
    return DATA_SETS[name]


def load(network: nn.Module, path: Path, network_name: str) -> None:
    """Put the file's weights into the network, all of them, or say which do not fit and change nothing."""
    found = read(path)
    wanted: Mapping[str, Tensor] = network.state_dict()
    # Counters that batch norm has had since 2018, and that evaluation does not look at.
    found = {**{key: value for key, value in wanted.items() if key.endswith("num_batches_tracked")}, **found}
    missing = [key for key in wanted if key not in found]
    unexpected = [key for key in found if key not in wanted]
    misshapen = [
        f"{key} is {tuple(found[key].shape)}, not {tuple(value.shape)}"
        for key, value in wanted.items()
        if key in found and found[key].shape != value.shape
    ]
    if missing or unexpected or misshapen:
        kinds = (("missing", missing), ("unexpected", unexpected), ("of another shape", misshapen))
        listed = "; ".join(f"{kind}: {first_few(keys)}" for kind, keys in kinds if keys)
        advice = " If it was trained for other classes, name them with --labels." if misshapen else ""
        raise TrainingError(f"{path} does not fit {network_name}. Keys {listed}. Nothing was written.{advice}")
    network.load_state_dict(found)


def read(path: Path) -> dict[str, Tensor]:
    """The file's state_dict, its tensors on the CPU."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise TrainingError(f"{path} cannot be read: {error.strerror}.") from error
    except pickle.UnpicklingError as error:
        raise TrainingError(
            f"{path} is no file of torch.save, or holds more than weights, which is not executed here: "
            f"{first_line(error)} Save network.state_dict() alone."
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError) as error:
        raise TrainingError(
            f"{path} cannot be read as a file of torch.save ({first_line(error)}). Is it whole?"
        ) from error
    for entry in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(entry), dict):
            content = content[entry]
            break
    if not isinstance(content, dict) or not content or not all(isinstance(value, Tensor) for value in content.values()):
        raise TrainingError(f"{path} holds no state_dict: a dictionary of tensors, by itself or as its 'state_dict'.")
    if all(key.startswith("module.") for key in content):
        return {key.removeprefix("module."): value for key, value in content.items()}
    return dict(content)


def first_few(keys: Sequence[str]) -> str:
    """Three of them, and how many more there are."""
    more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
    return ", ".join(keys[:3]) + more


def read_labels(path: Path) -> tuple[str, ...]:
    """One class a line."""
    try:
        names = tuple(path.read_text(encoding="utf-8").splitlines())
    except OSError as error:
        raise TrainingError(f"{path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise TrainingError(f"{path} is not UTF-8 text: {error}.") from error
    if not names or not all(name.strip() for name in names):
        raise TrainingError(f"{path} needs one class a line, and no empty lines.")
    return names


def settle(network: nn.Module, shape: Sequence[int]) -> None:
    """Give random weights the manners of trained ones, so that answers stay in range and depend on more than rounding.

    Batch norm gets the statistics of inputs, and residual blocks add a little to what is there: otherwise each doubles
    the variance, and in ResNet-152 a change of 1e-7 in a pixel grows a thousandfold. The neocognitron, which is silent
    until it has seen something, sees inputs.
    """
    images = torch.rand(8, *shape)
    if isinstance(network, Neocognitron):
        network.learn(images, rounds=5)
        return
    for layer in network.modules():
        if isinstance(layer, Bottleneck):
            nn.init.constant_(layer.bn3.weight, RESIDUAL_GAIN)
        elif isinstance(layer, BasicBlock | Block):
            nn.init.constant_(layer.bn2.weight, RESIDUAL_GAIN)
    norms = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
    momenta = [layer.momentum for layer in norms]
    for layer in norms:
        layer.momentum = None  # of this one batch, rather than a tenth of it
    if norms:
        with torch.no_grad():
            network.train()(images)
    for layer, momentum in zip(norms, momenta, strict=True):
        layer.momentum = momentum
