"""The committed dashboards and alerts: current, about metrics that exist, and explained."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.grafana import generate
from deploy.grafana.prometheus import PanelView, panels_of
from server.metrics.machine import Machine
from server.metrics.page import MetricsPage
from server.metrics.snapshots import Snapshot, TransportSnapshot
from server.metrics_config import MetricsConfig
from tests.programs import find_program
from tests.promql import metric_names, without_suffix

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy/prometheus"
FILES = sorted((ROOT / "deploy/grafana/dashboards").glob("*.json"))

NOT_SHOWN = {
    **{
        f"nv_inference_{phase}_summary_us": "off by default, and cannot be summed over servers as the histograms can"
        for phase in ("request", "queue", "compute_input", "compute_infer", "compute_output")
    },
    **dict.fromkeys(
        (
            "convoy_sequence_slots",
            "convoy_sequences_active",
            "convoy_sequences_backlog",
            "convoy_sequences_reclaimed_total",
        ),
        "only few models have sequences, and the panels would be empty for all others",
    ),
    "python_gc_objects_collected_total": "what collections cost is shown, by convoy_gc_pause_histogram_us",
    "python_gc_objects_uncollectable_total": "a matter for a debugger",
    "python_gc_collections_total": "the pauses' histogram counts them",
    "process_virtual_memory_bytes": "address space is free; resident memory is shown",
    **{
        f"convoy_shared_memory_{what}": "clients' own doing, and none has any by default"
        for what in ("region_count", "bytes")
    },
    **{
        f"convoy_ledger_{what}": "the models' own counts are shown, which tests hold against these"
        for what in ("received_total", "ended_total", "in_progress", "answered_twice_total")
    },
    "convoy_traces_lost_total": "about whoever watches, not about what is served; an alert tells",
}
"""Families of the page that no dashboard has, and why."""
PROMETHEUS_OWN = {"up", "ALERTS"}
PROMTOOL = find_program("promtool")


def dashboards() -> dict[str, Any]:
    return {path.stem: json.loads(path.read_text()) for path in FILES}


def panels() -> Iterator[tuple[str, PanelView]]:
    for name, dashboard in dashboards().items():
        yield from ((name, panel) for panel in panels_of(dashboard) if panel.kind != "row")


def rules() -> list[dict[str, Any]]:
    files = [yaml.safe_load((RULES / name).read_text()) for name in ("rules.yml", "alerts.yml")]
    return [rule for file in files for group in file["groups"] for rule in group["rules"]]


def alerts() -> dict[str, dict[str, Any]]:
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}


def test_dashboards_are_what_the_code_says() -> None:
    assert generate.stale_files() == [], "run: make dashboards"


def test_stale_missing_and_foreign_dashboards_are_named(tmp_path: Path) -> None:
    generate.generate(tmp_path)
    (tmp_path / "gpu.json").write_text("{}")
    (tmp_path / "model.json").unlink()
    (tmp_path / "foreign.json").write_text("{}")
    assert generate.stale_files(tmp_path) == [tmp_path / name for name in ("model.json", "gpu.json", "foreign.json")]
    generate.generate(tmp_path)
    assert generate.stale_files(tmp_path) == []


def test_every_panel_says_what_it_shows_and_what_to_do() -> None:
    short = [
        (name, panel.title) for name, panel in panels() if not re.search(r"[.:?] .*\.$", panel.json["description"])
    ]
    assert short == [], "a description says what a panel shows, and what to do about it"


def test_panels_of_a_dashboard_fill_its_lines_without_overlap() -> None:
    for name, dashboard in dashboards().items():
        taken: set[tuple[int, int]] = set()
        for panel in panels_of(dashboard):
            cells = {
                (x, y) for x in range(panel.x, panel.x + panel.width) for y in range(panel.y, panel.y + panel.height)
            }
            assert not taken & cells, f"{name}: {panel.title} lies on another panel"
            taken |= cells
        lines = {y for _, y in taken}
        assert all((23, y) in taken for y in lines), f"{name} has lines that are not full"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_links_between_dashboards_lead_somewhere(path: Path) -> None:
    uids = {dashboard["uid"] for dashboard in dashboards().values()}
    assert set(re.findall(r'"/d/([\w-]+)', path.read_text())) <= uids


def page_families() -> tuple[set[str], set[str]]:
    """Names of the families that the metrics page can show as Prometheus has them, and which are histograms."""
    machine = Machine(float, interval=0, cpu=True, gpus=list)
    page = MetricsPage(MetricsConfig(summary_latencies=True), machine)
    found = list(page.families(Snapshot(transport=TransportSnapshot(0, 0, 0, 0))))
    names = {family.name + ("_total" if family.type == "counter" else "") for family in found}
    return names, {family.name for family in found if family.type == "histogram"}


def test_dashboards_and_rules_name_metrics_that_exist() -> None:
    families, histograms = page_families()
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    known = families | recorded | PROMETHEUS_OWN
    expressions = [target.expr for _, panel in panels() for target in panel.targets]
    expressions += [rule["expr"] for rule in rules()]
    for dashboard in dashboards().values():
        queries = (variable["query"] for variable in dashboard["templating"]["list"])
        expressions += [match[1] for query in queries if (match := re.match(r"label_values\((.*), \w+\)", query))]
    for expression in expressions:
        unknown = {name for name in metric_names(expression) if without_suffix(name, histograms) not in known}
        assert not unknown, expression


def test_every_family_of_the_page_is_on_a_dashboard_or_left_out_for_a_reason() -> None:
    families, histograms = page_families()
    names = {name for _, panel in panels() for target in panel.targets for name in metric_names(target.expr)}
    shown = {without_suffix(name, histograms) for name in names}
    assert families - shown == set(NOT_SHOWN)


def test_every_alert_has_a_severity_texts_and_a_section_in_the_operators_page() -> None:
    page = (ROOT / "docs/operations.md").read_text()
    anchors = {heading.lower() for heading in re.findall(r"^#+ (\w+)$", page, re.MULTILINE)}
    for name, alert in alerts().items():
        assert alert["labels"]["severity"] in ("critical", "warning", "info"), name
        assert set(alert["annotations"]) == {"summary", "description", "runbook_url"}, name
        assert alert["annotations"]["runbook_url"] == f"docs/operations.md#{name.lower()}", name
        assert name.lower() in anchors, f"docs/operations.md has no section {name}"


def test_every_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not() -> None:
    cases = yaml.safe_load((RULES / "alerts_test.yml").read_text())["tests"]
    asked = {
        (match[1], bool(question["exp_samples"]))
        for case in cases
        for question in case.get("promql_expr_test", [])
        if (match := re.search(r'ALERTS\{alertname="(\w+)"', question["expr"]))
    }
    assert asked == {(name, fires) for name in alerts() for fires in (True, False)}


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is missing; make system-packages gets it")
@pytest.mark.parametrize(
    "command",
    [
        ("check", "config", "prometheus.yml"),
        ("check", "rules", "rules.yml", "alerts.yml"),
        ("test", "rules", "alerts_test.yml"),
    ],
    ids=" ".join,
)
def test_promtool_is_content(command: tuple[str, ...]) -> None:
    done = subprocess.run([str(PROMTOOL), *command], cwd=RULES, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
