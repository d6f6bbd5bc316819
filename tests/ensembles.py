"""Configurations of ensembles, for tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.repositories import add_model

Tensors = Mapping[str, tuple[str, Sequence[int]]]
"""Name → type, as in TYPE_INT64 without the prefix, and dims."""

INT64_ROW: tuple[str, Sequence[int]] = ("INT64", [1])


def step(model: str, inputs: Mapping[str, str], outputs: Mapping[str, str], version: int = -1) -> str:
    """One step; the maps are from the model's tensors to the ensemble's."""
    maps = [
        f'{kind}_map {{ key: "{key}" value: "{tensor}" }}'
        for kind, entries in (("input", inputs), ("output", outputs))
        for key, tensor in entries.items()
    ]
    return f'step {{ model_name: "{model}" model_version: {version} {" ".join(maps)} }}'


def ensemble(
    *steps: str,
    inputs: Tensors | None = None,
    outputs: Tensors | None = None,
    max_batch_size: int = 8,
    scheduling: str = "",
    more: str = "",
) -> str:
    """config.pbtxt of an ensemble, by default from `x` to `y`, rows of one INT64."""
    tensors = [
        f'{kind} {{ name: "{name}" data_type: TYPE_{datatype} dims: {list(dims)} }}'
        for kind, group in (("input", inputs), ("output", outputs))
        for name, (datatype, dims) in (group or {"x" if kind == "input" else "y": INT64_ROW}).items()
    ]
    body = " ".join(tensors)
    return (
        f'platform: "ensemble" max_batch_size: {max_batch_size} {body} {more} '
        f"ensemble_scheduling {{ {' '.join(steps)} {scheduling} }}"
    )


def add_ensemble(root: Path, name: str, config: str, files: Mapping[str, str] | None = None) -> Path:
    """Write an ensemble's folder below `root`: its version 1 is an empty one."""
    return add_model(root, name, None, config, files=files)
