"""A latency objective under Poisson arrivals: `slo` beside a sweep of fixed delays, on the real server.

The objective is five times the median of a batch of one row, and bounds the server's time, from arrival to answer. An
answer is good where it came within the objective. Capacity is what a closed loop gets out of the window without delay.

- Where the objective is, or is rounded to, a bound of the latency histogram, the server's own histogram says how many
  answers are good (LeNet-5: its time is too short to be seen through sockets).
- Elsewhere the generator says so, and adds to the objective what the way there and back takes a lone request
  (ResNet-18). That counts from the moment that a request is sent, which is where the objective can begin.

p50 and p99 count from the moment that the schedule names.

All kinds of one round have the same arrivals, and the same yardstick.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from itertools import count
from math import log
from pathlib import Path
from statistics import median

import numpy as np

from loadtest.bench.comparison import Comparison, take_turns
from loadtest.bench.metrics import batch_1_seconds, read_metrics
from loadtest.bench.networks import write_resnet18
from loadtest.bench.servers import NGHTTP2, Load, Ours, Plan, Shot, model_file, prepare, start_ours
from loadtest.figures import Figures
from loadtest.open_loop import GrpcTraffic, play_apart, poisson, quantile
from loadtest.target import INFER

LOADS = (0.5, 0.8, 1.0, 1.5, 2.0)
OBJECTIVE = 5.0
"""Times the median of a batch of one row."""
DELAYS = (0.0, 0.2, 0.5, 1.0)
"""Of the window, as shares of the objective."""
TIMEOUT = 0.5
"""Of a queue without delay, as a share of the objective."""
SLO, WITH_TIMEOUT = "slo", f"delay 0, timeout {TIMEOUT:g}"
_SECONDS_PER_POINT = 4.5
"""Of arrivals, all rounds together, for each kind and load, unless the number of requests is given."""
_LONE_REQUESTS = 300
_CAPACITY_VOLLEYS = 3


@dataclass(frozen=True)
class Subject:
    """A model, and how it is served."""

    name: str
    write: Callable[[Plan, Path], None]
    """Writes its ONNX file."""
    max_batch: int
    instances: int
    saturating: Load
    rounds_objective: bool
    """To the nearest bound of the server's histogram."""


@dataclass(frozen=True)
class Yardstick:
    """What was measured before the first arrival."""

    batch_1_seconds: float
    objective_seconds: float
    transport_seconds: float
    """What a lone request takes besides the server's time."""
    capacity_per_second: float
    by_histogram: bool

    @property
    def objective_us(self) -> float:
        return self.objective_seconds * 1e6


def slo_lenet5(plan: Plan) -> dict[str, object]:
    """The committed LeNet-5."""
    return _measure(plan, Subject("lenet5", _copy_model, 64, 1, Load(20_000, 4, 16), rounds_objective=True))


def slo_resnet18(plan: Plan) -> dict[str, object]:
    """ResNet-18 for pictures of 64×64."""
    return _measure(plan, Subject("resnet18", _write_network, 8, 2, Load(200, 4, 4), rounds_objective=False))


def _measure(plan: Plan, subject: Subject) -> dict[str, object]:
    repository = plan.out / f"slo_{subject.name}_repository"
    shutil.rmtree(repository, ignore_errors=True)
    source = repository.with_suffix(".onnx")
    source.parent.mkdir(parents=True, exist_ok=True)
    subject.write(plan, source)
    plan = replace(plan, model_repository=repository)
    with ExitStack() as stack:
        _write_model(repository, _kind_model(0), source, subject, "dynamic_batching { }")
        yardstick = _yardstick(start_ours(stack, replace(plan, model=_kind_model(0)), NGHTTP2), plan, subject)
    objective_ms = yardstick.objective_seconds * 1e3
    print(
        f"bench: batch of one row {yardstick.batch_1_seconds * 1e3:.3g} ms, objective {objective_ms:.3g} ms, "
        f"transport {yardstick.transport_seconds * 1e3:.3g} ms, capacity {yardstick.capacity_per_second:,.0f}/s",
        flush=True,
    )
    kinds = _kinds(yardstick.objective_us)
    for number, batching in enumerate(kinds.values()):
        _write_model(repository, _kind_model(number), source, subject, batching)
    with ExitStack() as stack:
        ours = start_ours(stack, replace(plan, model=_kind_model(0)), NGHTTP2)
        turns: dict[str, Callable[[], Figures]] = {}
        arrows = {kind: _arrow(plan, ours, number) for number, kind in enumerate(kinds)}
        for load in LOADS:
            for kind, shot in arrows.items():
                turns[_point(load, kind)] = _turn(plan, shot, ours, load, yardstick)
        comparison = take_turns(turns, plan.rounds, ())
    print(_table(comparison, kinds, yardstick))
    verdict = _verdict(comparison, kinds)
    print("\n".join(f"{what}: {value:.3f}" for what, value in verdict.items()))
    return {
        "yardstick": asdict(yardstick),
        "max_batch_size": subject.max_batch,
        "instances": subject.instances,
        "kinds": kinds,
        "verdict": verdict,
        **comparison.as_json(),
    }


