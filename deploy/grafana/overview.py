"""Is it well? Rate, errors, latency, goodput and saturation of all models on one page."""

from __future__ import annotations

from grafana_foundation_sdk.models.dashboard import Dashboard

from deploy.grafana import panels
from deploy.grafana.layout import MODELS, ONE_MODEL, OVERVIEW, VERSIONS, Row, build
from deploy.grafana.panels import AnyPanel, Column, Limits, Query, figure, graph, grid
from deploy.grafana.promql import (
    BUSY,
    FAILED,
    MODEL,
    REQUEST_US,
    SERVER,
    SUCCESS,
    VERSION,
    highest,
    mean,
    quantile,
    rate,
    share,
    total,
)

# Failures of requests that name no loaded version have an empty version and an empty model.
FAILURES = rate(FAILED, MODEL)
MET = rate("convoy_deadline_met_total")
MISSED = rate("convoy_deadline_missed_total")


def dashboard() -> Dashboard:
    """The dashboard to begin with."""
    return build(
        OVERVIEW,
        "Convoy / Overview",
        "All models at a glance: what is asked, what fails, how long it takes, how full the server is.",
        [MODELS, VERSIONS],
        [
            Row("Now", _now()),
            Row("Traffic and failures", _traffic()),
            Row("Latency", _latency()),
            Row("Goodput", _goodput()),
            Row("Saturation", _saturation()),
            Row("gRPC", _grpc()),
            Row("HTTP", _http()),
            Row("Models and alerts", _tables()),
        ],
    )


def _now() -> list[AnyPanel]:
    return [
        figure(
            "Servers up",
            "Targets that Prometheus could scrape last time. Fewer than you run: see the alert ConvoyDown.",
            f"sum(up{{{SERVER}}})",
            limits=Limits(1, 1, falling=True),
        ),
        figure(
            "Versions not ready",
            "Known versions that do not serve. Not 0: the table at the bottom names them, the server's log says why.",
            f"sum(1 - convoy_model_ready{{{VERSION}}})",
            limits=Limits(1, 1),
        ),
        figure(
            "Requests",
            "Requests answered each second. 0 with callers there: look at failures and at gRPC's codes.",
            total(rate(SUCCESS)),
            panels.PER_SECOND,
        ),
        figure(
            "Failed",
            "Requests without a result, of all requests. High: the graph of reasons below says whose fault it is.",
            share(total(FAILURES), total(rate(SUCCESS))),
            panels.SHARE,
            limits=Limits(0.01, 0.05),
        ),
        figure(
            "p99",
            "99 of 100 answered requests took at most that long in the server. High: compare with the mean by phase.",
            quantile(0.99, REQUEST_US),
            panels.MICROSECONDS,
        ),
        figure(
            "Deadlines kept",
            "Requests with a deadline or objective that were answered in time. Low: shed load, or add instances.",
            share(total(MET), total(MISSED)),
            panels.SHARE,
            limits=Limits(0.99, 0.95, falling=True),
        ),
        figure(
            "Busiest instance",
            "Share of the time that the busiest instance of a model ran batches. Near 100 %: that model is full.",
            highest(rate(BUSY)),
            panels.SHARE,
            limits=Limits(0.8, 0.95),
        ),
        figure(
            "Oldest waiting",
            "How long the request that waits longest has waited. It should stay near the batching delay.",
            highest(f"convoy_queue_age_us{{{VERSION}}}"),
            panels.MICROSECONDS,
            limits=Limits(100_000, 1_000_000),
        ),
    ]


