"""One model in depth: how it batches, where its time goes, what its batches cost, what it refuses."""

from __future__ import annotations

from grafana_foundation_sdk.models.dashboard import Dashboard

from deploy.grafana import panels
from deploy.grafana.layout import MODEL_INSTANCE, ONE_MODEL, THE_MODEL, VERSIONS, Row, build
from deploy.grafana.panels import AnyPanel, Column, Limits, Query, figure, graph, grid, heat
from deploy.grafana.promql import (
    BUSY,
    FAILED,
    MODEL,
    REQUEST_US,
    SERVER,
    SUCCESS,
    VERSION,
    buckets,
    highest,
    mean,
    quantile,
    rate,
    share,
    total,
)

QUEUE_US = "nv_inference_queue_duration_us"
PHASES = {
    "queue": "nv_inference_queue_duration",
    "fill the batch": "nv_inference_compute_input_duration",
    "model": "nv_inference_compute_infer_duration",
    "split the batch": "nv_inference_compute_output_duration",
}
ROWS, BATCHES = total(rate("nv_inference_count")), total(rate("nv_inference_exec_count"))
INSTANCES = f'{VERSION}, model_instance=~"$model_instance"'
COST = f"convoy_batch_cost_us{{{VERSION}}}"
FROM_PREDICTED = "convoy_batch_predicted_duration_us_total"


def dashboard() -> Dashboard:
    """The dashboard of a single model."""
    return build(
        ONE_MODEL,
        "Convoy / One model in depth",
        "How one model batches, where its requests' time goes, what batches cost, and what is refused.",
        [THE_MODEL, VERSIONS, MODEL_INSTANCE],
        [
            Row("Now", _now()),
            Row("Batching", _batching()),
            Row("Latency", _latency()),
            Row("Costs", _costs()),
            Row("Queue and refusals", _refusals()),
            Row("Goodput", _goodput()),
            Row("Instances and loading", _instances()),
        ],
    )


def _now() -> list[AnyPanel]:
    return [
        figure(
            "Versions READY",
            "Versions of the model that serve, over all servers. 0: nobody answers; see the server's log.",
            f"sum(convoy_model_ready{{{VERSION}}})",
            limits=Limits(1, 1, falling=True),
        ),
        figure(
            "Requests",
            "Requests answered each second. 0 under load: see refusals.",
            total(rate(SUCCESS)),
            panels.PER_SECOND,
        ),
        figure("Rows", "Rows inferred each second: requests times their rows.", ROWS, panels.RATE),
        figure(
            "p50",
            "Half of the answered requests took at most that long. It rises with the load: the queue.",
            quantile(0.5, REQUEST_US),
            panels.MICROSECONDS,
        ),
        figure(
            "p99",
            "99 of 100 answered requests took at most that long. Compare with slo_ms and with the callers' deadlines.",
            quantile(0.99, REQUEST_US),
            panels.MICROSECONDS,
        ),
        figure(
            "Rows per batch",
            "Mean rows of a batch. 1 under load: batching is off, or requests cannot share batches (shapes differ).",
            f"{ROWS} / {BATCHES}",
        ),
        figure(
            "Queue share",
            "Share of the requests' time that was spent waiting. Above a half: more instances help more than a faster "
            "model.",
            f"{total(rate(QUEUE_US))} / {total(rate('nv_inference_request_duration_us'))}",
            panels.SHARE,
            limits=Limits(0.5, 0.9),
        ),
        figure(
            "Deadlines kept",
            "Requests with a deadline or objective that were answered in time. Low: see queue share and refusals.",
            share(total(rate("convoy_deadline_met_total")), total(rate("convoy_deadline_missed_total"))),
            panels.SHARE,
            limits=Limits(0.99, 0.95, falling=True),
        ),
    ]


