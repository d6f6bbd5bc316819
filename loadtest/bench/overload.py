"""Ten times what a server can do, for a minute, with callers who send as much as may be, who do not read, who leave.

A small ResNet-18 gets ten times its capacity over both protocols, in an open loop; beside it, `echo` gets messages near
the limit, slow readers ask it for large answers, and others come and go. A process of its own asks for the server's
health every 100 ms. Goals: every request answered, or refused by name, exactly once; memory within the budget; the
event loop late by no more than 20 ms (p99), health within 100 ms, latency as before 2 s after the end.

The load generators share the machine with the server, and so they are nice to it, but for the prober.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from loadtest.bench.networks import INPUT, write_resnet18
from loadtest.bench.servers import NGHTTP2, Ours, Plan, start_ours
from loadtest.errors import LoadTestError
from loadtest.http_v2 import JSON_LENGTH, encode_request, model_path
from loadtest.open_loop import GrpcTraffic, HttpTraffic, Outcome, constant, framed, play_apart, play_queries_apart
from loadtest.target import INFER, Target
from proto import grpc_service_pb2 as pb

BUSY, ECHO = "resnet18", "echo"
_SIDE = 64
_MIB = 1 << 20
_MESSAGE_LIMIT = 64 * _MIB
_BUDGET = 512 * _MIB
_HUGE = 60 * _MIB
_RSS_SHARE = 1.5
"""Allocators keep what they once had: glibc until it is asked, ONNX Runtime what outputs have taken at most."""
_HUGE_AT_ONCE = 4
"""Over each protocol: together more than there is memory for."""
_LARGE = 4 * _MIB
_SMALL = 64 << 10
"""What the wire has to carry beside a tensor."""
_OVERLOAD = 10.0
_HTTP_SHARE = 0.2
_SECONDS = 60
_CALIBRATION_SECONDS = 2.0
_PATIENCE = 60.0
_LONE_REQUESTS = 40
_CALM_REQUESTS = 5
"""In a row, as quick as before: then it is over."""
_CALM = 2.0
"""Times the 95th percentile of a lone request."""
_GIVE_UP_SECONDS = 60.0
_SAMPLE_SECONDS = 0.25
_NICENESS = 10
_STATUSES = {"OK", "Unavailable", "ResourceExhausted", "Canceled", "DeadlineExceeded"}
_HTTP_STATUSES = {"200", "503", "413", "429", "gone"}
_SAMPLE = re.compile(r"^(convoy_ledger_\w+|convoy_memory_\w+|convoy_event_loop_lag\w+|grpc_server_handled_total"
                     r"|convoy_http_requests_total)(?:\{(.*)\})? ([^ ]+)$", re.MULTILINE)  # fmt: skip
_LABEL = re.compile(r'(\w+)="([^"]*)"')
_CONFIG = """platform: "onnxruntime_onnx"
max_batch_size: 8
dynamic_batching { default_queue_policy { max_queue_size: 64 } }
parameters { key: "intra_op_thread_count" value { string_value: "1" } }
"""
"""A queue as long as may be worked off in a second or so; and a core for the event loop."""
_ECHO_CONFIG = 'platform: "onnxruntime_onnx"\n'


@dataclass(frozen=True)
class Goal:
    """What is measured, and what it may be at most."""

    measured: float
    at_most: float

    @property
    def reached(self) -> bool:
        return self.measured <= self.at_most


@dataclass(frozen=True)
class Probed:
    """What the prober has seen over one protocol."""

    latencies_ms: list[float]
    late_ms: list[float]
    failed: int


class Page:
    """A metrics page, as far as it is about the ledger, memory, lag and statuses."""

    def __init__(self, text: str) -> None:
        self._samples = [
            (name, dict(_LABEL.findall(labels)), float(value)) for name, labels, value in _SAMPLE.findall(text)
        ]

    def total(self, name: str) -> float:
        return sum(value for sample, _, value in self._samples if sample == name)

    def by(self, name: str, label: str) -> dict[str, float]:
        found: dict[str, float] = {}
        for sample, labels, value in self._samples:
            if sample == name and value:
                found[labels.get(label, "")] = found.get(labels.get(label, ""), 0.0) + value
        return found

    def imbalance(self) -> float:
        """0 where every request is accounted for."""
        progress = self.total("convoy_ledger_in_progress")
        return self.total("convoy_ledger_received_total") - self.total("convoy_ledger_ended_total") - progress


class Watch:
    """Looks at the server several times a second, on a thread of its own, until told otherwise."""

    def __init__(self, ours: Ours) -> None:
        self._ours = ours
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.imbalances = 0
        self.looks = 0
        self.peak_used_bytes = 0.0

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(_SAMPLE_SECONDS):
            with suppress(OSError):
                page = read_page(self._ours)
                self.looks += 1
                self.imbalances += page.imbalance() != 0
                self.peak_used_bytes = max(self.peak_used_bytes, page.total("convoy_memory_used_bytes"))


def overload(plan: Plan) -> dict[str, object]:
    """See above. `plan.seconds` is for how long."""
    seconds = plan.seconds or _SECONDS
    plan = replace(plan, model=BUSY, model_repository=plan.out / "overload_repository")
    write_repository(plan.model_repository)
    flags = [f"--memory-budget={_BUDGET}", f"--grpc-max-message-bytes={_MESSAGE_LIMIT}",
             f"--http-max-input-size={_MESSAGE_LIMIT}"]  # fmt: skip
    with ExitStack() as stack:
        ours = start_ours(stack, plan, NGHTTP2, *flags, name="overload")
        busy = busy_request()
        ask = partial(_ask, ours, busy)
        lone_ms = sorted(ask() for _ in range(_LONE_REQUESTS))
        _ask(ours, echo_request(_HUGE))  # what a run of the largest takes is the model's memory, not the requests'
        capacity = _capacity(ours, busy)
        resting = read_page(ours)
        rss_before = ours.server.rss_bytes()
        print(f"bench: capacity {capacity:,.0f}/s, {_OVERLOAD:g} times that for {seconds} s", flush=True)
        with Watch(ours) as watch:
            outcomes, probes = _overload(plan, ours, busy, capacity, seconds)
            backlog = max(_backlog_seconds(outcomes[name], seconds) for name in ("grpc", "http"))
            recovered = backlog + _recovery(ask, _CALM * lone_ms[int(0.95 * len(lone_ms))])
        _wait_until_idle(ours)
        last = read_page(ours)
        peak = ours.server.peak_rss_bytes()
    # The server has gone with exit code 0, as `running` sees to: its ledger and its memory budget balance.
    report: dict[str, object] = {
        "seconds": seconds,
        "capacity_per_second": capacity,
        "lone_request_ms": {"p50": lone_ms[len(lone_ms) // 2], "p95": lone_ms[int(0.95 * len(lone_ms))]},
        "flood": {name: _summary(outcome) for name, outcome in outcomes.items()},
        "memory": {
            "budget_bytes": _BUDGET,
            "peak_used_bytes": watch.peak_used_bytes,
            "refused": last.total("convoy_memory_refused_total"),
            "rss_before_bytes": rss_before,
            "peak_rss_bytes": peak,
        },
        "ledger": {
            "received": last.total("convoy_ledger_received_total"),
            "ended": last.by("convoy_ledger_ended_total", "outcome"),
            "reasons": last.by("convoy_ledger_ended_total", "reason"),
            "looks": watch.looks,
        },
        "statuses": last.by("grpc_server_handled_total", "grpc_code"),
        "http_statuses": last.by("convoy_http_requests_total", "status"),
        "probes": {name: _probe_summary(probe) for name, probe in probes.items()},
    }
    unnamed = {*last.by("grpc_server_handled_total", "grpc_code")} - _STATUSES
    unnamed |= {*last.by("convoy_http_requests_total", "status")} - _HTTP_STATUSES
    worst = [max(probe.latencies_ms, default=0.0) for probe in probes.values()]
    goals = {
        "requests unaccounted for, at any look": Goal(watch.imbalances + abs(last.imbalance()), 0),
        "requests in progress in the end": Goal(last.total("convoy_ledger_in_progress"), 0),
        "kinds of refusals without a name": Goal(len(unnamed), 0),
        "requests without an answer": Goal(sum(outcome.given_up for outcome in outcomes.values()), 0),
        "memory in use, of the budget": Goal(watch.peak_used_bytes / _BUDGET, 1.0),
        "memory beyond that at rest, of the budget": Goal((peak - rss_before) / _BUDGET, _RSS_SHARE),
        "event loop's lag, p99 (ms)": Goal(_lag_p99_ms(resting, last), 20.0),
        "health, slowest answer (ms)": Goal(max(worst), 100.0),
        "health, not answered": Goal(sum(probe.failed for probe in probes.values()), 0),
        "latency as before, after (s)": Goal(recovered, 2.0),
    }
    for name, goal in goals.items():
        verdict = "reached" if goal.reached else "NOT REACHED"
        print(f"{name}: {goal.measured:,.4g}, at most {goal.at_most:g}: {verdict}")
    report["goals"] = {name: {**asdict(goal), "reached": goal.reached} for name, goal in goals.items()}
    return {**report, "passed": all(goal.reached for goal in goals.values())}


def write_repository(folder: Path) -> None:
    """The two models."""
    write_resnet18(folder / BUSY / "1" / "model.onnx", _SIDE)
    (folder / BUSY / "config.pbtxt").write_text(_CONFIG)
    import onnx  # it was there a moment ago

    helper, real = onnx.helper, onnx.TensorProto.FLOAT
    tensors = [helper.make_tensor_value_info(name, real, [1, "elements"]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], ECHO, tensors[:1], tensors[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (folder / ECHO / "1").mkdir(parents=True, exist_ok=True)
    onnx.save(model, folder / ECHO / "1" / "model.onnx")
    (folder / ECHO / "config.pbtxt").write_text(_ECHO_CONFIG)


def busy_request() -> pb.ModelInferRequest:
    """One picture."""
    shape = [1, 3, _SIDE, _SIDE]
    tensor = pb.ModelInferRequest.InferInputTensor(name=INPUT, datatype="FP32", shape=shape)
    picture = np.random.default_rng(1).random(shape, np.float32)
    return pb.ModelInferRequest(model_name=BUSY, inputs=[tensor], raw_input_contents=[picture.tobytes()])


def echo_request(size: int) -> pb.ModelInferRequest:
    """A message of so many bytes, and an answer of as many."""
    elements = (size - _SMALL) // 4
    tensor = pb.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=[1, elements])
    return pb.ModelInferRequest(model_name=ECHO, inputs=[tensor], raw_input_contents=[bytes(4 * elements)])


def read_page(ours: Ours) -> Page:
    """The metrics page as it is now. OSError where there is none."""
    url = f"http://127.0.0.1:{ours.server.ports['metrics']}/metrics"
    with urllib.request.urlopen(url, timeout=_PATIENCE) as page:
        return Page(page.read().decode())


def _overload(
    plan: Plan, ours: Ours, busy: pb.ModelInferRequest, capacity: float, seconds: int
) -> tuple[Mapping[str, Outcome], Mapping[str, Probed]]:
    """Everything at once. Returns what became of the flood, and what the prober saw."""
    large, huge = echo_request(_LARGE), echo_request(_HUGE)
    rate = capacity * _OVERLOAD
    # Niceness is a thread's, on Linux, and handed down to what it starts.
    with ThreadPoolExecutor(1) as own, ThreadPoolExecutor(8, initializer=os.nice, initargs=(_NICENESS,)) as pool:
        prober = own.submit(_run, "prober", ours, seconds)
        crew = pool.submit(_run, "crew", ours, seconds, *_crew_arguments(plan.out, large, busy))
        play = partial(play_apart, seconds=seconds, patience=_PATIENCE)
        closed = partial(play_queries_apart, seconds=seconds, patience=_PATIENCE)
        futures: dict[str, Future[Outcome]] = {
            "grpc": pool.submit(play, _grpc(ours, busy, 8), constant(rate * (1 - _HTTP_SHARE), seconds)),
            "http": pool.submit(play, _http(ours, busy, 64), constant(rate * _HTTP_SHARE, seconds)),
            "huge, grpc": pool.submit(closed, _grpc(ours, huge, _HUGE_AT_ONCE), samples=_HUGE_AT_ONCE),
            "huge, http": pool.submit(closed, _http(ours, huge, _HUGE_AT_ONCE), samples=_HUGE_AT_ONCE),
        }
        outcomes = {name: future.result() for name, future in futures.items()}
        crew.result()
        probes = {name: Probed(**probed) for name, probed in json.loads(prober.result()).items()}
    return outcomes, probes


def _run(module: str, ours: Ours, seconds: float, *arguments: str) -> str:
    ports = ours.server.ports
    command = [sys.executable, "-m", f"loadtest.overload.{module}", "--seconds", str(seconds)]
    command += ["--grpc", ours.server.address, "--http", f"127.0.0.1:{ports['http']}", *arguments]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds + 60, check=False
    )
    if done.returncode != 0:
        raise LoadTestError(f"{module} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return done.stdout


def _crew_arguments(folder: Path, large: pb.ModelInferRequest, small: pb.ModelInferRequest) -> list[str]:
    arguments: list[str] = []
    for what, request in (("large", large), ("small", small)):
        headers, body = encode_request(request)
        file, body_file = folder / f"{what}.grpc", folder / f"{what}.http"
        file.write_bytes(framed([request.SerializeToString()])[0])
        body_file.write_bytes(body)
        arguments += [f"--{what}", str(file), f"--{what}-body", str(body_file)]
        arguments += [f"--{what}-path", f"{model_path(request.model_name)}/infer"]
        arguments += [f"--{what}-json", headers[JSON_LENGTH]]
    return arguments


def _grpc(ours: Ours, request: pb.ModelInferRequest, connections: int) -> GrpcTraffic:
    return GrpcTraffic(ours.server.address, INFER, framed([request.SerializeToString()]), connections)


def _http(ours: Ours, request: pb.ModelInferRequest, connections: int) -> HttpTraffic:
    headers, body = encode_request(request)
    address = f"127.0.0.1:{ours.server.ports['http']}"
    path = f"{model_path(request.model_name)}/infer"
    return HttpTraffic(address, path, (body,), tuple(headers.items()), connections)


def _ask(ours: Ours, request: pb.ModelInferRequest) -> float:
    """Milliseconds that an answer takes; inf where there is none."""
    began = time.monotonic()
    with Target(ours.server.address) as target:
        try:
            target.answer(request.SerializeToString())
        except LoadTestError:
            return float("inf")
    return (time.monotonic() - began) * 1e3


def _capacity(ours: Ours, busy: pb.ModelInferRequest) -> float:
    """Requests per second that are answered where sixteen are always in flight."""
    return play_queries_apart(
        _grpc(ours, busy, 1), seconds=_CALIBRATION_SECONDS, patience=_PATIENCE, samples=16
    ).achieved


def _recovery(ask: Callable[[], float], calm_ms: float) -> float:
    """Seconds until latency was as before: until the first of some requests in a row that were quick."""
    asked = time.monotonic()
    began, quick = asked, 0
    while quick < _CALM_REQUESTS and time.monotonic() < asked + _GIVE_UP_SECONDS:
        began = began if quick else time.monotonic()
        quick = quick + 1 if ask() <= calm_ms else 0
    return began - asked if quick == _CALM_REQUESTS else float("inf")


def _backlog_seconds(outcome: Outcome, seconds: float) -> float:
    """How long after the end of its schedule a flood had its last answer or refusal."""
    ended = outcome.ended[np.isfinite(outcome.ended)]
    return max(0.0, float(ended.max(initial=0.0)) - seconds)


def _wait_until_idle(ours: Ours) -> None:
    give_up = time.monotonic() + _GIVE_UP_SECONDS
    while read_page(ours).total("convoy_ledger_in_progress") and time.monotonic() < give_up:
        time.sleep(_SAMPLE_SECONDS)


def _lag_p99_ms(before: Page, after: Page) -> float:
    """The upper bound of the histogram's bucket that the 99th percentile is in."""
    name = "convoy_event_loop_lag_histogram_us_bucket"
    earlier = before.by(name, "le")
    counts = {float(bound): count - earlier.get(bound, 0.0) for bound, count in after.by(name, "le").items()}
    wanted = 0.99 * max(counts.values(), default=0.0)
    return min((bound for bound, count in counts.items() if count >= wanted), default=0.0) / 1e3


def _summary(outcome: Outcome) -> dict[str, float]:
    latencies = outcome.latencies_ms
    return {
        "sent": outcome.scheduled,
        "answered": int(outcome.answered.sum()),
        "refused_or_lost": outcome.refused,
        "without_an_answer": outcome.given_up,
        "p99_ms": float(latencies[int(0.99 * len(latencies))]) if len(latencies) else 0.0,
    }


def _probe_summary(probe: Probed) -> dict[str, object]:
    latencies = sorted(probe.latencies_ms)
    return {
        "asked": len(latencies),
        "failed": probe.failed,
        "p50_ms": latencies[len(latencies) // 2],
        "p99_ms": latencies[int(0.99 * len(latencies))],
        "max_ms": latencies[-1],
        "late_p99_ms": sorted(probe.late_ms)[int(0.99 * len(latencies))],
    }