def _traffic() -> list[AnyPanel]:
    return [
        graph(
            "Requests answered",
            "Answers each second, by model. A fall without fewer callers: look at failures beside it.",
            Query(total(rate(SUCCESS), "model"), "{{model}}"),
            unit=panels.PER_SECOND,
        ),
        graph(
            "Failures by reason",
            "queue_full, overloaded, too_late: too much is asked. invalid, shape, oversize, unknown_model: the "
            "callers' requests are wrong. cancelled: they left. backend, out_of_memory: the model failed; see the log. "
            "not_ready, shutdown: the version did not serve.",
            Query(total(FAILURES, "reason"), "{{reason}}"),
            unit=panels.PER_SECOND,
            stacked=True,
        ),
        graph(
            "Failed, by model",
            "Share of each model's requests that got no result. One model only: open it in depth. "
            "All of them: the server or the callers.",
            Query(share(total(FAILURES, "model"), total(rate(SUCCESS), "model")), "{{model}}"),
            unit=panels.SHARE,
            limits=Limits(0.01, 0.05),
        ),
    ]


def _latency() -> list[AnyPanel]:
    phases = {
        "queue": "nv_inference_queue_duration_us",
        "fill the batch": "nv_inference_compute_input_duration_us",
        "model": "nv_inference_compute_infer_duration_us",
        "split the batch": "nv_inference_compute_output_duration_us",
    }
    return [
        graph(
            "Latency",
            "From arrival to answer, in the server. p99 rises alone: batches or the queue. All rise: the model or the "
            "machine is slower.",
            *(Query(quantile(q, REQUEST_US), f"p{q * 100:.0f}") for q in (0.5, 0.95, 0.99)),
            unit=panels.MICROSECONDS,
        ),
        graph(
            "p99 by model",
            "99 of 100 requests of the model took at most that long. Open the one that stands out in depth.",
            Query(quantile(0.99, REQUEST_US, "model"), "{{model}}"),
            unit=panels.MICROSECONDS,
        ),
        graph(
            "Where the time goes",
            "Mean time of a request in each phase. Mostly queue: more instances, or less delay. Mostly model: a faster "
            "model or device.",
            *(Query(f"{total(rate(name))} / {total(rate(SUCCESS))}", phase) for phase, name in phases.items()),
            unit=panels.MICROSECONDS,
            stacked=True,
        ),
    ]


def _goodput() -> list[AnyPanel]:
    objective_met, objective_missed = rate("convoy_objective_met_total"), rate("convoy_objective_missed_total")
    return [
        graph(
            "Goodput",
            "Requests with a deadline (the caller's, or the model's slo_ms): answered in time, and all others. "
            "Goodput that falls while requests rise means overload.",
            Query(total(MET), "in time"),
            Query(total(MISSED), "late or refused"),
            unit=panels.PER_SECOND,
            stacked=True,
        ),
        graph(
            "Deadlines kept, by model",
            "Share of the requests with a deadline that were answered in time. Below 99 %: alerts on goodput count.",
            Query(share(total(MET, "model"), total(MISSED, "model")), "{{model}}"),
            unit=panels.SHARE,
            limits=Limits(0.99, 0.95, falling=True),
            top=1,
        ),
        graph(
            "Objectives kept, by model",
            "Of the answers of models with slo_ms, the share that came within it. What was refused is not an answer. "
            "Low: predicted costs are wrong; see the model in depth.",
            Query(share(total(objective_met, "model"), total(objective_missed, "model")), "{{model}}"),
            unit=panels.SHARE,
            limits=Limits(0.99, 0.95, falling=True),
            top=1,
        ),
    ]


def _saturation() -> list[AnyPanel]:
    pending = f"nv_inference_pending_request_count{{{VERSION}}}"
    in_flight = f"nv_inference_in_flight_request_count{{{VERSION}}}"
    return [
        graph(
            "Instances busy, by model",
            "Share of the time that a model's instances ran batches. Above 80 %: queues grow from here on.",
            Query(mean(rate(BUSY), "model"), "{{model}}"),
            unit=panels.SHARE,
            limits=Limits(0.8, 0.95),
            top=1,
        ),
        graph(
            "Waiting and in flight",
            "Requests that wait for a batch, and all that are not answered yet. Waiting that grows steadily: more "
            "comes in than goes out.",
            Query(total(pending, "model"), "{{model}} waiting"),
            Query(total(in_flight, "model"), "{{model}} in flight"),
        ),
        graph(
            "Age of the oldest waiting request",
            "How long the head of each queue has waited. Far above the batching delay: overloaded, or stuck.",
            Query(highest(f"convoy_queue_age_us{{{VERSION}}}", "model"), "{{model}}"),
            unit=panels.MICROSECONDS,
        ),
    ]


