"""The model repository: a configuration, and a version that is there whole or not at all.

    <repository>/<name>/
      config.pbtxt          an existing one is its owner's, and stays
      labels.txt            one class a line; must be the same for all versions
      README.md             the model card, of the version exported last
      <version>/model.onnx
      <version>/card.json   the same card for programs

All versions share config.pbtxt, so that all must have the inputs and outputs that it declares. Files are made in a
hidden folder of the repository and renamed into place: nothing half-written is ever visible.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import onnx
from google.protobuf import text_format

from proto import model_config_pb2 as pb
from training.files import TrainingError, write_atomically

MAX_BATCH_SIZE = 64
CARD_FILENAME = "card.json"

OPEN = -1
"""A dimension that each request chooses."""
SERVED_TYPES = {"FLOAT": "TYPE_FP32", "FLOAT16": "TYPE_FP16", "DOUBLE": "TYPE_FP64"}
"""ONNX's names of datatypes that the server has other ones for."""


@dataclass(frozen=True, slots=True)
class Port:
    """One input or output, as config.pbtxt declares it."""

    name: str
    datatype: str
    """"TYPE_FP32", say."""
    dims: tuple[int, ...]
    """Of one row: without the batch."""
    format: str = "FORMAT_NONE"
    """Of an input: "FORMAT_NCHW", "FORMAT_NHWC"."""

    def __str__(self) -> str:
        return f"{self.name} {self.datatype} [{', '.join(map(str, self.dims))}]"

    def fits(self, other: Port) -> bool:
        """Whether both are the same to a client. A format that one of them leaves out is no difference."""
        formats = {self.format, other.format} - {"FORMAT_NONE"}
        same = (self.name, self.datatype, self.dims) == (other.name, other.datatype, other.dims)
        return same and len(formats) <= 1


@dataclass(frozen=True, slots=True)
class Interface:
    """What a graph reads and answers."""

    input: Port
    output: Port
    further_outputs: tuple[Port, ...] = ()
    """Of a model that shows its layers."""

    @property
    def outputs(self) -> tuple[Port, ...]:
        """All of them."""
        return (self.output, *self.further_outputs)


def config(
    name: str,
    interface: Interface,
    threads: int | None,
    pictures: Mapping[str, str] = MappingProxyType({}),
    *,
    labelled: bool = True,
    max_batch_size: int = MAX_BATCH_SIZE,
    layers_of: str | None = None,
) -> str:
    """config.pbtxt. Empty `dynamic_batching` is natural batching: a batch goes when an instance is idle.

    `threads` is how many the network is worth: what trains best on one is served best on one; None leaves it to the
    server. `pictures` are the parameters by which the server makes an input of a picture; without them it takes
    tensors only. `layers_of` names the model whose layers this one shows, for whoever looks for it.
    """
    given = interface.input
    threading = {} if threads is None else {"intra_op_thread_count": str(threads)}
    shown = {} if layers_of is None else {"layers_of": layers_of}
    labels = '\n    label_filename: "labels.txt"' if labelled else ""
    layout = f"\n    format: {given.format}" if pictures else ""
    outputs = ",".join(
        f"""
  {{
    name: "{port.name}"
    data_type: {port.datatype}
    dims: [ {", ".join(map(str, port.dims))} ]{labels if port is interface.output else ""}
  }}"""
        for port in interface.outputs
    )
    parameters = "".join(
        f'parameters {{\n  key: "{key}"\n  value {{ string_value: "{value}" }}\n}}\n'
        for key, value in {**threading, **pictures, **shown}.items()
    )
    return f"""\
name: "{name}"
platform: "onnxruntime_onnx"
max_batch_size: {max_batch_size}
input [
  {{
    name: "{given.name}"
    data_type: {given.datatype}{layout}
    dims: [ {", ".join(map(str, given.dims))} ]
  }}
]
output [{outputs}
]
dynamic_batching {{ }}
{parameters}"""


def next_version(model: Path) -> int:
    """One more than the highest numbered folder; 1 for a model that is not there."""
    return 1 + max(_versions(model), default=0)


def newest_version(model: Path) -> int:
    """The highest numbered folder's; raise TrainingError where there is none."""
    newest = max(_versions(model), default=None)
    if newest is None:
        raise TrainingError(f"{model} holds no version of a model.")
    return newest


def choose_version(
    repository: Path, name: str, version: int | None, labels: Sequence[str], interface: Interface
) -> int:
    """The version's number (default: the next), if such a version can be added there; raise TrainingError otherwise."""
    refuse_impossible_name(name)
    model = repository / name
    version = next_version(model) if version is None else version
    if version < 1:
        raise TrainingError(f"--version {version}: versions count from 1.")
    target = model / str(version)
    if target.exists():
        raise TrainingError(f"{target} exists. Choose another --version, or leave it out for {next_version(model)}.")
    if (model / "labels.txt").exists() and (model / "labels.txt").read_text() != _lines(labels):
        raise TrainingError(f"{model / 'labels.txt'} names other classes than this export. Choose another --name.")
    refuse_other_interface(model, interface)
    return version


