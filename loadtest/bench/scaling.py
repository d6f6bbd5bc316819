"""More cores, more instances, more servers: what each of them brings on this machine, to its limit.

Every setup's servers are pinned to cores of their own. The load generator is not: where servers have all the cores, it
takes its time from theirs, so that `cpu_us_per_request` says more about a core than requests per second do.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

from loadtest.bench.comparison import take_turns
from loadtest.bench.networks import write_resnet18
from loadtest.bench.servers import NGHTTP2, Load, Ours, Plan, Shot, model_file, prepare
from loadtest.errors import LoadTestError
from loadtest.figures import Figures
from loadtest.processes import our_server, running
from loadtest.target import Target

_SIDE = 224
_RESNET18 = """platform: "onnxruntime_onnx"
max_batch_size: 8
dynamic_batching { }
"""
_THREADS = re.compile(r'parameters\s*{\s*key:\s*"intra_op_thread_count".*?}\s*}\s*', re.DOTALL)


@dataclass(frozen=True)
class Setup:
    """Servers of the same kind, each on cores of its own. Threads are as the server chooses: cores ÷ instances."""

    cores: tuple[str, ...]
    """Of each server, as taskset has them."""
    instances: int


# Servers × cores of each; one instance where nothing else is said.
SETUPS: Mapping[str, Setup] = {
    "1 × 1 core": Setup(("0",), 1),
    "1 × 1 core, 2 inst.": Setup(("0",), 2),
    "1 × 2 cores": Setup(("0,1",), 1),
    "1 × 2 cores, 2 inst.": Setup(("0,1",), 2),
    "2 × 1 core": Setup(("0", "1"), 1),
}
_BASE = "1 × 1 core"


def scaling(plan: Plan) -> dict[str, object]:
    """The plan's model, and ResNet-18, with each setup in turns."""
    if not os.sched_getaffinity(0) >= {0, 1}:
        raise LoadTestError("scaling needs cores 0 and 1")
    models = {
        plan.model: plan.load(requests=12_000, connections=4, streams=16),
        "resnet18": plan.load(requests=48, connections=4, streams=4),
    }
    _write_repositories(plan, models)
    section: dict[str, object] = {}
    with ExitStack() as stack:
        servers = {name: _start(stack, plan, name, setup) for name, setup in SETUPS.items()}
        for model, load in models.items():
            shots = {name: _prepared(plan, name, model, group, load) for name, group in servers.items()}
            turns: dict[str, Callable[[], Figures]] = {
                name: partial(_fire, shots[name], [replace(one, model=model) for one in group])
                for name, group in servers.items()
            }
            comparison = take_turns(turns, plan.rounds, tuple((name, _BASE) for name in SETUPS if name != _BASE))
            print(f"{model}\n{comparison.table()}")
            section[model] = {"load": asdict(load), **comparison.as_json()}
    return section


def _write_repositories(plan: Plan, models: Mapping[str, Load]) -> None:
    """A folder for each number of instances, with every model; how many threads one has is left to the server."""
    network = plan.out / "resnet18.onnx"
    write_resnet18(network, _SIDE)
    files = {plan.model: model_file(plan), "resnet18": network}
    configs = {plan.model: (plan.model_repository / plan.model / "config.pbtxt").read_text(), "resnet18": _RESNET18}
    for instances in {setup.instances for setup in SETUPS.values()}:
        for model in models:
            folder = _repository(plan, instances) / model
            (folder / "1").mkdir(parents=True, exist_ok=True)
            shutil.copyfile(files[model], folder / "1" / "model.onnx")
            for labels in (plan.model_repository / model).glob("*.txt"):
                shutil.copyfile(labels, folder / labels.name)
            group = f"instance_group [ {{ count: {instances} kind: KIND_CPU }} ]\n"
            (folder / "config.pbtxt").write_text(_THREADS.sub("", configs[model]) + group)


def _repository(plan: Plan, instances: int) -> Path:
    return plan.out / f"scaling_{instances}_instances"


def _start(stack: ExitStack, plan: Plan, name: str, setup: Setup) -> list[Ours]:
    servers = []
    for number, cores in enumerate(setup.cores):
        command = ["taskset", "--cpu-list", cores, *our_server(_repository(plan, setup.instances), NGHTTP2)]
        server = stack.enter_context(running(command, plan.out, f"{_file_name(name)}_{number}"))
        servers.append(Ours(server, stack.enter_context(Target(server.address)), plan.model))
    return servers


def _file_name(name: str) -> str:
    return re.sub(r"\W+", "_", name).strip("_")


def _prepared(plan: Plan, name: str, model: str, group: list[Ours], load: Load) -> list[Shot]:
    """For each server its share of the load, with files of its own, since they are fired at side by side."""
    share = replace(load, requests=load.requests // len(group), connections=load.connections // len(group))
    shots = []
    for number, ours in enumerate(group):
        out = plan.out / f"{_file_name(name)}_{number}_{model}"
        out.mkdir(exist_ok=True)
        shots.append(prepare(replace(plan, out=out), replace(ours, model=model), share))
        shots[-1].warm_up(ours.server)
    return shots


def _fire(shots: list[Shot], group: list[Ours]) -> Figures:
    """One volley at each server of a setup at the same time, as one figure."""
    with ThreadPoolExecutor(len(group)) as side_by_side:
        each = list(side_by_side.map(lambda shot, ours: shot.fire_counted(ours), shots, group))
    requests = [shot.load.requests for shot in shots]
    seconds = max(count / figures["requests_per_second"] for count, figures in zip(requests, each, strict=True))
    cpu_us = sum(count * figures["cpu_us_per_request"] for count, figures in zip(requests, each, strict=True))
    return {
        "requests_per_second": sum(requests) / seconds,
        "cpu_us_per_request": cpu_us / sum(requests),
        "cores_used": cpu_us / 1e6 / seconds,
        "average_batch": sum(figures["average_batch"] for figures in each) / len(each),
        "p50_ms": max(figures["p50_ms"] for figures in each),
        "p99_ms": max(figures["p99_ms"] for figures in each),
        "peak_rss_mib": sum(figures["peak_rss_mib"] for figures in each),
    }
