"""Panels in one house style: four kinds, each with a description that says what it shows and what to do about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from typing import TypeAlias

from grafana_foundation_sdk.builders import common as commons
from grafana_foundation_sdk.builders import dashboard as dashboards
from grafana_foundation_sdk.builders import heatmap, prometheus, stat, table, timeseries
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import common, units
from grafana_foundation_sdk.models.dashboard import (
    DashboardLinkType,
    DataSourceRef,
    DataTransformerConfig,
    DynamicConfigValue,
    FieldColorModeId,
    Panel,
    Threshold,
    ThresholdsMode,
)
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode, HeatmapColorScale
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

MICROSECONDS = units.Microseconds
SECONDS = units.Seconds
SHARE = units.PercentUnit
"""0 to 1, shown as per cent."""
PER_SECOND = units.RequestsPerSecond
RATE = units.OpsPerSecond
NUMBER = units.Short
BYTES = units.BytesIEC
BYTES_PER_SECOND = units.BytesPerSecondIEC
WATTS = units.Watt

WIDTH = 24
"""Of a dashboard, in the grid's units."""
GRAPH_HEIGHT = 8
FIGURE_HEIGHT = 4

AnyPanel: TypeAlias = Builder[Panel]

SOURCE = DataSourceRef(type_val="prometheus", uid="$datasource")


@dataclass(frozen=True, slots=True)
class Query:
    """One expression of a panel."""

    expr: str
    legend: str = ""
    """Text with `{{label}}` for the labels that tell its series apart."""


@dataclass(frozen=True, slots=True)
class Limits:
    """From where on a value is worth a look, and from where on it is bad. `falling`: low values are the bad ones.

    Where both are the same, there is nothing between good and bad.
    """

    warn: float
    bad: float
    falling: bool = False

    def steps(self) -> list[Threshold]:
        """Colours from low values to high ones."""
        between = [] if self.warn == self.bad else [Threshold(min(self.warn, self.bad), "orange")]
        if self.falling:
            return [Threshold(None, "red"), *between, Threshold(self.warn, "green")]
        return [Threshold(None, "green"), *between, Threshold(self.bad, "red")]


@dataclass(frozen=True, slots=True)
class Column:
    """A query whose value is a column of a table."""

    name: str
    expr: str
    unit: str = NUMBER
    limits: Limits | None = None


def figure(
    title: str, description: str, expr: str, unit: str = NUMBER, *, limits: Limits | None = None, span: int = 3
) -> AnyPanel:
    """The latest value of one number, in large, with its recent course behind it."""
    panel = (
        stat.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .height(FIGURE_HEIGHT)
        .span(span)
        .unit(unit)
        .reduce_options(commons.ReduceDataOptions().calcs(["lastNotNull"]).fields("").values(False))
        .graph_mode(common.BigValueGraphMode.AREA)
        .color_mode(common.BigValueColorMode.VALUE)
        .thresholds(_thresholds(limits))
        .with_target(_target(0, Query(expr)))
    )
    if limits is None:
        panel.color_scheme(dashboards.FieldColor().mode(FieldColorModeId.FIXED).fixed_color("blue"))
    return panel


def graph(
    title: str,
    description: str,
    *queries: Query,
    unit: str = NUMBER,
    stacked: bool = False,
    limits: Limits | None = None,
    top: float | None = None,
    span: int = 8,
) -> AnyPanel:
    """Lines over time; `stacked` for parts of a whole. `top` is the axis's end where values have one."""
    panel = (
        timeseries.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .height(GRAPH_HEIGHT)
        .span(span)
        .unit(unit)
        .min(0)
        .line_width(1)
        .fill_opacity(40 if stacked else 10)
        .show_points(common.VisibilityMode.NEVER)
        .stacking(commons.StackingConfig().mode(common.StackingMode.NORMAL if stacked else common.StackingMode.NONE))
        .legend(
            commons.VizLegendOptions()
            .display_mode(common.LegendDisplayMode.TABLE)
            .placement(common.LegendPlacement.BOTTOM)
            .show_legend(True)
            .calcs(["mean", "max"])
        )
        .tooltip(commons.VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI).sort(common.SortOrder.DESCENDING))
    )
    if limits is not None:
        panel.thresholds(_thresholds(limits)).thresholds_style(
            commons.GraphThresholdsStyleConfig().mode(common.GraphThresholdsStyleMode.DASHED)
        )
    if top is not None:
        panel.max(top)
    for place, query in enumerate(queries):
        panel.with_target(_target(place, query))
    return panel


