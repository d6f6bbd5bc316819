"""Dashboards and rules, asked of a real Prometheus that scrapes a loaded server.

Every expression of every panel, every variable and every rule must find data of the shape that its panel draws. GPUs
are synthetic: the same Prometheus scrapes a page with the families of two that are not there.
"""

from __future__ import annotations

import itertools
import json
import math
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from deploy.grafana.picture import COLUMN_PIXELS
from deploy.grafana.prometheus import ALL, PanelView, Prometheus, Series, Target, choice, fill_in, panels_of
from server.metrics.machine import Machine
from server.metrics.snapshots import GpuSnapshot
from tests.promql import without_threshold
from tests.real.conftest import ROOT, start
from tests.real.monitored import JOB, MISSING, PROGRAM, prometheus, traffic, write_repository
from tests.real.waiting import wait_until

pytestmark = pytest.mark.skipif(PROGRAM is None, reason=MISSING)

DASHBOARDS = {path.stem: json.loads(path.read_text()) for path in (ROOT / "deploy/grafana/dashboards").glob("*.json")}
SCRAPES = 6
RATE_INTERVAL = "10s"
SCRAPES_SECONDS = 60
ANSWER_SECONDS = 20
"""How long a question may be without an answer: some things happen a second later than others."""

UUIDS = ("GPU-0", "GPU-1")


class TwoGpus(Collector):
    """The page of a machine with two GPUs that take 100 J from scrape to scrape."""

    def __init__(self) -> None:
        self._joules = itertools.count(0, 100)
        self._machine = Machine(time.monotonic, interval=0, cpu=False, gpus=self._read)

    def _read(self) -> list[GpuSnapshot]:
        joules = next(self._joules)
        return [GpuSnapshot(uuid, 0.5, 80 << 30, 20 << 30, 100.0, 700.0, joules) for uuid in UUIDS]

    def collect(self) -> Iterator[Metric]:
        return self._machine.families()


@contextmanager
def gpu_machine() -> Iterator[str]:
    """Serves the page; the address."""
    registry = CollectorRegistry()
    registry.register(TwoGpus())
    server, thread = start_http_server(0, "127.0.0.1", registry)
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@dataclass(frozen=True)
class Watched:
    """A Prometheus that has scraped a while, and what it scrapes."""

    prometheus: Prometheus
    servers: list[str]

    def chosen(self, dashboard: str) -> dict[str, str]:
        """Values of all variables, as if each had been chosen by hand."""
        return {
            "job": JOB,
            "instance": choice(self.servers),
            "model": "digits",
            "version": choice(["1"]),
            "model_instance": choice(["0", "1"]),
            "gpu": choice(UUIDS),
        }


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    repository = write_repository(tmp_path_factory.mktemp("models"))
    server = start(tmp_path_factory.mktemp("server"), "--metrics-interval-ms=500", model_repository=repository)
    address = f"127.0.0.1:{server.ports['metrics']}"
    with ExitStack() as stack:
        stack.callback(server.terminate)
        servers = [address, stack.enter_context(gpu_machine())]
        asked = stack.enter_context(prometheus(tmp_path_factory.mktemp("prometheus"), servers))
        stack.enter_context(traffic(server))
        enough = f'count(count_over_time(up{{job="{JOB}"}}[1m]) >= {SCRAPES})'
        wait_until(lambda: [series.values[0] for series in asked.query(enough)] == [len(servers)], SCRAPES_SECONDS)
        yield Watched(asked, servers)
    assert server.terminate() == 0, server.log.read_text()


def targets() -> Iterator[Any]:
    for name, dashboard in sorted(DASHBOARDS.items()):
        for panel in panels_of(dashboard):
            for target in panel.targets:
                yield pytest.param(name, panel, target, id=f"{name}: {panel.title}: {target.legend}")


def data(watched: Watched, expression: str, *, complete: bool = False) -> list[Series]:
    """What Prometheus answers, as soon as it has numbers; `complete`: for every series that it names."""
    found: list[Series] = []

    def answered() -> bool:
        series = watched.prometheus.query(expression)
        found[:] = [one for one in series if math.isfinite(one.values[0])]
        return bool(found) and (not complete or len(found) == len(series))

    try:
        wait_until(answered, ANSWER_SECONDS)
    except TimeoutError:
        pytest.fail(f"no data: {expression}")
    return found


def assert_shape(panel: PanelView, target: Target, found: list[Series]) -> None:
    """The answer is what a panel of this kind draws."""
    labels = set(re.findall(r"\{\{(\w+)\}\}", target.legend))
    assert all(labels <= set(series.labels) for series in found), "the legend names labels that are not there"
    if panel.kind == "stat":
        assert len(found) == 1, "one number is shown"
    elif panel.kind == "heatmap":
        bounds = sorted((float(series.labels["le"]), series.values[0]) for series in found)
        counts = [count for _, count in bounds]
        assert len(bounds) > 2 and bounds[-1][0] == math.inf
        assert counts == sorted(counts) and counts[-1] > 0
    elif panel.kind == "table":
        columns = {label for label in panel.columns() if not label.startswith("Value")}
        assert all(set(series.labels) == columns for series in found), "a row is told from others by all of its labels"
    else:
        names = [target.name(series) for series in found]
        assert len(set(names)) == len(names), f"two lines have one name: {names}"