def _yardstick(ours: Ours, plan: Plan, subject: Subject) -> Yardstick:
    lone = prepare(plan, ours, Load(_LONE_REQUESTS, 1, 1))
    lone.warm_up(ours.server)
    before = read_metrics(ours.server, ours.model)
    seen_ms = lone.fire(ours.server)["p50_ms"]
    counted = read_metrics(ours.server, ours.model).since(before)
    batch_1 = batch_1_seconds(ours.server, ours.model)
    volleys = [replace(lone, load=subject.saturating).fire_counted(ours) for _ in range(_CAPACITY_VOLLEYS)]
    objective = OBJECTIVE * batch_1
    if subject.rounds_objective:
        objective = _nearest(objective * 1e6, [*counted.within_us][:-1]) / 1e6
    return Yardstick(
        batch_1_seconds=batch_1,
        objective_seconds=objective,
        transport_seconds=max(0.0, seen_ms / 1e3 - counted.seconds / counted.answers),
        capacity_per_second=median(volley["requests_per_second"] for volley in volleys),
        by_histogram=subject.rounds_objective,
    )


def _nearest(value: float, bounds: list[float]) -> float:
    return min(bounds, key=lambda bound: abs(log(bound / value)))


def _kinds(objective_us: float) -> dict[str, str]:
    """What a configuration says of batching, by the name of the kind."""
    kinds = {}
    for share in DELAYS:
        delay = f"max_queue_delay_microseconds: {round(share * objective_us)}"
        kinds[f"delay {share:g}"] = f"dynamic_batching {{ {delay} }}"
    timeout = f"timeout_action: REJECT default_timeout_microseconds: {round(TIMEOUT * objective_us)}"
    kinds[WITH_TIMEOUT] = f"dynamic_batching {{ default_queue_policy {{ {timeout} }} }}"
    slo_ms = f"{objective_us / 1e3:.6g}"
    kinds[SLO] = f'dynamic_batching {{ }}\nparameters {{ key: "slo_ms" value {{ string_value: "{slo_ms}" }} }}'
    return kinds


def _kind_model(number: int) -> str:
    return f"kind_{number}"


def _write_model(repository: Path, model: str, source: Path, subject: Subject, batching: str) -> None:
    file = repository / model / "1" / "model.onnx"
    file.parent.mkdir(parents=True, exist_ok=True)
    if not file.exists():
        file.hardlink_to(source)
    (repository / model / "config.pbtxt").write_text(
        f'platform: "onnxruntime_onnx"\nmax_batch_size: {subject.max_batch}\n'
        f"instance_group [ {{ count: {subject.instances} kind: KIND_CPU }} ]\n"
        f'parameters {{ key: "intra_op_thread_count" value {{ string_value: "1" }} }}\n{batching}\n'
    )


def _write_network(_: Plan, file: Path) -> None:
    write_resnet18(file, 64)


def _copy_model(plan: Plan, file: Path) -> None:
    shutil.copyfile(model_file(plan), file)


def _arrow(plan: Plan, ours: Ours, number: int) -> Shot:
    """The request for one kind, whose server has answered it."""
    model = _kind_model(number)
    out = plan.out / model
    out.mkdir(exist_ok=True)
    return prepare(replace(plan, out=out), replace(ours, model=model), Load(_LONE_REQUESTS, 1, 1))


def _point(load: float, kind: str) -> str:
    return f"{load:g} × capacity, {kind}"


def _turn(plan: Plan, shot: Shot, ours: Ours, load: float, yardstick: Yardstick) -> Callable[[], Figures]:
    rounds = count()

    def play() -> Figures:
        return _volley(plan, shot, ours, load, yardstick, seed=round(load * 10) + 100 * next(rounds))

    return play


