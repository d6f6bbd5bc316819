"""The repository that most real tests share: one model for each thing that a model can be.

A test that counts what a model has run uses a model of its own.
"""

from __future__ import annotations

from pathlib import Path

from tests import onnx_models
from tests.repositories import add_model

WINDOW_SECONDS = 0.5
"""The window of `window`: requests sent together are well inside of it."""

BATCHED = "max_batch_size: 8 dynamic_batching { max_queue_delay_microseconds: %d %s }"
LONG_US = 600_000_000
"""A window that no test waits for: the batch runs when it is full, or never."""


def held(policy: str = "") -> str:
    """A configuration that holds requests until eight rows have come."""
    return BATCHED % (LONG_US, f"default_queue_policy {{ {policy} }}" if policy else "")


def write_zoo(root: Path) -> Path:
    """Write the repository and return its root."""
    for datatype in onnx_models.ELEMENT_TYPES:
        add_model(root, f"identity_{datatype.lower()}", onnx_models.identity(datatype))
    _shapes(root)
    _classifiers(root)
    _versions(root)
    _queues(root)
    _levels(root)
    _failures(root)
    add_model(root, "lookup", onnx_models.lookup())
    add_model(root, "doubled_rows", onnx_models.doubled_rows())
    add_model(root, "bytes_only", onnx_models.identity("BYTES", ("N", 2)))
    return root


def _shapes(root: Path) -> None:
    add_model(root, "add_sub", onnx_models.add_sub(), "max_batch_size: 8")
    add_model(root, "scalar", onnx_models.affine("FP32", ("N",)))
    add_model(root, "wildcards", onnx_models.affine("FP32", ("N", "H", "W")))
    add_model(root, "whole", onnx_models.transpose())
    add_model(root, "reshaped", onnx_models.affine("FP32", ("N", 2, 3)), _reshaped())


def _reshaped() -> str:
    tensor = "data_type: TYPE_FP32 dims: [ 6 ] reshape { shape: [ 2, 3 ] }"
    return f'max_batch_size: 4 input {{ name: "x" {tensor} }} output {{ name: "y" {tensor} }}'


def _classifiers(root: Path) -> None:
    for name, datatype in (("scores", "FP32"), ("integer_scores", "INT32")):
        tensor = f"data_type: TYPE_{datatype} dims: [ 4 ]"
        config = (
            f'max_batch_size: 8 input {{ name: "x" {tensor} }} '
            f'output {{ name: "y" {tensor} label_filename: "labels.txt" }}'
        )
        labels = {"labels.txt": "cat\ndog\nold owl\n"}  # and the fourth class has none
        add_model(root, name, onnx_models.identity(datatype, ("N", 4)), config, files=labels)


def _versions(root: Path) -> None:
    versions = {number: onnx_models.affine(offset=number) for number in (1, 2, 10)}
    for name, policy in (("latest", "latest { num_versions: 2 }"), ("specific", "specific { versions: [ 1, 2 ] }")):
        add_model(root, f"versions_{name}", versions=versions, config=f"version_policy {{ {policy} }}")
    add_model(root, "versions_all", versions=versions, config="version_policy { all { } }")
    add_model(root, "versions_default", versions=versions)


def _int64_tensors() -> str:
    tensor = "data_type: TYPE_INT64 dims: [ 1 ]"
    return f'input {{ name: "x" {tensor} }} output {{ name: "y" {tensor} }}'


def _queues(root: Path) -> None:
    """Models whose queue a test controls: a request is held until eight rows have come."""
    for name, config in {
        "held_full": held("max_queue_size: 2"),
        "held_timeout": held("default_timeout_microseconds: 20000"),
        "held_override": held(f"default_timeout_microseconds: {LONG_US} allow_timeout_override: true"),
        "held_no_override": held("default_timeout_microseconds: 400000"),
        "held_deadline": held(),
        "held_cancel": held(),
        "held_stream": held(),
        "held_mixed_rows": held(),
        "held_outputs": held(),
        "held_shapes": held(),
        "held_no_policy": held(),
        "preferred": BATCHED % (LONG_US, "preferred_batch_size: [ 4 ]"),
        "window": BATCHED % (WINDOW_SECONDS * 1e6, ""),
        "lone": BATCHED % (50_000, ""),
        "streamed": BATCHED % (20_000, ""),
        "one_by_one": f"max_batch_size: 8 {_int64_tensors()}",  # nothing to complete, so no batching is added
        "crowd": "max_batch_size: 32 dynamic_batching { max_queue_delay_microseconds: 5000 }",
        "crowd_natural": "max_batch_size: 32 dynamic_batching { }",
        "crowd_instances": "max_batch_size: 16 dynamic_batching { } instance_group { count: 2 kind: KIND_CPU }",
    }.items():
        model = onnx_models.affine("INT64", ("N", "D")) if name == "held_shapes" else onnx_models.affine()
        add_model(root, name, onnx_models.add_sub() if name == "held_outputs" else model, config)
    for count in (1, 2):
        instances = f"dynamic_batching {{ }} instance_group {{ count: {count} kind: KIND_CPU }}"
        add_model(root, f"slow_{count}", onnx_models.slow(), f"max_batch_size: 8 {instances}")


def _levels(root: Path) -> None:
    """Models with more than one queue, with answers in order, and with requests that are split or run again."""
    one = "max_batch_size: 1 dynamic_batching { %s }"
    levels = "priority_levels: 2 default_priority_level: 2"
    add_model(root, "slow_levels", onnx_models.slow(), one % levels)
    delay = "default_queue_policy { timeout_action: DELAY }"
    add_model(root, "slow_delay", onnx_models.slow(), one % delay)
    instances = " instance_group { count: 2 kind: KIND_CPU }"
    add_model(root, "slow_in_order", onnx_models.slow(), one % "preserve_ordering: true" + instances)
    split = 'parameters { key: "split_oversize" value { string_value: "true" } }'
    add_model(root, "split", onnx_models.affine(), f"max_batch_size: 4 dynamic_batching {{ }} {split}")
    add_model(root, "held_lookup", onnx_models.lookup(), held())


def _failures(root: Path) -> None:
    """Models whose runs fail for some inputs."""
    fail_on_nan = 'parameters { key: "fail_on_nan" value { string_value: "true" } }'
    add_model(root, "held_root", onnx_models.root(), f"{held()} {fail_on_nan}")
    add_model(root, "honest_root", onnx_models.root())
    for datatype in ("FP16", "FP64", "BF16"):
        add_model(root, f"no_nan_{datatype.lower()}", onnx_models.identity(datatype), fail_on_nan)
    add_model(root, "held_hungry", onnx_models.hungry(max_rows=2), held())
    add_model(root, "streamed_lookup", onnx_models.lookup())
    add_model(root, "crowd_lookup", onnx_models.lookup(), "max_batch_size: 8 dynamic_batching { }")