@pytest.mark.parametrize(("name", "panel", "target"), list(targets()))
def test_every_panel_finds_data_of_its_shape(name: str, panel: PanelView, target: Target, watched: Watched) -> None:
    everything = dict.fromkeys(watched.chosen(name), ALL)
    if name == "model":  # of which exactly one is chosen
        everything["model"] = "digits"
    found = data(watched, fill_in(target.expr, everything, RATE_INTERVAL))
    assert_shape(panel, target, found)
    # The model that is chosen is asked all the time, so that each of its series has a number.
    chosen = data(watched, fill_in(target.expr, watched.chosen(name), RATE_INTERVAL), complete=True)
    assert_shape(panel, target, chosen)
    assert {series.labels["model"] for series in chosen if "model" in series.labels} <= {"digits"}


@pytest.mark.parametrize("name", sorted(DASHBOARDS))
def test_variables_offer_what_there_is(name: str, watched: Watched) -> None:
    chosen = watched.chosen(name)
    queries: Mapping[str, str] = {
        variable["name"]: variable["query"]
        for variable in DASHBOARDS[name]["templating"]["list"]
        if variable["type"] == "query"
    }
    assert set(queries) <= set(chosen)
    offered = {
        variable: watched.prometheus.label_values(fill_in(query, chosen, RATE_INTERVAL))
        for variable, query in queries.items()
    }
    assert offered["job"] == [JOB]
    assert offered["instance"] == watched.servers[:1]
    expected = {"version": ["1"], "model_instance": ["0", "1"], "gpu": list(UUIDS)}
    assert {key: values for key, values in offered.items() if key in expected} == {
        key: expected[key] for key in offered if key in expected
    }
    if "model" in offered:
        assert {"digits", "slow", "broken"} <= set(offered["model"])


def loaded_rules(watched: Watched) -> list[dict[str, Any]]:
    groups = watched.prometheus.get("rules")["groups"]
    return [rule for group in groups for rule in group["rules"]]


def test_rules_are_evaluated_without_an_error(watched: Watched) -> None:
    rules = loaded_rules(watched)
    assert [rule["name"] for rule in rules if rule["health"] == "err" or rule.get("lastError")] == []
    assert {rule["type"] for rule in rules} == {"alerting", "recording"}


def test_recorded_series_have_data(watched: Watched) -> None:
    recorded = [rule["name"] for rule in loaded_rules(watched) if rule["type"] == "recording"]
    assert recorded
    for name in recorded:
        found = data(watched, name)
        assert all(
            0 <= series.values[0] <= 1 and set(series.labels) == {"__name__", "job", "model"} for series in found
        )


def test_what_alerts_compare_has_data(watched: Watched) -> None:
    alerts = {rule["name"]: rule["query"] for rule in loaded_rules(watched) if rule["type"] == "alerting"}
    assert alerts
    for expression in alerts.values():
        assert {series.values[0] for series in data(watched, without_threshold(expression))} <= {0.0, 1.0}


def test_a_model_that_cannot_be_loaded_is_on_its_way_to_an_alert(watched: Watched) -> None:
    alerts = watched.prometheus.get("alerts")["alerts"]
    about = [alert for alert in alerts if alert["labels"]["alertname"] == "ConvoyModelNotReady"]
    assert [(alert["labels"]["model"], alert["state"]) for alert in about] == [("broken", "pending")]
    assert about[0]["annotations"]["summary"] == f"broken does not serve on {watched.servers[0]}."


def test_no_answer_is_lost_on_the_way_to_the_dashboard(watched: Watched) -> None:
    """Failures that the traffic causes are there by their reasons."""
    found = data(watched, f'sum by (reason) (convoy_request_failed_total{{instance="{watched.servers[0]}"}}) > 0')
    reasons = {series.labels["reason"] for series in found}
    expected = {"queue_full", "too_late", "invalid", "shape", "oversize", "cancelled", "backend", "unknown_model"}
    assert reasons >= expected


def test_a_dashboard_is_drawn_without_grafana(watched: Watched, tmp_path: Path) -> None:
    chosen = ("--set=model=digits", f"--rate-interval={RATE_INTERVAL}", "--minutes=0.2")
    where = f"--prometheus={watched.prometheus.url}"
    command = [sys.executable, "-m", "deploy.grafana.picture", where, *chosen, "model", str(tmp_path / "model.png")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    with Image.open(tmp_path / "model.png") as image:
        width, height = image.size
        assert (image.format, width) == ("PNG", 24 * COLUMN_PIXELS) and height > width
        assert len(image.getcolors() or []) > 32, "lines and heatmaps have colours"