def _volley(plan: Plan, shot: Shot, ours: Ours, load: float, yardstick: Yardstick, seed: int) -> Figures:
    """Arrivals at so many times the capacity."""
    model = shot.workload.model
    before, cpu_before = read_metrics(ours.server, model), ours.server.cpu_seconds()
    rate = load * yardstick.capacity_per_second
    seconds = plan.requests / rate if plan.requests else _SECONDS_PER_POINT / plan.rounds
    traffic = GrpcTraffic(ours.server.address, INFER, (shot.body.read_bytes(),))
    due = poisson(rate, seconds, seed)
    seen = play_apart(traffic, due, seconds=seconds, patience=2 * yardstick.objective_seconds)
    cpu_seconds = ours.server.cpu_seconds() - cpu_before
    counted = read_metrics(ours.server, model).since(before)
    limit_ms = (yardstick.objective_seconds + yardstick.transport_seconds) * 1e3
    good = good_seen = int(np.searchsorted(seen.latencies_from_sent_ms, limit_ms, "right"))
    accepted = seen.scheduled - seen.refused
    if yardstick.by_histogram:
        good, accepted = round(counted.within_us[yardstick.objective_us]), round(counted.answers)
    figures = {
        "goodput_per_second": good / seconds,
        "offered_per_second": seen.scheduled / seconds,
        "late_share": 1 - good / accepted if accepted else 0.0,
        "refused_share": seen.refused / seen.scheduled,
        "goodput_seen_per_second": good_seen / seconds,
        "p99_from_sent_ms": seen.quantile_of_admitted_ms(0.99, from_sent=True),
        "p50_seen_ms": seen.quantile_of_admitted_ms(0.5),
        "p99_seen_ms": seen.quantile_of_admitted_ms(0.99),
        "average_batch": counted.rows / counted.batches if counted.batches else 0.0,
        "send_lag_p99_ms": quantile(seen.late_ms, 0.99),
        "server_cores": cpu_seconds / seconds,
        "generator_cores": seen.cpu_seconds / seconds,
    }
    if counted.met + counted.missed:
        figures["late_share_by_server"] = counted.missed / (counted.met + counted.missed)
    return figures


def _table(comparison: Comparison, kinds: Mapping[str, str], yardstick: Yardstick) -> str:
    """A line per load and kind, of medians."""
    of = comparison.medians
    head = (
        "load",
        "kind",
        "offered/s",
        "goodput/s",
        "of capacity",
        "late",
        "refused",
        "p50 ms",
        "p99 ms",
        "batch",
        "lag",
    )
    lines = [head]
    for load in LOADS:
        for kind in kinds:
            seen = of[_point(load, kind)]
            lines.append(
                (
                    f"{load:g}",
                    kind,
                    f"{seen['offered_per_second']:,.0f}",
                    f"{seen['goodput_per_second']:,.0f}",
                    f"{seen['goodput_per_second'] / yardstick.capacity_per_second:.1%}",
                    f"{seen['late_share']:.1%}",
                    f"{seen['refused_share']:.1%}",
                    f"{seen['p50_seen_ms']:.3g}",
                    f"{seen['p99_seen_ms']:.3g}",
                    f"{seen['average_batch']:.1f}",
                    f"{seen['send_lag_p99_ms']:.2g}",
                )
            )
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)


def _verdict(comparison: Comparison, kinds: Mapping[str, str]) -> dict[str, float]:
    """What the promises are about."""
    of = comparison.medians
    goodput = {point: figures["goodput_per_second"] for point, figures in of.items()}
    fixed = [kind for kind in kinds if kind != SLO]
    verdict = {}
    for load in LOADS:
        best = max(goodput[_point(load, kind)] for kind in fixed)
        verdict[f"goodput of slo / best fixed, {load:g} × capacity"] = (
            goodput[_point(load, SLO)] / best if best else 0.0
        )
    peak = max(goodput[_point(load, SLO)] for load in LOADS)
    verdict["goodput of slo at 2 × capacity / its peak"] = goodput[_point(2.0, SLO)] / peak if peak else 0.0
    late = max(of[_point(load, SLO)]["late_share"] for load in LOADS)
    verdict["largest share of slo's answers that were late (0.01: p99 is the objective)"] = late
    return verdict
