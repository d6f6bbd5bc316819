"""What a server's metrics page and cost page say of one model."""

from __future__ import annotations

import json
import re
import urllib.request
from dataclasses import dataclass

from loadtest.processes import Running

_FETCH_SECONDS = 10.0
_SAMPLE = re.compile(r"^(\w+)\{([^}]*)\} ([^ ]+)$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="([^"]*)"')


@dataclass(frozen=True)
class ModelMetrics:
    """Counters since the server started."""

    answers: float
    seconds: float
    """From arrival to answer, all answers together."""
    rows: float
    batches: float
    met: float
    """Answers within `slo_ms`; 0 for a model without it."""
    missed: float
    within_us: dict[float, float]
    """Answers within the upper bounds of the latency histogram."""

    def since(self, before: ModelMetrics) -> ModelMetrics:
        """What was counted between `before` and now."""
        return ModelMetrics(
            self.answers - before.answers,
            self.seconds - before.seconds,
            self.rows - before.rows,
            self.batches - before.batches,
            self.met - before.met,
            self.missed - before.missed,
            {bound: count - before.within_us[bound] for bound, count in self.within_us.items()},
        )


def read_metrics(server: Running, model: str) -> ModelMetrics:
    """From the metrics page."""
    text = _fetch(server.ports["metrics"], "metrics").decode()
    totals: dict[str, float] = {}
    within_us: dict[float, float] = {}
    for name, labels_text, value in _SAMPLE.findall(text):
        labels = dict(_LABEL.findall(labels_text))
        if labels.get("model") != model:
            continue
        if name == "nv_inference_request_duration_histogram_us_bucket":
            within_us[float(labels["le"])] = float(value)
        else:
            totals[name] = float(value)
    return ModelMetrics(
        answers=totals["nv_inference_request_success"],
        seconds=totals["nv_inference_request_duration_us"] / 1e6,
        rows=totals["nv_inference_count"],
        batches=totals["nv_inference_exec_count"],
        met=totals["convoy_objective_met_total"],
        missed=totals["convoy_objective_missed_total"],
        within_us=within_us,
    )


def batch_1_seconds(server: Running, model: str) -> float:
    """The median of the cost table's first line: a batch of one row."""
    page = json.loads(_fetch(server.ports["http"], f"v2/models/{model}/cost"))
    return float(page["buckets"][0]["p50_us"]) / 1e6


def _fetch(port: int, path: str) -> bytes:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=_FETCH_SECONDS) as page:
        body: bytes = page.read()
        return body