def heat(title: str, description: str, expr: str, unit: str, *, span: int = 12) -> AnyPanel:
    """How a histogram's values are spread, over time: `expr` has the label `le`."""
    return (
        heatmap.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .height(GRAPH_HEIGHT)
        .span(span)
        .calculate(False)
        .color(
            heatmap.HeatmapColorOptions()
            .mode(HeatmapColorMode.SCHEME)
            .scheme("Spectral")
            .scale(HeatmapColorScale.EXPONENTIAL)
            .exponent(0.5)
            .steps(64)
            .reverse(True)
        )
        .y_axis(heatmap.YAxisConfig().unit(unit).axis_placement(common.AxisPlacement.LEFT))
        .filter_values(heatmap.FilterValueRange().le(1e-9))
        .cell_gap(1)
        .show_legend()
        .with_target(_target(0, Query(expr, "{{le}}")).format(PromQueryFormat.HEATMAP))
    )


def grid(
    title: str,
    description: str,
    columns: Sequence[Column],
    *,
    labels: Mapping[str, str],
    span: int = WIDTH,
    height: int = GRAPH_HEIGHT,
    numbers: str = "",
    link: tuple[str, str] | None = None,
) -> AnyPanel:
    """A table of the latest values: a row for each set of `labels` (name → heading), a column for each query.

    `numbers` is a label whose values are numbers, to sort by. `link` is a title and an address for every cell.
    """
    # Grafana calls the value of a lone query by another name.
    fields = ["Value"] if len(columns) == 1 else [f"Value #{letter}" for letter in ascii_uppercase[: len(columns)]]
    values = {field: column.name for field, column in zip(fields, columns, strict=True)}
    order = {name: place for place, name in enumerate([*labels, *values])}
    panel = (
        table.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .height(height)
        .span(span)
        .with_transformation(DataTransformerConfig("merge", options={}))
        .with_transformation(
            DataTransformerConfig(
                "organize",
                options={
                    "excludeByName": {"Time": True},
                    "indexByName": order,
                    "renameByName": {**labels, **values},
                },
            )
        )
    )
    for place, column in enumerate(columns):
        panel.with_target(_target(place, Query(column.expr)).instant().format(PromQueryFormat.TABLE))
        panel.override_by_name(column.name, _cell(column))
    if numbers:
        panel.with_transformation(_as_number(labels[numbers]))
        panel.with_transformation(DataTransformerConfig("sortBy", options={"sort": [{"field": labels[numbers]}]}))
    if link is not None:
        panel.data_links([dashboards.DashboardLink(link[0]).url(link[1]).type(DashboardLinkType.LINK)])
    return panel


def _target(place: int, query: Query) -> prometheus.Dataquery:
    target = prometheus.Dataquery().expr(query.expr).ref_id(ascii_uppercase[place]).datasource(SOURCE).range()
    return target.legend_format(query.legend or "__auto")


def _thresholds(limits: Limits | None) -> dashboards.ThresholdsConfig:
    steps = [Threshold(None, "green")] if limits is None else limits.steps()
    return dashboards.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps)


def _as_number(heading: str) -> DataTransformerConfig:
    conversions = [{"targetField": heading, "destinationType": "number"}]
    return DataTransformerConfig("convertFieldType", options={"conversions": conversions})


def _cell(column: Column) -> list[DynamicConfigValue]:
    properties = [DynamicConfigValue("unit", column.unit)]
    if column.limits is not None:
        properties += [
            DynamicConfigValue("thresholds", _thresholds(column.limits).build()),
            DynamicConfigValue("custom.cellOptions", {"type": "color-text"}),
        ]
    return properties