def _grpc() -> list[AnyPanel]:
    started, handled = rate("grpc_server_started_total", SERVER), rate("grpc_server_handled_total", SERVER)
    return [
        graph(
            "Calls by method",
            "Calls that began, each second. `unknown` is a path that does not exist: a client of another service.",
            Query(total(started, "grpc_method"), "{{grpc_method}}"),
            unit=panels.RATE,
        ),
        graph(
            "Calls by status",
            "Calls that ended. Unavailable, ResourceExhausted: overload, or not ready. InvalidArgument, NotFound: the "
            "callers. Canceled, DeadlineExceeded: callers who do not wait. Internal: the model or the server.",
            Query(total(handled, "grpc_code"), "{{grpc_code}}"),
            unit=panels.RATE,
            stacked=True,
        ),
        graph(
            "Connections",
            "Open connections, and new ones each second. Many new ones: clients that connect for each call; they "
            "should keep a channel.",
            Query(total(f"convoy_grpc_connections{{{SERVER}}}"), "open"),
            Query(total(rate("convoy_grpc_connections_opened_total", SERVER)), "new each second"),
        ),
    ]


def _http() -> list[AnyPanel]:
    requests = rate("convoy_http_requests_total", SERVER)
    return [
        graph(
            "Requests by route",
            "Requests that ended, each second. `unknown` is a path that does not exist, a wrong verb, or no HTTP.",
            Query(total(requests, "route"), "{{route}}"),
            unit=panels.RATE,
        ),
        graph(
            "Requests by status",
            "Requests that ended. 503, 429: overload, or not ready. Other 4xx: the callers. `gone`: they do not wait. "
            "500: the model or the server.",
            Query(total(requests, "status"), "{{status}}"),
            unit=panels.RATE,
            stacked=True,
        ),
        graph(
            "HTTP connections",
            "Open connections, and new ones each second. Many new ones: clients that connect for each request; they "
            "should keep them.",
            Query(total(f"convoy_http_connections{{{SERVER}}}"), "open"),
            Query(total(rate("convoy_http_connections_opened_total", SERVER)), "new each second"),
        ),
    ]


def _tables() -> list[AnyPanel]:
    by = "model, version"
    return [
        grid(
            "Models",
            "Every version that the servers know. READY counts the servers on which it serves. A click opens the model "
            "in depth.",
            [
                Column("READY", total(f"convoy_model_ready{{{VERSION}}}", by), limits=Limits(1, 1, falling=True)),
                Column("requests/s", total(rate(SUCCESS), by), panels.PER_SECOND),
                Column("rows/batch", f"{_sum('nv_inference_count', by)} / {_sum('nv_inference_exec_count', by)}"),
                Column("p99", quantile(0.99, REQUEST_US, by), panels.MICROSECONDS),
                Column("busy", mean(rate(BUSY), by), panels.SHARE, Limits(0.8, 0.95)),
            ],
            labels={"model": "model", "version": "version"},
            span=16,
            link=("The model in depth", f"/d/{ONE_MODEL}?var-model=${{__data.fields.model}}&${{__url_time_range}}"),
        ),
        grid(
            "Alerts",
            "What fires, or is about to (pending). Each alert has a section in docs/operations.md: what to do.",
            [Column("alerts", 'count by (alertname, severity, alertstate) (ALERTS{alertname=~"Convoy.*"})')],
            labels={"alertname": "alert", "severity": "severity", "alertstate": "state"},
            span=8,
        ),
    ]


def _sum(name: str, by: str) -> str:
    return total(rate(name), by)