def _batching() -> list[AnyPanel]:
    return [
        heat(
            "Batch sizes",
            "How many batches had how many rows. All at 1: nothing is gathered; allow a delay or fewer instances. All "
            "at the top: larger batches may pay, see Costs.",
            buckets("nv_inference_batch_size_histogram"),
            panels.NUMBER,
        ),
        graph(
            "Rows per batch",
            "Mean rows of a batch, and what a batch may hold: max_batch_size, or less after memory ran out. A limit "
            "that fell: give the model less, or the machine more memory.",
            Query(
                f"{total(rate('nv_inference_count'), 'version')} / {total(rate('nv_inference_exec_count'), 'version')}",
                "version {{version}}",
            ),
            Query(f"min by (version) (convoy_max_batch_rows{{{VERSION}}})", "limit of version {{version}}"),
            span=6,
        ),
        graph(
            "Rows and batches",
            "Rows and batches each second. Batches that rise faster than rows: they get smaller and dearer.",
            Query(ROWS, "rows"),
            Query(BATCHES, "batches"),
            unit=panels.RATE,
            span=6,
        ),
    ]


def _latency() -> list[AnyPanel]:
    return [
        heat(
            "Latency",
            "How many requests took how long, from arrival to answer. Two bands: two kinds of requests, or of batches.",
            buckets(REQUEST_US),
            panels.MICROSECONDS,
        ),
        graph(
            "Quantiles",
            "From arrival to answer. p99 far from p95: single slow batches; see taken by predicted time.",
            *(Query(quantile(q, REQUEST_US), f"p{q * 100:.0f}") for q in (0.5, 0.95, 0.99)),
            unit=panels.MICROSECONDS,
            span=12,
        ),
        graph(
            "p99 by phase",
            "99 of 100 requests spent at most that long in the phase. The highest is the one to work on.",
            *(Query(quantile(0.99, f"{name}_histogram_us"), phase) for phase, name in PHASES.items()),
            unit=panels.MICROSECONDS,
        ),
        graph(
            "Mean by phase",
            "Where an average request spends its time. Filling and splitting that show: tensors are large; send fewer "
            "bytes, or UINT8.",
            *(Query(f"{total(rate(f'{name}_us'))} / {total(rate(SUCCESS))}", phase) for phase, name in PHASES.items()),
            unit=panels.MICROSECONDS,
            stacked=True,
        ),
        graph(
            "Queue share",
            "Share of the requests' time that was spent waiting. Rising with the rate: the model nears its limit.",
            Query(
                f"{total(rate(QUEUE_US), 'version')} / {total(rate('nv_inference_request_duration_us'), 'version')}",
                "version {{version}}",
            ),
            unit=panels.SHARE,
            top=1,
        ),
    ]


def _costs() -> list[AnyPanel]:
    by = "version, rows"
    median, worst = (COST.replace("}", f', quantile="{q}"}}') for q in ("0.5", "0.99"))
    predicted, taken = rate(FROM_PREDICTED), rate("convoy_batch_duration_us_total")
    ratio = "convoy_batch_duration_ratio_histogram"
    return [
        grid(
            "Cost table",
            "What a batch of so many rows takes, as measured: the slowest server of those chosen. Twice the rows for "
            "much less than twice the time: larger batches pay.",
            [
                Column("p50", highest(median, by), panels.MICROSECONDS),
                Column("p99", highest(worst, by), panels.MICROSECONDS),
            ],
            labels={"version": "version", "rows": "rows"},
            numbers="rows",
            span=8,
        ),
        graph(
            "Cost by rows",
            "The median time of a batch, by its rows. A step: another load on the machine, or a lower clock.",
            Query(highest(median, "rows"), "{{rows}} rows"),
            unit=panels.MICROSECONDS,
        ),
        graph(
            "Taken by predicted",
            "Time that batches took, by the time they were predicted to take. Near 1: objectives are kept. Far above 1 "
            "for long: something else runs on these cores.",
            Query(f"{total(taken, 'version')} / {total(predicted, 'version')}", "mean, version {{version}}"),
            Query(quantile(0.99, ratio), "p99"),
            limits=Limits(1.5, 2),
        ),
        heat(
            "Taken by predicted, batch by batch",
            "How the ratio is spread. A second band above 1: some batches wait for a core, or for a turn.",
            buckets(ratio),
            panels.NUMBER,
            span=24,
        ),
    ]


