"""How much more fits? Busy shares, batches' fill, headroom, and what the process takes of the machine."""

from __future__ import annotations

from grafana_foundation_sdk.models.dashboard import Dashboard

from deploy.grafana import panels
from deploy.grafana.layout import CAPACITY, MODELS, VERSIONS, Row, build
from deploy.grafana.panels import AnyPanel, Column, Limits, Query, figure, graph, grid
from deploy.grafana.promql import BUSY, SERVER, SUCCESS, VERSION, highest, mean, quantile, rate, total

EACH = "job, instance, model, version"
LAG = "convoy_event_loop_lag_histogram_us"

IN_FLIGHT = f"nv_inference_in_flight_request_count{{{VERSION}}}"
CPU = rate("process_cpu_seconds_total", SERVER)
LIMIT = f"convoy_max_batch_rows{{{VERSION}}}"
FILL = f"{total(rate('nv_inference_count'), EACH)} / {total(rate('nv_inference_exec_count'), EACH)}"
# `rows` is a label of costs and a value of the limit; count_values turns the one into the other, so that the cost of a
# full batch can be picked.
FULL_COST_US = (
    f'max by ({EACH}) (convoy_batch_cost_us{{{VERSION}, quantile="0.5"}} '
    f'and on ({EACH}, rows) count_values by ({EACH}) ("rows", {LIMIT}))'
)
INSTANCES = f"count by ({EACH}) ({BUSY}{{{VERSION}}})"
FULL_ROWS = f"1e6 * max by ({EACH}) ({LIMIT}) / ({FULL_COST_US}) * ({INSTANCES})"
"""Rows a second that all instances together would infer, if every batch were full and each had a core."""


def dashboard() -> Dashboard:
    """The dashboard to plan by."""
    return build(
        CAPACITY,
        "Convoy / Capacity",
        "How much more fits: instances, batches, processors, memory, connections.",
        [MODELS, VERSIONS],
        [
            Row("Now", _now()),
            Row("Models", _models()),
            Row("Processors", _processors()),
            Row("Memory and connections", _memory()),
            Row("Servers", [_servers()]),
        ],
    )


def _now() -> list[AnyPanel]:
    return [
        figure(
            "Headroom",
            "What is idle of the busiest model's instances. Below 20 %: time for more, see docs/scaling.md.",
            f"1 - {highest(mean(rate(BUSY), 'instance, model'))}",
            panels.SHARE,
            limits=Limits(0.2, 0.05, falling=True),
        ),
        figure(
            "Batch fill",
            "Rows per batch, of what a batch may hold, mean of the models. Low while instances are busy: see the alert "
            "ConvoyBatchingInefficient.",
            f"avg(({FILL}) / on ({EACH}) group_left () ({LIMIT}))",
            panels.SHARE,
        ),
        figure(
            "Cores in use",
            "Processors that the servers use, in all. Compare with what they were given.",
            total(CPU),
        ),
        figure(
            "Machine's processors",
            "Use of the busiest machine's processors, everybody's. Near 100 %: instances only share what there is.",
            highest(f"nv_cpu_utilization{{{SERVER}}}"),
            panels.SHARE,
            limits=Limits(0.85, 0.95),
        ),
        figure(
            "Machine's memory",
            "Use of the fullest machine's main memory. Above 90 %: fewer models or instances, or a larger machine.",
            highest(f"nv_cpu_memory_used_bytes{{{SERVER}}} / nv_cpu_memory_total_bytes{{{SERVER}}}"),
            panels.SHARE,
            limits=Limits(0.8, 0.9),
        ),
        figure(
            "Event loop's lag, p99",
            "How late the server's own thread is. Above 10 ms, all requests feel it: see the alert ConvoyEventLoopLag.",
            quantile(0.99, LAG, where=SERVER),
            panels.MICROSECONDS,
            limits=Limits(10_000, 50_000),
        ),
        figure(
            "In flight",
            "Requests admitted and not answered yet. Times a request's size, this is memory.",
            total(IN_FLIGHT),
        ),
        figure(
            "Files open",
            "Files and sockets of the fullest server, of what it may open. Near 100 %: raise the limit (ulimit -n).",
            highest(f"process_open_fds{{{SERVER}}} / process_max_fds{{{SERVER}}}"),
            panels.SHARE,
            limits=Limits(0.7, 0.9),
        ),
    ]


def _models() -> list[AnyPanel]:
    return [
        graph(
            "Instances busy",
            "Share of the time that each model's instances ran batches, by server. Even over servers: balanced. "
            "Uneven: clients do not balance, see docs/scaling.md.",
            Query(mean(rate(BUSY), "instance, model"), "{{model}} on {{instance}}"),
            unit=panels.SHARE,
            limits=Limits(0.8, 0.95),
            top=1,
        ),
        graph(
            "Batch efficiency",
            "Rows per batch, of what a batch may hold. Low and busy: allow a delay, or take instances away. Low and "
            "idle: fine, nobody waits.",
            Query(f"avg by (model) (({FILL}) / on ({EACH}) group_left () ({LIMIT}))", "{{model}}"),
            unit=panels.SHARE,
            top=1,
        ),
        graph(
            "Rows now, by rows possible",
            "Rows inferred, of what all instances could infer in full batches, by the cost table, with a core for each "
            "instance. It is a ceiling: instances that share cores reach less.",
            Query(f"{total(rate('nv_inference_count'), 'model')} / {total(FULL_ROWS, 'model')}", "{{model}}"),
            unit=panels.SHARE,
            limits=Limits(0.6, 0.8),
        ),
        graph(
            "Requests in flight",
            "Requests admitted and not answered yet, by model. Times the size of a request, this is memory.",
            Query(total(IN_FLIGHT, "model"), "{{model}}"),
            span=12,
        ),
        graph(
            "Turns",
            "Batches that run, and how many may at once (--max-running-batches), of each server. At the limit all the "
            "time: models wait for each other.",
            Query(f"convoy_running_batch_count{{{SERVER}}}", "running on {{instance}}"),
            Query(f"convoy_running_batch_limit{{{SERVER}}} < Inf", "limit of {{instance}}"),
            Query(f"{total(rate('convoy_turn_wait_duration_us_total'), 'instance')} / 1e6", "in line on {{instance}}"),
            span=12,
        ),
    ]


