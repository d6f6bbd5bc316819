"""What all dashboards share: variables at the top, rows of panels, links to each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from grafana_foundation_sdk.builders import dashboard as dashboards
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models.dashboard import (
    Dashboard,
    DashboardCursorSync,
    DashboardLinkType,
    VariableModel,
    VariableOption,
    VariableRefresh,
    VariableSort,
)

from deploy.grafana.panels import SOURCE, AnyPanel
from deploy.grafana.promql import BUSY, MODEL, SERVER, VERSION

TAG = "convoy"
OVERVIEW, ONE_MODEL, CAPACITY, GPU = "convoy-overview", "convoy-model", "convoy-capacity", "convoy-gpu"
"""The dashboards' uids: parts of their addresses, which others may have linked to."""


@dataclass(frozen=True, slots=True)
class Row:
    """A heading, and panels from left to right; a line is full when their spans make 24."""

    title: str
    panels: Sequence[AnyPanel]


def choose(name: str, heading: str, values: str, *, several: bool = True) -> Builder[VariableModel]:
    """A variable whose choices are a label's values, all or some of them; `several` False: exactly one."""
    variable = (
        dashboards.QueryVariable(name)
        .label(heading)
        .datasource(SOURCE)
        .query(values)
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.NATURAL_ASC)
        .multi(several)
    )
    if several:
        variable.include_all(True).all_value(".*").current(VariableOption(text=["All"], value=["$__all"]))
    return variable


JOB = choose("job", "Job", "label_values(convoy_build_info, job)")
INSTANCE = choose("instance", "Server", 'label_values(convoy_build_info{job=~"$job"}, instance)')
MODELS = choose("model", "Model", f"label_values(convoy_model_ready{{{SERVER}}}, model)")
THE_MODEL = choose("model", "Model", f"label_values(convoy_model_ready{{{SERVER}}}, model)", several=False)
VERSIONS = choose("version", "Version", f"label_values(convoy_model_ready{{{MODEL}}}, version)")
MODEL_INSTANCE = choose("model_instance", "Instance", f"label_values({BUSY}{{{VERSION}}}, model_instance)")
GPUS = choose("gpu", "GPU", f"label_values(nv_gpu_memory_total_bytes{{{SERVER}}}, gpu_uuid)")


def build(
    uid: str, title: str, description: str, variables: Sequence[Builder[VariableModel]], rows: Sequence[Row]
) -> Dashboard:
    """A dashboard, its panels numbered so that a link to one of them stays right."""
    source = dashboards.DatasourceVariable("datasource").label("Data source").type("prometheus")
    others = (
        dashboards.DashboardLink("Convoy")
        .type(DashboardLinkType.DASHBOARDS)
        .tags([TAG])
        .as_dropdown(True)
        .include_vars(True)
        .keep_time(True)
    )
    board = (
        dashboards.Dashboard(title)
        .uid(uid)
        .description(description)
        .tags([TAG])
        .readonly()
        .refresh("5s")
        .time("now-15m", "now")
        .timezone("browser")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .variables([source, JOB, INSTANCE, *variables])
        .link(others)
    )
    for row in rows:
        board.with_row(dashboards.Row(row.title))
        for panel in row.panels:
            board.with_panel(panel)
    built = board.build()
    for number, shown in enumerate(built.panels or [], start=1):
        shown.id_val = number
    return built