def _refusals() -> list[AnyPanel]:
    refused = f'{MODEL}, reason=~"queue_full|overloaded|too_late|not_ready|shutdown|out_of_memory"'
    other = f'{MODEL}, reason!~"queue_full|overloaded|too_late|not_ready|shutdown|out_of_memory"'
    return [
        graph(
            "Waiting and in flight",
            "Requests that wait for a batch, and all not answered yet. Waiting that grows: more comes than is done.",
            Query(f"sum(nv_inference_pending_request_count{{{VERSION}}})", "waiting"),
            Query(f"sum(nv_inference_in_flight_request_count{{{VERSION}}})", "in flight"),
            span=6,
        ),
        graph(
            "Age of the oldest",
            "How long the head of the queue has waited. It saws up to the batching delay when all is well.",
            Query(highest(f"convoy_queue_age_us{{{VERSION}}}", "instance"), "{{instance}}"),
            unit=panels.MICROSECONDS,
            span=6,
        ),
        graph(
            "Refusals by reason",
            "Requests turned away although nothing was wrong with them. queue_full, overloaded, too_late: add "
            "instances, or let callers back off.",
            Query(total(rate(FAILED, refused), "reason"), "{{reason}}"),
            unit=panels.PER_SECOND,
            stacked=True,
            span=6,
        ),
        graph(
            "Other failures",
            "invalid, shape, oversize: fix the caller; the status's message says what. backend: see the log. The same "
            "under Triton's four reasons, in capitals.",
            Query(total(rate(FAILED, other), "reason"), "{{reason}}"),
            Query(total(rate("nv_inference_request_failure"), "reason"), "{{reason}}"),
            unit=panels.PER_SECOND,
            span=6,
        ),
    ]


def _goodput() -> list[AnyPanel]:
    return [
        graph(
            "Deadlines",
            "Requests with a deadline or objective: answered in time, and late, expired or refused.",
            Query(total(rate("convoy_deadline_met_total")), "in time"),
            Query(total(rate("convoy_deadline_missed_total")), "late or refused"),
            unit=panels.PER_SECOND,
            stacked=True,
            span=12,
        ),
        graph(
            "Objective",
            "Answers within slo_ms, and later ones. Empty without an objective.",
            Query(total(rate("convoy_objective_met_total")), "within"),
            Query(total(rate("convoy_objective_missed_total")), "later"),
            unit=panels.PER_SECOND,
            stacked=True,
            span=12,
        ),
    ]


def _instances() -> list[AnyPanel]:
    loads = (f"convoy_model_load_{outcome}_total" for outcome in ("success", "failure"))
    return [
        graph(
            "Instances busy",
            "Share of the time that each instance ran batches. All near 100 %: add instances if cores are idle (see "
            "Capacity). One busier than the others is normal: the first idle one is taken.",
            Query(mean(rate(BUSY, INSTANCES), "model_instance"), "instance {{model_instance}}"),
            unit=panels.SHARE,
            limits=Limits(0.8, 0.95),
            top=1,
            span=6,
        ),
        graph(
            "Waiting for a turn",
            "Batches' time in line for the processor, by time that passes: 1 is one batch always in line. High: too "
            "many models share these cores.",
            Query(f"{total(rate('convoy_turn_wait_duration_us_total'))} / 1e6", "batches in line"),
            span=6,
        ),
        graph(
            "Failed runs and reloads",
            "Runs of the model that failed or were stopped for taking too long, those that could not be stopped, and "
            "loads of the version because of that. Any: read the log.",
            Query(total(rate("convoy_failed_runs_total")), "failed runs each second"),
            Query(total(rate("convoy_run_timeouts_total")), "stopped runs each second"),
            Query(f"sum(convoy_hung_runs{{{VERSION}}})", "hung runs"),
            Query(f"sum(convoy_model_reloads_total{{{VERSION}}})", "reloads so far"),
            span=6,
        ),
        graph(
            "Loading",
            "How long the version took to load, and how often loading has succeeded and failed. A failure: the "
            "repository's index and the log say why. Repositories unseen: nothing of them changes until they are back.",
            Query(highest(f"nv_model_load_duration_secs{{{VERSION}}}", "version"), "seconds, version {{version}}"),
            *(Query(f"sum({name}{{{MODEL}}})", name.split("_")[3]) for name in loads),
            Query(f"sum(convoy_repositories_unseen{{{SERVER}}})", "repositories unseen"),
            span=6,
        ),
    ]