def _processors() -> list[AnyPanel]:
    return [
        graph(
            "Cores in use",
            "Processors that each server uses. At its limit (cgroup, affinity) and instances busy: more cores.",
            Query(total(CPU, "instance"), "{{instance}}"),
        ),
        graph(
            "CPU time per request",
            "Processor time for one answered request, everything included. It rises: batches got smaller, or requests "
            "larger.",
            Query(
                f"1e6 * {total(CPU, 'instance')} / {total(rate(SUCCESS), 'instance')}",
                "{{instance}}",
            ),
            unit=panels.MICROSECONDS,
        ),
        graph(
            "Event loop's lag",
            "How late timers fire on the server's own thread. High: it is out of CPU, or decodes very large requests.",
            *(Query(quantile(q, LAG, "instance", SERVER), f"p{q * 100:.0f} {{{{instance}}}}") for q in (0.5, 0.99)),
            unit=panels.MICROSECONDS,
            limits=Limits(10_000, 50_000),
        ),
        graph(
            "Garbage collections",
            "How long Python's collections stop the server, p99. They should not show beside the event loop's lag.",
            Query(quantile(0.99, "convoy_gc_pause_histogram_us", "instance", SERVER), "p99 {{instance}}"),
            unit=panels.MICROSECONDS,
        ),
        graph(
            "Machine's processors",
            "Use of the machine's processors, everybody's. Higher than the server's own: somebody else runs there.",
            Query(f"nv_cpu_utilization{{{SERVER}}}", "{{instance}}"),
            unit=panels.SHARE,
            limits=Limits(0.85, 0.95),
            top=1,
        ),
        graph(
            "Threads",
            "Threads of each server: of ONNX Runtime, instances and pictures. They grow when models load, only then.",
            Query(f"convoy_process_threads{{{SERVER}}}", "{{instance}}"),
        ),
    ]


def _memory() -> list[AnyPanel]:
    moved = [
        Query(total(rate(f"convoy_{name}_{way}_bytes_total", SERVER), "instance"), f"{what} {way}, {{{{instance}}}}")
        for what, name in (("gRPC", "grpc"), ("HTTP", "http"))
        for way in ("received", "sent")
    ]
    return [
        graph(
            "Server's memory",
            "Resident memory. Steps are models that load; a steady rise is worth a report.",
            Query(f"process_resident_memory_bytes{{{SERVER}}}", "{{instance}}"),
            unit=panels.BYTES,
            span=8,
        ),
        graph(
            "Machine's memory",
            "In use, and all that there is. Where the lines meet, the kernel kills: see the alert ConvoyHostMemory.",
            Query(f"nv_cpu_memory_used_bytes{{{SERVER}}}", "used, {{instance}}"),
            Query(f"nv_cpu_memory_total_bytes{{{SERVER}}}", "total, {{instance}}"),
            unit=panels.BYTES,
            span=8,
        ),
        graph(
            "Memory of requests",
            "What requests and answers hold, and may hold (--memory-budget). At the budget, more are refused: give "
            "them more memory, or look for callers that do not read.",
            Query(f"convoy_memory_used_bytes{{{SERVER}}}", "used, {{instance}}"),
            Query(f"convoy_memory_budget_bytes{{{SERVER}}}", "budget, {{instance}}"),
            Query(rate("convoy_memory_refused_total", SERVER), "refused, {{instance}}"),
            unit=panels.BYTES,
            span=8,
        ),
        graph(
            "Bytes on connections",
            "Received and sent each second. Near the network's limit: send UINT8 or encoded pictures, not FP32.",
            *moved,
            unit=panels.BYTES_PER_SECOND,
            span=12,
        ),
        graph(
            "Connections",
            "Open gRPC connections of each server. All on one of several: clients or the balancer stick to it.",
            Query(f"convoy_grpc_connections{{{SERVER}}}", "{{instance}}"),
            span=12,
        ),
    ]


def _servers() -> AnyPanel:
    labels = "instance, version, onnxruntime, grpc_engine"
    build = f"* on (job, instance) group_right () convoy_build_info{{{SERVER}}}"
    return grid(
        "Servers",
        "What runs where. gRPC engine grpcio costs much more CPU than nghttp2: the log says why it was taken.",
        [
            Column("build", f"max by ({labels}) (convoy_build_info{{{SERVER}}})"),
            Column(
                "up for",
                f"max by ({labels}) ((time() - process_start_time_seconds{{{SERVER}}}) {build})",
                panels.SECONDS,
            ),
            Column("files open", f"max by ({labels}) (process_open_fds{{{SERVER}}} {build})"),
        ],
        labels={
            "instance": "server",
            "version": "version",
            "onnxruntime": "ONNX Runtime",
            "grpc_engine": "gRPC engine",
        },
    )
