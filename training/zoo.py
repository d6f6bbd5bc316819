"""Every network at its paper's input size: does its ONNX graph compute what torch computes, and what does that take?

    python -m training check-zoo [NETWORK …]

Random weights; each network in a process of its own, one after another, so that its peak memory is its own.
"""

from __future__ import annotations

import multiprocessing
import resource
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import onnxruntime
import torch

from training import nets
from training.export.graph import INPUT, to_onnx
from training.export.parity import TOLERANCE, compare, probes, worst_of
from training.files import TrainingError
from training.weights import settle

MEMORY_LIMIT_GB = 8.0
RUNS = 5


@dataclass(frozen=True, slots=True)
class Check:
    """One network's line."""

    name: str
    input_shape: tuple[int, ...]
    parameters: int
    graph_mb: float
    parity: float
    """Greatest difference as a part of the greatest score, at batches of 1, 2 and 5."""
    export_s: float
    run_ms: float
    """ONNX Runtime, one picture, all cores; median of `RUNS`."""
    peak_gb: float
    """Of the whole process: torch, exporter, checker and ONNX Runtime."""


def check_zoo(names: Sequence[str]) -> None:
    """Print a line for each network; raise after the last one if one took too much memory. All, if none is named."""
    for name in names:
        nets.find(name)
    print("| network | input | parameters | ONNX (MB) | apart | export (s) | run (ms) | peak (GB) |")
    print("|---|---|---|---|---|---|---|---|")
    heavy = []
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=context, max_tasks_per_child=1) as process:
        for row in process.map(check, names or list(nets.NETWORKS)):
            size = "×".join(map(str, row.input_shape))
            costs = f"{row.export_s:.1f} | {row.run_ms:.1f} | {row.peak_gb:.2f}"
            print(
                f"| {row.name} | {size} | {row.parameters:,} | {row.graph_mb:.1f} | {row.parity:.0e} | {costs} |",
                flush=True,
            )
            if row.peak_gb > MEMORY_LIMIT_GB:
                heavy.append(row.name)
    if heavy:
        raise TrainingError(f"More than {MEMORY_LIMIT_GB:.0f} GB of memory: {', '.join(heavy)}.")


def check(name: str) -> Check:
    """Build, export, compare and time one network; raise if ONNX Runtime and torch disagree."""
    shape = nets.find(name).input_shape
    torch.manual_seed(0)
    network = nets.build(name)
    settle(network, shape)
    network.eval()
    began = time.perf_counter()
    graph = to_onnx(network, torch.rand(2, *shape), "scores")
    export_s = time.perf_counter() - began
    parity = worst_of(name, compare(name, graph, network, probes(shape, (1, 2, 5))), TOLERANCE).worst

    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    picture = {INPUT: torch.rand(1, *shape).numpy()}
    seconds = []
    for _ in range(RUNS):
        began = time.perf_counter()
        session.run(None, picture)
        seconds.append(time.perf_counter() - began)
    return Check(
        name,
        shape,
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        graph_mb=len(graph) / 1e6,
        parity=parity,
        export_s=export_s,
        run_ms=sorted(seconds)[RUNS // 2] * 1000,
        peak_gb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
    )
