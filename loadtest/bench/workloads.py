"""The workloads by name, and the report that they fill."""

from __future__ import annotations

import json
import os
import platform
import re
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from loadtest.bench.access import access
from loadtest.bench.agreement import agreement
from loadtest.bench.analyzer import perf_analyzer_workload
from loadtest.bench.caching import caching
from loadtest.bench.generator import generator
from loadtest.bench.http import http
from loadtest.bench.idle import idle
from loadtest.bench.large import large
from loadtest.bench.loading import loading
from loadtest.bench.objectives import slo_lenet5, slo_resnet18
from loadtest.bench.pictures import pictures
from loadtest.bench.reloading import reloading
from loadtest.bench.resnet18 import resnet18
from loadtest.bench.scaling import scaling
from loadtest.bench.servers import Plan
from loadtest.bench.shared import shared
from loadtest.bench.soak import soak
from loadtest.bench.stall import stall
from loadtest.bench.unary import single, small

WORKLOADS: Mapping[str, Callable[[Plan], dict[str, object]]] = {
    "small": small,
    "single": single,
    "http": http,
    "large": large,
    "pictures": pictures,
    "shared": shared,
    "access": access,
    "caching": caching,
    "resnet18": resnet18,
    "slo-resnet18": slo_resnet18,
    "slo-lenet5": slo_lenet5,
    "scaling": scaling,
    "idle": idle,
    "loading": loading,
    "reloading": reloading,
    "soak": soak,
    "perf-analyzer": perf_analyzer_workload,
    "generator": generator,
    "agreement": agreement,
    "stall": stall,
}


def bench(plan: Plan, names: Sequence[str]) -> None:
    """Carries out the workloads `names`, prints their tables, and leaves bench.json in `plan.out`: a section each."""
    plan.out.mkdir(parents=True, exist_ok=True)
    report = {"machine": machine()}
    for name in names:
        print(f"bench: {name}", flush=True)
        report[name] = {**WORKLOADS[name](plan), "load_average_after": os.getloadavg()[0]}
        (plan.out / "bench.json").write_text(json.dumps(report, indent=2) + "\n")
    print(f"written to {plan.out / 'bench.json'}")


def machine() -> dict[str, object]:
    """For a report: what the figures hold for."""
    processor = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return {
        "system": platform.platform(),
        "processor": processor[1] if processor else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "load_average_before": os.getloadavg()[0],
        "python": platform.python_version(),
        **{name: _version(name) for name in ("grpcio", "numpy", "onnxruntime", "protobuf", "uvloop")},
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"