def refuse_impossible_name(name: str) -> None:
    """Raise unless a folder and a string in config.pbtxt can have that name."""
    if not name or name.startswith(".") or not name.isprintable() or set(name) & set('/\\"'):
        raise TrainingError(
            f"{name!r} cannot be a model's name: it is a folder's name, without slashes, quotes or a leading dot."
        )


def refuse_other_interface(model: Path, interface: Interface) -> None:
    """Raise unless the model's versions read and answer the same: as its config.pbtxt says, or else as they do."""
    newest = max(_versions(model), default=None)
    declared = declared_ports(model / "config.pbtxt")
    for kind, wanted in (("input", (interface.input,)), ("output", interface.outputs)):
        where, found = model / "config.pbtxt", declared[kind]
        if not found and newest is not None:
            where = model / str(newest) / "model.onnx"
            found = graph_ports(where)[kind]
        same = len(found) == len(wanted) and all(one.fits(other) for one, other in zip(found, wanted, strict=True))
        if found and not same:
            raise TrainingError(
                f"{where} has the {kind} {_listed(found)}; this export has {_listed(wanted)}. "
                "All versions of a model share one config.pbtxt. Nothing was written. Choose another --name."
            )


def declared_ports(path: Path) -> dict[str, list[Port]]:
    """The inputs and outputs that a config.pbtxt declares; none where it leaves them to the graph, or is not there."""
    message = pb.ModelConfig()
    if path.exists():
        try:
            text_format.Parse(path.read_text(encoding="utf-8"), message)
        except (text_format.ParseError, UnicodeDecodeError) as error:
            raise TrainingError(
                f"{path} cannot be read as a model's configuration: {error}. Mend it, or choose another --name."
            ) from error
    batched = message.max_batch_size > 0
    return {
        "input": [_port(tensor, batched, pb.ModelInput.Format.Name(tensor.format)) for tensor in message.input],
        "output": [_port(tensor, batched) for tensor in message.output],
    }


def graph_ports(path: Path) -> dict[str, list[Port]]:
    """The inputs and outputs of a graph, whose first dimension is the batch; none where there is no such file."""
    if not path.exists():
        return {"input": [], "output": []}
    graph = onnx.load(path, load_external_data=False).graph
    weights = {tensor.name for tensor in graph.initializer}
    return {
        "input": [_graph_port(value) for value in graph.input if value.name not in weights],
        "output": [_graph_port(value) for value in graph.output],
    }


def write_version(
    repository: Path,
    name: str,
    version: int | None,
    files: Mapping[str, bytes],
    interface: Interface,
    config_text: str,
    labels: Sequence[str],
    card_text: str,
) -> Path:
    """Write one version (default: the next), and the model's folder around it if it is the first. Return its folder.

    `files` are the version's, by name: "model.onnx" and what says more of it. Without `labels` there is no labels.txt.
    """
    version = choose_version(repository, name, version, labels, interface)
    model = repository / name
    target = model / str(version)
    try:
        repository.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrainingError(f"{repository} cannot be made a folder: {error.strerror}.") from error
    with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=repository) as hidden:
        made = Path(hidden) / name
        for file, content in files.items():
            write_atomically(made / str(version) / file, content)
        texts = {"config.pbtxt": config_text, "labels.txt": _lines(labels), "README.md": card_text}
        for file, text in texts.items():
            if text:
                write_atomically(made / file, text.encode())
        try:
            if not model.exists():
                os.rename(made, model)
                return target
            # The version last: a server that polls sees it only with all it needs around it.
            for file in ("config.pbtxt", "labels.txt"):
                if (made / file).exists() and not (model / file).exists():
                    os.rename(made / file, model / file)
            os.rename(made / str(version), target)
            os.replace(made / "README.md", model / "README.md")
        except OSError as error:
            raise TrainingError(
                f"{target} cannot be put into place: {error.strerror}. Is another export at it?"
            ) from error
    return target


def _listed(ports: Sequence[Port]) -> str:
    return " and ".join(map(str, ports))


def _lines(labels: Sequence[str]) -> str:
    return "".join(f"{label}\n" for label in labels)


def _versions(model: Path) -> list[int]:
    if not model.exists():
        return []
    return [int(entry.name) for entry in model.iterdir() if entry.name.isdecimal()]


def _port(tensor: Any, batched: bool, layout: str = "FORMAT_NONE") -> Port:
    # Without max_batch_size the first of the dims is the batch. A reshape says what the graph has of them.
    dims = tuple(tensor.reshape.shape if tensor.HasField("reshape") else tensor.dims)
    return Port(tensor.name, pb.DataType.Name(tensor.data_type), dims if batched else dims[1:], layout)


def _graph_port(value: Any) -> Port:
    tensor = value.type.tensor_type
    kind = onnx.TensorProto.DataType.Name(tensor.elem_type)
    dims = tuple(dim.dim_value if dim.HasField("dim_value") else OPEN for dim in tensor.shape.dim)
    return Port(value.name, SERVED_TYPES.get(kind, f"TYPE_{kind}"), dims[1:])
